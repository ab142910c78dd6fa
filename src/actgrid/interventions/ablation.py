"""Ablation: decrease of the target score without each channel of a layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.channel_replacement import score_replaced_channels
from actgrid.attribution.map_layers import (
    choose_layer,
    compute_layer_values,
    keep_activation,
)
from actgrid.attribution.requests import (
    ExplanationRequest,
    OutputRequest,
    load_model_inputs,
    prepare_request,
)
from actgrid.errors import CapabilityError, LayerError, OptionError, ShapeError
from actgrid.interventions.channel_edits import REFERENCE, list_position_axes, resolve_reference
from actgrid.interventions.patching import extract_in_batches
from actgrid.interventions.results import ChannelAblation
from actgrid.models import LayerInfo, load_model
from actgrid.models.extraction import get_extractor
from actgrid.models.frameworks import tensorflow
from actgrid.models.network import check_compiled
from actgrid.models.networks import get_network
from actgrid.models.types import LayersLike, ModelInput, ModelLike, TargetLike
from actgrid.option_groups import pick_options, takes_options
from actgrid.options import AblationOptions, ScoreOptions
from actgrid.progress import show_progress
from actgrid.rendering import PictureDict, render
from actgrid.rendering.colormaps import palette

__all__ = [
    "ablate_channels",
    "check_channels",
    "check_replaceable",
    "prepare_scores",
    "score_channels",
    "score_samples",
]

Array = npt.NDArray[Any]

# Side of the tile of a channel in the picture of a ranking, in pixels.
_TILE_SIDE = 32


@takes_options(AblationOptions, batch_size=32)
def ablate_channels(
    model: ModelLike,
    x: ModelInput,
    layers: LayersLike = None,
    target: TargetLike = None,
    **options: Unpack[AblationOptions],
) -> PictureDict[ChannelAblation]:
    """Measure how much the score of a class decreases without each channel of a layer.

    Each channel is replaced alone, and the layers after it run again, in batches of one compiled
    function. Channels with a large decrease are needed for the class; channels whose score
    increases speak against it.

    Parameters
    ----------
    model : keras.Model or str
        A Keras model, or anything that `actgrid.load_model` loads as a Keras model.
    x : array_like, dict, list or image sources
        The model's input, image files or texts, as in `actgrid.explain`: N samples.
    layers : str, int, type, callable, list or None, optional
        The layers whose channels are replaced, see `actgrid.Extractor`. None: the last layer with a
        spatial output, as for class activation maps.
    target : int, str, callable, list or dict, optional
        The class or function whose score is measured, as in `actgrid.explain`. None: the class that
        the unchanged model predicts for the sample. If the model ends in a softmax or sigmoid, the
        score is the logit.
    **options
        See `actgrid.options.AblationOptions`. `value` and `reference` are as in `actgrid.patch`.

    Returns
    -------
    PictureDict of str to ChannelAblation
        Layer path -> scores and decreases, with a ranking as a picture.

    Raises
    ------
    OptionError
        If an option is invalid, or the target names several outputs. Also a ValueError.
    LayerError
        If a layer or channel does not exist, or the score does not depend on the layer. Also a
        KeyError.
    CapabilityError
        If the model is not a Keras model. Also a ValueError.
    ActgridError
        If `actgrid.explain` cannot explain the model or the target.

    References
    ----------
    Morcos et al., On the Importance of Single Directions for Generalization, 2018,
    https://arxiv.org/abs/1803.06959.

    Examples
    --------
    >>> import keras
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> x = np.random.default_rng(0).random((5, 8, 8, 3))
    >>> ablation = actgrid.ablate_channels(model, x, "conv", target=1)["conv"]
    >>> ablation
    <ChannelAblation of conv, 4 channels, 5 samples>
    >>> ablation.drops.shape, sorted(ablation.ranking.tolist())
    ((5, 4), [0, 1, 2, 3])
    >>> ablation.save("ablation.png")
    """
    value, reference = options["value"], options["reference"]
    if isinstance(value, str) and value == REFERENCE and reference is None:
        raise OptionError(
            "value 'reference' needs reference, the input whose activations are inserted"
        )
    request = prepare_scores(model, x, target, "ablate_channels", options)
    output = request.get_only_output()
    network = output.batch.model
    if layers is None:
        first = next(output.batch.split())
        choice = choose_layer(first, None, None)
        layers = compute_layer_values(first, choice, keep_activation).layer
    extractor = get_extractor(network, layers)
    references: dict[str, Array] = {}
    if reference is not None:
        inputs = load_model_inputs(network, reference)
        references = extract_in_batches(extractor, inputs, options["batch_size"])
    batch = output.batch
    activations = extract_in_batches(
        extractor, batch.reader.get_model_inputs(batch.inputs), options["batch_size"]
    )
    scores, classes, targets, is_logit = score_samples(output)
    batch = batch.select(range(len(batch)), classes)
    selected = {
        path: check_channels(info, options["channels"]) for path, info in extractor.layers.items()
    }
    ablations: PictureDict[ChannelAblation] = PictureDict()
    batch_size = options["batch_size"]
    total = sum(-(-len(batch) * len(chosen) // batch_size) for chosen in selected.values())
    with show_progress(total, "ablating", options["progress"]) as advance:
        for path, info in extractor.layers.items():
            check_replaceable(info)
            activation, chosen = activations[path], selected[path]
            substitutes = _make_substitutes(info, activation, value, references.get(path))
            parts = []
            for part in score_channels(batch, info, activation, substitutes, chosen):
                parts.append(part)
                advance()
            ablations[path] = ChannelAblation(
                path,
                chosen,
                targets,
                scores,
                np.concatenate(parts).reshape(len(batch), len(chosen)),
                is_logit,
                value if isinstance(value, str) else f"{value:g}",
                _draw_tiles(info, activation, chosen),
            )
    return ablations


def prepare_scores(
    model: ModelLike, x: ModelInput, target: TargetLike, purpose: str, options: Any
) -> ExplanationRequest:
    """Prepare samples and targets whose scores are measured while layers are changed.

    Parameters
    ----------
    purpose
        Name of the public function, for errors.
    options
        Options of the function, among them those of `ScoreOptions`.
    """
    model = load_model(model)
    check_compiled(get_network(model), purpose)
    return prepare_request(model, x, target, **pick_options(options, ScoreOptions))


def score_samples(
    output: OutputRequest,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], tuple[str, ...], bool]:
    """Score the samples of a request.

    Returns
    -------
    tuple
        Score, class and name of the target of each sample, and whether the scores are logits.
    """
    results = [part.compute_scores() for part, _ in output.split()]
    names = [name for result in results for name in output.name_targets(result)]
    return (
        np.concatenate([result.scores for result in results]),
        np.concatenate([result.classes for result in results]),
        tuple(names),
        all(bool(result.is_logit) for result in results),
    )


def check_replaceable(info: LayerInfo) -> None:
    """Raise CapabilityError if the output of a layer cannot be replaced."""
    if info.kind == "attention":
        raise CapabilityError(
            f"attention scores cannot be replaced: got {info.path}; expected a layer"
        )


def check_channels(info: LayerInfo, channels: Iterable[int] | None) -> npt.NDArray[np.intp]:
    """Return the selected channels of a layer in increasing order; None selects all.

    Raises
    ------
    LayerError
        If the layer has no such channel.
    ShapeError
        If the layer has no fixed number of channels.
    """
    count = info.channels
    if count is None:
        raise ShapeError(f"layer {info.path} has no fixed number of channels: {info.shape}")
    if channels is None:
        return np.arange(count)
    selected = np.unique(np.asarray(list(channels)))
    if not selected.size or selected.dtype.kind not in "iu":
        raise OptionError(f"channels must be integers, at least one: got {channels!r}")
    outside = selected[(selected < -count) | (selected >= count)]
    if outside.size:
        raise LayerError(
            f"layer {info.path} has no channel {outside[0]}; expected 0 to {count - 1}"
        )
    return np.unique(selected % count).astype(np.intp)


def score_channels(
    batch: ExplainedBatch,
    info: LayerInfo,
    activation: Array,
    substitutes: Array,
    channels: npt.NDArray[np.intp],
) -> Iterable[npt.NDArray[np.float32]]:
    """Score all samples with each channel of a layer replaced, as `score_replaced_channels`.

    Parameters
    ----------
    activation
        Output of the layer, which has one row if it does not depend on the sample.
    substitutes
        Values that replace a channel.
    channels
        (K,) indices of the channels.
    """
    tf = tensorflow()
    indices = tf.constant(np.tile(channels.astype(np.int32), (len(batch), 1)))
    activations = np.broadcast_to(activation, (len(batch), *activation.shape[1:]))
    return score_replaced_channels(
        batch,
        info.path,
        info.channel_axis,
        tf.constant(activations),
        tf.constant(substitutes),
        indices,
    )


def _make_substitutes(
    info: LayerInfo, activation: Array, value: float | str, reference: Array | None
) -> Array:
    """Return the values that replace a channel, which broadcast to the activation."""
    if isinstance(value, str):
        substitutes = resolve_reference(info, value, reference)
        if substitutes is None:
            axes = list_position_axes(info)
            substitutes = activation.astype(np.float64).mean(axes, keepdims=True)
        return substitutes.astype(activation.dtype)
    return np.full((1,) * activation.ndim, value, activation.dtype)


def _draw_tiles(
    info: LayerInfo, activation: Array, channels: npt.NDArray[np.intp]
) -> npt.NDArray[np.uint8] | None:
    """Return the tile of each channel for the first sample; None if channels have no tiles."""
    if info.kind != "image":
        return None
    grid = render(activation, sample=0, order=channels, data_format=info.data_format)
    size, colours = (_TILE_SIDE, _TILE_SIDE), palette(grid.cmap)
    images = [Image.fromarray(colours[grid.tile(channel)]) for channel in channels.tolist()]
    return np.stack([np.asarray(image.resize(size, Image.Resampling.BOX)) for image in images])
