"""The fixed inputs that a model is watched on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy.typing as npt

from actgrid.errors import ShapeError
from actgrid.models import Extractor, LayerInfo, load_images
from actgrid.models.drawing import draw_layer
from actgrid.models.frameworks import tensorflow
from actgrid.models.images import are_images
from actgrid.models.inputs import as_tensors, batch_size_of, check_inputs, map_tensors
from actgrid.models.tracing import build, unchanged
from actgrid.pipeline.grids import batch_size
from actgrid.rendering import Grid

__all__ = ["Samples", "draw_samples"]

Array = npt.NDArray[Any]


class Samples:
    """A model's inputs, and the activations that it makes of them now.

    Parameters
    ----------
    model, layers
        As in `actgrid.Extractor`.
    data
        The inputs, with their batch axis; or image files or Pillow images.
    batch_size
        The model runs on at most so many of them at once, or on as many as it takes if that is
        fixed; None: on all of them.
    """

    def __init__(
        self, model: Any, data: Any, layers: object, batch_size: int | None = None
    ) -> None:
        self._extractor = Extractor(model, layers)
        data = load_images(data, model=model) if are_images(data) else data
        with tensorflow().device("CPU"):  # a GPU is to hold a batch of them, not all
            self._inputs = as_tensors(data)
        for x in tensorflow().nest.flatten(self._inputs):
            if x is not None and 0 in x.shape:
                raise ShapeError(f"data of shape {tuple(x.shape)} are empty: nothing can be seen")
        fixed = batch_size_of(model)
        self._batch_size = (fixed or batch_size) if batch_size else None
        batch = next(self._batches())
        check_inputs(model, batch)
        build(model, batch)

        def of_any_batch(x: Any) -> Any:
            return tensorflow().TensorSpec((fixed, *x.shape[1:]), x.dtype)

        with unchanged():
            self._extractor.trace(map_tensors(of_any_batch, batch))

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """What is extracted, by layer path."""
        return self._extractor.layers

    def activations(self) -> Iterator[dict[str, Array]]:
        """Yield the activations of batch after batch, by layer path."""
        for inputs in self._batches():
            with unchanged():
                found = self._extractor(inputs)
            yield found

    def _batches(self) -> Iterator[Any]:
        size = self._batch_size
        if size is None:
            yield self._inputs
            return
        count = max(len(x) for x in tensorflow().nest.flatten(self._inputs) if x is not None)
        for start in range(0, count, size):
            with tensorflow().device("CPU"):
                yield map_tensors(itemgetter(slice(start, start + size)), self._inputs)


def draw_samples(
    infos: Mapping[str, LayerInfo], activations: Mapping[str, Array], **render_options: Any
) -> dict[str, list[Grid]]:
    """Draw the layers for every sample of a batch: layer path -> its grids."""
    batch = batch_size(activations)
    return {
        path: [
            draw_layer(infos[path], activation, batch=batch, sample=sample, **render_options)
            for sample in range(batch)
        ]
        for path, activation in activations.items()
    }
