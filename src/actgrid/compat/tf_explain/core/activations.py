"""Draw the activations of a layer, as tf-explain does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.core.explainer import Explainer, get_inputs
from actgrid.compat.tf_explain.utils.display import grid_display, to_levels
from actgrid.errors import LayerError, OptionError, ShapeError
from actgrid.models.extraction import get_extractor
from actgrid.models.inputs import build_submodel
from actgrid.option_checks import check_integer

__all__ = ["ExtractActivations"]


class ExtractActivations(Explainer):
    """Draws the channels of a layer in a grid.

    Parameters
    ----------
    batch_size : int or None, optional
        Number of images in one run of the model. None: 32.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.core.activations import ExtractActivations
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    >>> explainer = ExtractActivations()
    >>> explainer.explain((images, None), model, ["conv"]).shape
    (24, 24)
    """

    def __init__(self, batch_size: int | None = None) -> None:
        self.batch_size = batch_size

    def explain(
        self, validation_data: Any, model: Any, layers_name: Iterable[str]
    ) -> npt.NDArray[np.uint8]:
        """Draw the channels of a layer for all images in a square grid.

        Parameters
        ----------
        validation_data : tuple
            Pair (images, labels); images are (N, height, width, C), labels are ignored and may be
            None.
        model : keras.Model
            The model.
        layers_name : list of str
            Name of the layer, in a list. Several layers, which tf-explain does not support, must
            have activations of one size.

        Returns
        -------
        ndarray
            (rows x height, columns x width) uint8. The smallest value of all channels, or 0 for
            empty cells, is drawn as 0, the largest as 255.

        Raises
        ------
        LayerError
            If the model has no such layer. Also a KeyError.
        ShapeError
            If the activations are not (N, height, width, C). Also a ValueError.
        OptionError
            If another argument is invalid. Also a ValueError.

        Examples
        --------
        >>> import keras
        >>> from actgrid.compat.tf_explain.core.activations import ExtractActivations
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2, activation="softmax"),
        ... ])
        >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
        >>> explainer = ExtractActivations()
        >>> grid = explainer.explain((images, None), model, ["conv"])
        >>> explainer.save(grid, ".", "activations.png")
        """
        inputs = get_inputs(validation_data)
        names = [layers_name] if isinstance(layers_name, str) else list(layers_name)
        if not names:
            raise OptionError("layers_name must name a layer: got an empty list")
        step = check_integer("batch_size", self.batch_size or 32, 1)
        extractor = get_extractor(model, names)
        batches = [extractor(inputs[start : start + step]) for start in range(0, len(inputs), step)]
        tiles = []
        for path in batches[0]:
            activations = np.concatenate([batch[path] for batch in batches])
            if activations.ndim != 4:
                raise ShapeError(
                    f"layer {path} must have 4 axes: got activations of {activations.shape}"
                )
            is_channels_first = extractor.layers[path].data_format == "channels_first"
            channels = activations if is_channels_first else np.moveaxis(activations, -1, 1)
            tiles.append(channels.reshape(-1, *channels.shape[2:]))
        sides = {channels.shape[1:] for channels in tiles}
        if len(sides) > 1:
            raise ShapeError(f"layers must have one size: got {sorted(sides)}; name one layer")
        return to_levels(grid_display(np.concatenate(tiles)))

    @staticmethod
    def generate_activations_graph(model: Any, layers_name: Iterable[str]) -> Any:
        """Create a model whose outputs are those of some layers.

        Parameters
        ----------
        model : keras.Model
            The model.
        layers_name : list of str
            Names of layers.

        Returns
        -------
        keras.Model
            A model with the outputs of the layers, in the order of ``model.layers``.

        Raises
        ------
        LayerError
            If the model has none of the layers. Also a KeyError.
        """
        names = [layers_name] if isinstance(layers_name, str) else list(layers_name)
        outputs = [layer.output for layer in model.layers if layer.name in names]
        if not outputs:
            raise LayerError(f"the model has no layer {', '.join(map(repr, names))}")
        return build_submodel(model, outputs if len(outputs) > 1 else outputs[0])
