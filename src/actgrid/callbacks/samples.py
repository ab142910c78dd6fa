"""Fixed inputs for which callbacks extract activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.figures.grids import get_batch_size
from actgrid.models import Extractor, LayerInfo, load_images
from actgrid.models.drawing import draw_layers
from actgrid.models.extraction import trace_layers
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.image_sources import are_images, find_images
from actgrid.models.inputs import (
    as_tensors,
    get_fixed_batch_size,
    map_tensors,
    prepare_inputs,
    read_input_specs,
)
from actgrid.models.sample_files import load_samples
from actgrid.models.tracing import build_model, keep_state
from actgrid.models.types import LayersLike
from actgrid.rendering import Grid

__all__ = ["SampleBatches", "SampleData", "Samples", "draw_samples", "read_data"]

Array = npt.NDArray[Any]

# Maximum number of samples of a dataset, whose size may be unknown before it is read.
_MAX_SAMPLES = 10_000


@dataclass(frozen=True)
class SampleData:
    """Record of the inputs that a callback observes, checked without the model.

    Attributes
    ----------
    values
        Image sources; or tensors with their batch axis, in the structure of the model's input; or
        for a dataset, a list with such a structure for each element.
    is_dataset
        Whether `values` are the elements of a dataset.
    """

    values: Any
    is_dataset: bool = False

    def to_inputs(self, model: Any) -> Any:
        """Convert the sample data to one batch of inputs for a model."""
        if not self.is_dataset:
            if (samples := load_samples(self.values, model)) is not None:
                return samples.batch
            return load_images(self.values, model=model) if are_images(self.values) else self.values
        tf, specs = tensorflow(), read_input_specs(model)
        ranks = [spec.shape.rank for spec in tf.nest.flatten(specs)] if specs is not None else []
        # Elements of a batched dataset are concatenated. Elements without a batch axis are single
        # samples, which are stacked.
        element_ranks = [tensor.shape.rank for tensor in tf.nest.flatten(self.values[0])]
        join = tf.stack if ranks == [rank + 1 for rank in element_ranks] else tf.concat
        with tf.device("CPU"):
            return tf.nest.map_structure(lambda *parts: join(parts, axis=0), *self.values)


def read_data(data: Any) -> SampleData:
    """Read and check the option `data` of a callback: the inputs that it observes.

    Parameters
    ----------
    data
        Arrays, image sources, or a dataset as `fit` takes it: a `tf.data.Dataset` or a
        `keras.utils.PyDataset` whose elements are inputs, (inputs, targets) or (inputs, targets,
        sample weights).

    Returns
    -------
    SampleData
        The inputs, not yet converted for a model.

    Raises
    ------
    OptionError
        If `data` is an iterator, or a dataset that is infinite or has more than 10,000 samples.
        Also a ValueError.
    MissingFileError
        If an image file does not exist. Also a FileNotFoundError.
    DtypeError
        If an array is not numeric. Also a TypeError.
    ShapeError
        If there is no sample. Also a ValueError.
    """
    if are_images(data):
        _check_files(data)
        return SampleData(data)
    if isinstance(data, Iterator):
        raise OptionError(
            f"data must be arrays, images or a dataset: got the iterator {type(data).__name__}, "
            "which can be read only once"
        )
    elements = _list_elements(data)
    with tensorflow().device("CPU"):  # only a batch at a time is moved to a GPU
        values: Any = as_tensors(data) if elements is None else list(map(as_tensors, elements))
    if elements is not None and not values:
        raise ShapeError("data must not be empty: got an empty dataset")
    for x in tensorflow().nest.flatten(values):
        if x is not None and 0 in x.shape:
            raise ShapeError(f"data must not be empty: got shape {tuple(x.shape)}")
    return SampleData(values, elements is not None)


def _check_files(sources: Any) -> None:
    for source in sources if isinstance(sources, (list, tuple)) else [sources]:
        if isinstance(source, (list, tuple)):
            _check_files(source)
        elif not hasattr(source, "size"):  # Pillow images have this attribute, paths do not
            find_images(source)


def _list_elements(data: Any) -> list[Any] | None:
    """Return the inputs in each element of a dataset.

    Labels and sample weights are dropped.

    Returns
    -------
    list or None
        None: `data` is not a dataset.

    Raises
    ------
    OptionError
        If the dataset is infinite.
    """
    elements: Any
    if isinstance(data, tensorflow().data.Dataset):
        is_infinite = data.cardinality() == tensorflow().data.INFINITE_CARDINALITY
        elements = data
    elif isinstance(data, keras().utils.PyDataset):
        is_infinite = data.num_batches is None
        elements = (data[index] for index in range(0 if is_infinite else data.num_batches))
    else:
        return None
    if is_infinite:
        raise OptionError("data must be finite: got an infinite dataset; use data.take(n)")
    input_list: list[Any] = []
    count = 0
    for element in elements:
        inputs = keras().utils.unpack_x_y_sample_weight(element)[0]
        count += max((len(x) if np.ndim(x) else 1) for x in tensorflow().nest.flatten(inputs))
        if count > _MAX_SAMPLES:
            raise OptionError(
                f"data must have at most {_MAX_SAMPLES:,} samples: got a dataset of more than "
                f"{_MAX_SAMPLES:,}; use data.take(n)"
            )
        input_list.append(inputs)
    return input_list


class SampleBatches:
    """Fixed inputs of a model, in batches; iteration yields the inputs of each batch.

    Parameters
    ----------
    model : keras.Model
        The model, which is built if necessary.
    data : SampleData
        The inputs, from `read_data`.
    batch_size : int or None, optional
        Maximum number of samples in a batch, unless the model has a fixed batch size. None: all
        samples in one batch.
    """

    def __init__(self, model: Any, data: SampleData, batch_size: int | None = None) -> None:
        with tensorflow().device("CPU"):
            self._inputs = as_tensors(data.to_inputs(model))
        fixed_size = get_fixed_batch_size(model)
        self._batch_size = (fixed_size or batch_size) if batch_size else None
        self.first = prepare_inputs(model, next(iter(self)))
        build_model(model, self.first)

    def __iter__(self) -> Iterator[Any]:
        size = self._batch_size
        if size is None:
            yield self._inputs
            return
        count = max(len(x) for x in tensorflow().nest.flatten(self._inputs) if x is not None)
        for start in range(0, count, size):
            with tensorflow().device("CPU"):
                yield map_tensors(itemgetter(slice(start, start + size)), self._inputs)


class Samples:
    """Fixed inputs of a model, whose current activations can be extracted.

    Parameters
    ----------
    model : keras.Model
        The model.
    data : SampleData
        The inputs, from `read_data`.
    layers : str, int, type, callable, list or None
        The layers to extract, as in `actgrid.Extractor`.
    batch_size : int or None, optional
        Maximum number of samples in one run, unless the model has a fixed batch size. None: all
        samples in one run.
    """

    def __init__(
        self, model: Any, data: SampleData, layers: LayersLike, batch_size: int | None = None
    ) -> None:
        self._extractor = Extractor(model, layers)
        self._batches = SampleBatches(model, data, batch_size)
        fixed_size = get_fixed_batch_size(model)

        def make_spec(x: Any) -> Any:
            return tensorflow().TensorSpec((fixed_size, *x.shape[1:]), x.dtype)

        with keep_state():
            trace_layers(self._extractor, map_tensors(make_spec, self._batches.first))

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Layer path -> description of each extracted layer."""
        return self._extractor.layers

    def extract(self) -> Iterator[dict[str, Array]]:
        """Yield the current activations of each batch, layer path -> (N, ...) array."""
        for inputs in self._batches:
            with keep_state():
                activations = self._extractor(inputs)
            yield activations


def draw_samples(
    infos: Mapping[str, LayerInfo], activations: Mapping[str, Array], **render_options: Any
) -> dict[str, list[Grid]]:
    """Draw the activations of layers as one grid for each sample.

    Parameters
    ----------
    infos
        Layer path -> `LayerInfo`.
    activations
        Layer path -> (N, ...) array.
    **render_options
        Options of `actgrid.render`.

    Returns
    -------
    dict
        Layer path -> list of N grids.
    """
    batch = get_batch_size(activations)
    samples = [
        draw_layers(infos, activations, batch=batch, sample=sample, **render_options)
        for sample in range(batch)
    ]
    return {path: [grids[path] for grids in samples] for path in activations}
