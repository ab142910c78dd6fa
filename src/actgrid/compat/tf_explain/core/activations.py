"""The activations of a layer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.core.explainer import Explainer, inputs_of
from actgrid.compat.tf_explain.utils.display import as_levels, grid_display
from actgrid.errors import LayerError, OptionError, ShapeError
from actgrid.models import Extractor
from actgrid.models.inputs import partial_model
from actgrid.option_checks import integer_option

__all__ = ["ExtractActivations"]


class ExtractActivations(Explainer):
    """Draws every channel of a layer, image by image.

    Parameters
    ----------
    batch_size
        How many images the model runs on at once; None: 32.
    """

    def __init__(self, batch_size: int | None = None) -> None:
        self.batch_size = batch_size

    def explain(
        self, validation_data: Any, model: Any, layers_name: Iterable[str]
    ) -> npt.NDArray[np.uint8]:
        """Return the channels in a square grid.

        Parameters
        ----------
        validation_data
            (images, labels or None).
        model
            A Keras model.
        layers_name
            The layer's name in a list. Several, with which tf-explain failed, must have maps of
            one size.

        Returns
        -------
        numpy.ndarray
            (rows x height, columns x width) uint8, from the smallest value of all, which is 0 or
            less where cells are left empty, to the largest.

        Raises
        ------
        LayerError
            If there is no such layer. Also a KeyError.
        ShapeError, OptionError
            If the layer has no pictures, or an argument cannot be used. Both are ValueErrors.

        Examples
        --------
        >>> explainer = ExtractActivations()
        >>> grid = explainer.explain((images, None), model, ["conv"])
        >>> explainer.save(grid, ".", "activations.png")
        """
        inputs = inputs_of(validation_data)
        names = [layers_name] if isinstance(layers_name, str) else list(layers_name)
        if not names:
            raise OptionError("layers_name is empty: name the layer to draw")
        step = integer_option("batch_size", self.batch_size or 32, 1)
        extractor = Extractor(model, names)
        batches = [extractor(inputs[start : start + step]) for start in range(0, len(inputs), step)]
        tiles = []
        for path in batches[0]:
            activations = np.concatenate([batch[path] for batch in batches])
            if activations.ndim != 4:
                raise ShapeError(f"layer {path} has no pictures but {activations.shape}")
            first = extractor.layers[path].data_format == "channels_first"
            channels = activations if first else np.moveaxis(activations, -1, 1)
            tiles.append(channels.reshape(-1, *channels.shape[2:]))
        sides = {one.shape[1:] for one in tiles}
        if len(sides) > 1:
            raise ShapeError(f"layers of maps of {sorted(sides)} do not fit one grid: name one")
        return as_levels(grid_display(np.concatenate(tiles)))

    @staticmethod
    def generate_activations_graph(model: Any, layers_name: Iterable[str]) -> Any:
        """Return a model whose outputs are those of layers, in the order of ``model.layers``.

        Raises
        ------
        LayerError
            If none of them is a layer of the model. Also a KeyError.
        """
        names = [layers_name] if isinstance(layers_name, str) else list(layers_name)
        outputs = [layer.output for layer in model.layers if layer.name in names]
        if not outputs:
            raise LayerError(f"the model has no layer {', '.join(map(repr, names))}")
        return partial_model(model, outputs if len(outputs) > 1 else outputs[0])
