"""Extract the attention scores of a model for one sample."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Unpack

import numpy as np

from actgrid.attribution.model_samples import prepare_sample
from actgrid.errors import LayerError, suggest
from actgrid.models.extraction import get_extractor
from actgrid.models.layers import LayerInfo
from actgrid.models.networks import check_keras_model, get_network
from actgrid.models.types import ModelInput, ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import TokenSampleOptions
from actgrid.rendering import AttentionMap, PictureDict

__all__ = ["extract_attention", "list_attention"]

# The suffix of the path of attention scores after the path of their layer.
_SUFFIX = re.compile(r"/?attention(:\d+)?$")


@takes_options(TokenSampleOptions)
def extract_attention(
    model: ModelLike,
    x: ModelInput,
    layers: str | int | Iterable[str | int] | None = None,
    **options: Unpack[TokenSampleOptions],
) -> PictureDict[AttentionMap]:
    """Run a model on an input and return the attention scores of its layers.

    The scores are found in the graph of the model, whether its layers return them or not: those of
    Keras's `MultiHeadAttention`, `GroupedQueryAttention`, `Attention` and `AdditiveAttention`, of
    keras-hub's layers, and of any code that computes a softmax of a product of tokens with tokens.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    x : array_like, dict, list, image sources or texts
        The model's input, as for `actgrid.explain`: preprocessed arrays with a batch axis, image
        files or Pillow images, or texts.
    layers : str, int or list of these, optional
        Paths of layers that compute attention (``"mha"``) or of their attention scores
        (``"mha/attention"``), globs over these paths, or positions among all attention scores:
        -1 is the last. None: all.
    **options
        See `actgrid.options.TokenSampleOptions`.

    Returns
    -------
    PictureDict of str to AttentionMap
        Path of the attention scores -> their map, in the order in which the layers run. The patches
        of an image have the image and their grid. Of attention within windows, such as in a Swin
        transformer, the first window is shown.

    Raises
    ------
    LayerError
        If the model has no attention, or an item of `layers` matches none. Also a KeyError.
    ModelError
        If the model cannot be run on `x`. Also a ValueError.
    CapabilityError
        If the model is not a Keras model.

    Examples
    --------
    >>> import keras
    >>> inputs = keras.Input((4, 8))
    >>> outputs = keras.layers.MultiHeadAttention(2, 4, name="mha")(inputs, inputs)
    >>> model = keras.Model(inputs, outputs)
    >>> attention = actgrid.extract_attention(model, np.random.rand(1, 4, 8))
    >>> attention["mha/attention"].values.shape
    (2, 4, 4)
    >>> attention["mha/attention"].matrix().save("attention.png")
    """
    prepared = prepare_sample(model, x, options["sample"], options["tokens"])
    check_keras_model(prepared.model, "extract_attention")
    network = get_network(prepared.model)
    infos = _select(list_attention(network.list_layers(prepared.inputs)), layers)
    arrays = get_extractor(prepared.model, [info.path for info in infos])(prepared.inputs)
    maps = PictureDict[AttentionMap]()
    for info in infos:
        values = arrays[info.path][0].astype(np.float32)
        query_grid, key_grid = info.grids[2:]
        _, queries, keys = values.shape
        uses_image = query_grid is not None or key_grid is not None
        is_cross = "cross" in info.path and queries != keys
        maps[info.path] = AttentionMap(
            values,
            queries=None if query_grid else prepared.name_tokens(queries, info.path),
            keys=None
            if key_grid
            else prepared.name_tokens(keys, "encoder" if is_cross else info.path),
            query_grid=query_grid,
            key_grid=key_grid,
            image=prepared.picture if uses_image else None,
            layer=info.path,
        )
    return maps


def list_attention(infos: Iterable[LayerInfo]) -> list[LayerInfo]:
    """Return the attention scores after the softmax among the layer outputs of a model.

    Parameters
    ----------
    infos : iterable of LayerInfo
        The layer outputs, as `actgrid.list_layers` returns them.

    Returns
    -------
    list of LayerInfo
        The attention scores of each layer once.

    Examples
    --------
    >>> actgrid.figures.list_attention(actgrid.list_layers("demo"))
    []
    """
    scores = [info for info in infos if len(info.shape) == 4 and info.kind == "attention"]
    owners = [_SUFFIX.sub("", info.path) for info in scores if info.type == "AttentionScores"]
    return [
        info
        for info in scores
        if info.type == "AttentionScores"
        # A softmax layer outside of a layer that computes attention.
        or (
            info.type == "Softmax"
            and not any(not owner or info.path.startswith(f"{owner}/") for owner in owners)
        )
    ]


def _select(
    infos: list[LayerInfo], layers: str | int | Iterable[str | int] | None
) -> list[LayerInfo]:
    """Return the attention scores that the option `layers` selects."""
    if not infos:
        raise LayerError("the model has no attention: expected layers such as MultiHeadAttention")
    if layers is None:
        return infos
    items = [layers] if isinstance(layers, (str, int)) else list(layers)
    chosen: set[str] = set()
    for item in items:
        if isinstance(item, int):
            if not -len(infos) <= item < len(infos):
                raise LayerError(
                    f"there is no attention {item}: the model has {len(infos)} attention layers"
                )
            chosen.add(infos[item].path)
            continue
        matches = [info.path for info in infos if _matches(info.path, str(item))]
        if not matches:
            paths = [info.path for info in infos]
            names = [*(_SUFFIX.sub("", path) for path in paths), *paths]
            raise LayerError(
                f"no attention is called {item!r}{suggest(str(item), names)}; attention: "
                f"{', '.join(paths[:8])}{', ...' if len(paths) > 8 else ''}"
            )
        chosen.update(matches)
    return [info for info in infos if info.path in chosen]


def _matches(path: str, item: str) -> bool:
    owner = _SUFFIX.sub("", path)
    return any(
        candidate == item or fnmatch.fnmatchcase(candidate, item) for candidate in (path, owner)
    )
