"""The specification of a run, which workers in other processes also receive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import ActgridError, DtypeError, OptionError, ShapeError
from actgrid.models import Extractor, load_images
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.extraction import get_extractor, trace_layers
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_inputs import find_image_input
from actgrid.models.image_pixels import parse_image_size
from actgrid.models.images import load_with_pixels
from actgrid.models.inputs import list_input_aliases, prepare_inputs, read_input_specs
from actgrid.models.preprocessing import get_preprocess_function
from actgrid.models.texts import takes_strings
from actgrid.models.types import LayersLike
from actgrid.option_groups import check_option
from actgrid.options import InputOptions
from actgrid.runs.manifest import Record
from actgrid.runs.processing import FinishedShard, ProcessingOptions, StageMeter
from actgrid.runs.sinks import FolderSink, Sink, TarSink
from actgrid.runs.sources import Item
from actgrid.runs.stages import process_images
from actgrid.runs.stores import open_store

__all__ = ["ImageLoader", "RunSpec"]


@dataclass(frozen=True)
class ImageLoader:
    """Loads images as model input, with the options of `actgrid.load_images`.

    With ``preprocess="prepared"``, images are arrays, or dicts of arrays, that are passed to the
    model unchanged.
    """

    size: int | tuple[int, int] | None = None
    preprocess: str | Callable[[Any], Any] = "auto"
    fit: str = "crop"

    @property
    def _options(self) -> InputOptions:
        return {"size": self.size, "preprocess": self.preprocess, "fit": self.fit}

    @property
    def is_prepared(self) -> bool:
        """Return whether images are passed to the model unchanged."""
        return isinstance(self.preprocess, str) and self.preprocess == "prepared"

    def check(self, model: Any, are_files: bool = False) -> None:
        """Raise the error that would occur for every image: an invalid option or model.

        Parameters
        ----------
        model
            The model.
        are_files
            Whether the images are files.
        """
        check_option(InputOptions, "fit", self.fit)
        if self.size is not None:
            parse_image_size(self.size)
        if not self.is_prepared:
            find_image_input(model)
            get_preprocess_function(self.preprocess, model)
        elif are_files and len(list_input_aliases(model)) > 1:
            raise ShapeError(
                "the model has several inputs, but an image file provides only one; expected a "
                "dataset of dicts with arrays for all inputs"
            )
        elif are_files:
            raise OptionError("preprocess='prepared' requires arrays, but the images are files")

    def load(self, model: Any, item: Item) -> Any:
        """Load an item as a batch of size 1: an array, or a dict of arrays by input name."""
        if self.is_prepared:
            return _take_unchanged(model, item)
        image = _get_image(model, item)
        return load_images(
            image, size=self.size, preprocess=self.preprocess, model=model, fit=self.fit
        )

    def load_with_pixels(self, model: Any, item: Item) -> tuple[npt.NDArray[Any], Any]:
        """Load an image for display and as model input.

        Returns
        -------
        tuple
            Pixels (1, H, W, C) from 0 to 255, and the model input as a batch of size 1.

        Raises
        ------
        ShapeError
            If no input of the model has the shape of an image.
        """
        if not self.is_prepared:
            image = _get_image(model, item)
            return load_with_pixels(
                image, size=self.size, preprocess=self.preprocess, model=model, fit=self.fit
            )
        x = self.load(model, item)
        arrays = tensorflow().nest.flatten(prepare_inputs(model, x))
        images = [position for position, array in enumerate(arrays) if len(array.shape) == 4]
        if not images:
            raise ShapeError(f"shape {tuple(arrays[0].shape[1:])} is not the shape of an image")
        image = np.asarray(arrays[images[0]])
        if find_input_data_format(model, images[0]) == "channels_first":
            image = np.moveaxis(image, 1, -1)
        low, high = float(image.min()), float(image.max())
        return (image - low) * np.float32(255 / ((high - low) or 1)), x

    def input_spec(self, model: Any) -> Any:
        """Return the TensorSpec of the input batches; None if the shape is unknown."""
        spec, tf = read_input_specs(model), tensorflow()
        if not isinstance(spec, tf.TensorSpec):
            return None
        shape = spec.shape.as_list()
        if not self.is_prepared:
            _, channels_first, fixed_size = find_image_input(model)
            size = fixed_size if self.size is None else parse_image_size(self.size)
            sides = slice(2, 4) if channels_first else slice(1, 3)
            shape[sides] = size or (None, None)
            spec = tf.TensorSpec(shape, tf.float32)
        return None if None in shape[1:] else spec


def _get_image(model: Any, item: Item) -> Any:
    return item.image(_list_input_names(model) if isinstance(item.source, Mapping) else ())


def _list_input_names(model: Any) -> list[str]:
    return [name for aliases in list_input_aliases(model) for name in aliases]


def _take_unchanged(model: Any, item: Item) -> Any:
    """Return the array of an item as a batch of size 1, without preprocessing.

    Of a dict, the entries that are inputs of the model are returned.

    Raises
    ------
    ActgridError
        If the file of the item could not be read.
    """
    if isinstance(item.source, ActgridError):
        raise item.source
    if isinstance(item.source, Mapping):
        input_names = _list_input_names(model)
        entries = {
            name: value
            for name, value in item.source.items()
            if not input_names or name in input_names
        }
        if entries:
            arrays = {name: _to_array(model, item, value) for name, value in entries.items()}
            return {name: array[None] for name, array in arrays.items()}
        return _to_array(model, item, item.image())[None]
    return _to_array(model, item, item.source)[None]


def _to_array(model: Any, item: Item, value: Any) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind in "OSU" and takes_strings(model):
        return array
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise DtypeError(
            f"preprocess='prepared' requires arrays of numbers; image {item.index} is "
            f"{type(value).__name__}"
        )
    return array


@dataclass(frozen=True)
class RunSpec:
    """The specification of a run: layers, processing options, output, image loader.

    Parameters
    ----------
    layers
        The layers, see `actgrid.Extractor`.
    options : ProcessingOptions
        Options for processing the images.
    output : str
        A folder or URL.
    loader : ImageLoader
        Loads the images.
    sink : {"folders", "tar"}
        Layout of the files.
    replaces_unfinished : bool
        Whether to remove pictures that an unfinished run left in the output.
    """

    layers: LayersLike
    options: ProcessingOptions
    output: str
    loader: ImageLoader = ImageLoader()
    sink: str = "folders"
    replaces_unfinished: bool = False

    def make_extractor(self, model: Any) -> Extractor:
        """Return an extractor of the activations of the run's layers.

        If the input shape is known, the extractor is compiled now, and otherwise at its first call.
        """
        extractor = get_extractor(model, self.layers)
        if (spec := self.loader.input_spec(extractor.model)) is not None:
            trace_layers(extractor, spec)
        return extractor

    def process(
        self,
        extractor: Extractor,
        items: Iterable[Item],
        *,
        recorded: Mapping[int, bool] | None = None,
        thresholds: Mapping[str, Any] | None = None,
        meter: StageMeter | None = None,
    ) -> Iterator[Record | FinishedShard]:
        """Process images, and yield records and finished shards, see `process_images`."""
        with self._open_sink() as sink:
            yield from process_images(
                extractor,
                items,
                lambda item: self.loader.load(extractor.model, item),
                sink,
                self.options,
                recorded=recorded,
                thresholds=thresholds,
                meter=meter,
            )

    def _open_sink(self) -> Sink:
        store = open_store(self.output)
        if self.sink == "tar":
            return TarSink(store, self.options.shard_size)
        return FolderSink(store, remove_others=self.replaces_unfinished)
