"""The fixed inputs that a model is watched on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.figures.grids import batch_size
from actgrid.models import Extractor, LayerInfo, load_images
from actgrid.models.drawing import draw_layer
from actgrid.models.extraction import trace_layers
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.image_sources import are_images, find_images
from actgrid.models.inputs import (
    as_tensors,
    batch_size_of,
    input_specs,
    map_tensors,
    prepare_inputs,
)
from actgrid.models.tracing import build, unchanged
from actgrid.models.types import LayersLike
from actgrid.rendering import Grid

__all__ = ["SampleData", "Samples", "draw_samples", "read_data"]

Array = npt.NDArray[Any]

# Samples of a dataset, whose size may not be known before it has been read.
_MAX_SAMPLES = 10_000


@dataclass(frozen=True)
class SampleData:
    """The inputs that a callback was given, checked as far as they can be without the model.

    Attributes
    ----------
    values
        Image sources; or tensors with their batch axis in the structure of the model's input; or,
        of a dataset, one such structure for each element.
    is_dataset
        Whether `values` are the elements of a dataset.
    """

    values: Any
    is_dataset: bool = False

    def inputs(self, model: Any) -> Any:
        """Return the inputs as one batch of tensors for a model."""
        if not self.is_dataset:
            return load_images(self.values, model=model) if are_images(self.values) else self.values
        tf, specs = tensorflow(), input_specs(model)
        ranks = [spec.shape.rank for spec in tf.nest.flatten(specs)] if specs is not None else []
        # A dataset for `fit` is batched; elements that lack the batch axis are samples.
        found = [tensor.shape.rank for tensor in tf.nest.flatten(self.values[0])]
        join = tf.stack if ranks == [rank + 1 for rank in found] else tf.concat
        with tf.device("CPU"):
            return tf.nest.map_structure(lambda *parts: join(parts, axis=0), *self.values)


def read_data(data: Any) -> SampleData:
    """Return the inputs of a callback, read and checked.

    Parameters
    ----------
    data
        Arrays, image sources, or a dataset as `fit` takes it: a `tf.data.Dataset` or a
        `keras.utils.PyDataset` whose elements are inputs, (inputs, targets) or (inputs, targets,
        sample weights).

    Raises
    ------
    OptionError
        If `data` is an iterator, or a dataset that is infinite or has more than 10,000 samples.
        Also a ValueError.
    MissingFileError
        If there is no such image file. Also a FileNotFoundError.
    DtypeError
        If arrays are not of numbers. Also a TypeError.
    ShapeError
        If there is no sample. Also a ValueError.
    """
    if are_images(data):
        _check_files(data)
        return SampleData(data)
    if isinstance(data, Iterator):
        raise OptionError(
            f"data must be arrays, images or a dataset, got {type(data).__name__}: an iterator can "
            "be read only once"
        )
    elements = _elements(data)
    with tensorflow().device("CPU"):  # a GPU is to hold a batch of them, not all
        values: Any = as_tensors(data) if elements is None else list(map(as_tensors, elements))
    if elements is not None and not values:
        raise ShapeError("data is an empty dataset: nothing can be seen")
    for x in tensorflow().nest.flatten(values):
        if x is not None and 0 in x.shape:
            raise ShapeError(f"data of shape {tuple(x.shape)} are empty: nothing can be seen")
    return SampleData(values, elements is not None)


def _check_files(sources: Any) -> None:
    for source in sources if isinstance(sources, (list, tuple)) else [sources]:
        if isinstance(source, (list, tuple)):
            _check_files(source)
        elif not hasattr(source, "size"):  # which a Pillow image has, and no path
            find_images(source)


def _elements(data: Any) -> list[Any] | None:
    """Return the inputs in each element of a dataset; None if `data` is no dataset."""
    elements: Any
    if isinstance(data, tensorflow().data.Dataset):
        infinite = data.cardinality() == tensorflow().data.INFINITE_CARDINALITY
        elements = data
    elif isinstance(data, keras().utils.PyDataset):
        infinite = data.num_batches is None
        elements = (data[index] for index in range(0 if infinite else data.num_batches))
    else:
        return None
    if infinite:
        raise OptionError("data is a dataset that never ends: data.take(n) gives n elements of it")
    found: list[Any] = []
    count = 0
    for element in elements:
        inputs = keras().utils.unpack_x_y_sample_weight(element)[0]
        count += max((len(x) if np.ndim(x) else 1) for x in tensorflow().nest.flatten(inputs))
        if count > _MAX_SAMPLES:
            raise OptionError(
                f"data is a dataset of more than {_MAX_SAMPLES:,} samples: data.take(n) gives n "
                "elements of it"
            )
        found.append(inputs)
    return found


class Samples:
    """A model's inputs, and the activations that it makes of them now.

    Parameters
    ----------
    model, layers
        As in `actgrid.Extractor`.
    data
        The inputs, see `read_data`.
    batch_size
        The model runs on at most so many of them at once, or on as many as it takes if that is
        fixed; None: on all of them.
    """

    def __init__(
        self, model: Any, data: SampleData, layers: LayersLike, batch_size: int | None = None
    ) -> None:
        self._extractor = Extractor(model, layers)
        with tensorflow().device("CPU"):
            self._inputs = as_tensors(data.inputs(model))
        fixed = batch_size_of(model)
        self._batch_size = (fixed or batch_size) if batch_size else None
        batch = prepare_inputs(model, next(self._batches()))
        build(model, batch)

        def of_any_batch(x: Any) -> Any:
            return tensorflow().TensorSpec((fixed, *x.shape[1:]), x.dtype)

        with unchanged():
            trace_layers(self._extractor, map_tensors(of_any_batch, batch))

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
