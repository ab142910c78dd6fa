"""All that a worker needs to know, wherever it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.models import Extractor, load_images
from actgrid.models.data_formats import input_data_format
from actgrid.models.extraction import trace_layers
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_inputs import image_input
from actgrid.models.image_pixels import image_size
from actgrid.models.images import load_with_pixels
from actgrid.models.inputs import input_aliases, input_specs, prepare_inputs
from actgrid.models.preprocessing import preprocessing
from actgrid.models.types import LayersLike
from actgrid.option_groups import check_option
from actgrid.options import InputOptions
from actgrid.runs.manifest import Record
from actgrid.runs.sinks import FolderSink, Sink, TarSink
from actgrid.runs.sources import Item
from actgrid.runs.stages import process
from actgrid.runs.stores import open_store
from actgrid.runs.work import Meter, Shard, Work

__all__ = ["Job", "Loading"]


@dataclass(frozen=True)
class Loading:
    """How images become input of a model, see `actgrid.load_images`.

    With ``preprocess="prepared"`` they are arrays, or dicts of arrays, that the model takes as they
    are.
    """

    size: int | tuple[int, int] | None = None
    preprocess: str | Callable[[Any], Any] = "auto"
    fit: str = "crop"

    @property
    def _options(self) -> InputOptions:
        return {"size": self.size, "preprocess": self.preprocess, "fit": self.fit}

    @property
    def is_prepared(self) -> bool:
        """Whether the images are the model's input as they are."""
        return isinstance(self.preprocess, str) and self.preprocess == "prepared"

    def check(self, model: Any, are_files: bool = False) -> None:
        """Raise what would be raised for every image: a wrong option, a model of something else.

        Parameters
        ----------
        are_files
            Whether the images are files, each of which is the only input of the model.
        """
        check_option(InputOptions, "fit", self.fit)
        if self.size is not None:
            image_size(self.size)
        if not self.is_prepared:
            image_input(model)
            preprocessing(self.preprocess, model)
        elif are_files and len(input_aliases(model)) > 1:
            raise ShapeError("the model takes several inputs, of which an image is one")
        elif are_files:
            raise OptionError("preprocess='prepared' takes arrays, and the images are files")

    def load(self, model: Any, item: Item) -> Any:
        """Return an image as a batch of one for the model: an array, or a dict of arrays."""
        if self.is_prepared:
            return _as_given(model, item)
        image = _image(model, item)
        return load_images(
            image, size=self.size, preprocess=self.preprocess, model=model, fit=self.fit
        )

    def load_with_pixels(self, model: Any, item: Item) -> tuple[npt.NDArray[Any], Any]:
        """Return an image as pixels 0 to 255, (1, H, W, C), and as the model takes it.

        Raises
        ------
        ShapeError
            If it is an array of another kind.
        """
        if not self.is_prepared:
            image = _image(model, item)
            return load_with_pixels(
                image, size=self.size, preprocess=self.preprocess, model=model, fit=self.fit
            )
        given = self.load(model, item)
        arrays = tensorflow().nest.flatten(prepare_inputs(model, given))
        images = [place for place, array in enumerate(arrays) if len(array.shape) == 4]
        if not images:
            raise ShapeError(f"{tuple(arrays[0].shape[1:])} is no image")
        image = np.asarray(arrays[images[0]])
        if input_data_format(model, images[0]) == "channels_first":
            image = np.moveaxis(image, 1, -1)
        low, high = float(image.min()), float(image.max())
        return (image - low) * np.float32(255 / ((high - low) or 1)), given

    def spec(self, model: Any) -> Any:
        """Return a TensorSpec of the batches that the model will be given, None if not known."""
        spec, tf = input_specs(model), tensorflow()
        if not isinstance(spec, tf.TensorSpec):
            return None
        shape = spec.shape.as_list()
        if not self.is_prepared:
            _, channels_first, fixed = image_input(model)
            size = fixed if self.size is None else image_size(self.size)
            sides = slice(2, 4) if channels_first else slice(1, 3)
            shape[sides] = size or (None, None)
            spec = tf.TensorSpec(shape, tf.float32)
        return None if None in shape[1:] else spec


def _image(model: Any, item: Item) -> Any:
    """Return the image of an item for a model of one image."""
    return item.image(_names(model) if isinstance(item.source, Mapping) else ())


def _names(model: Any) -> list[str]:
    return [name for aliases in input_aliases(model) for name in aliases]


def _as_given(model: Any, item: Item) -> Any:
    """Return what a model takes of an element: of a dict the entries that are inputs."""
    if isinstance(item.source, Mapping):
        known = _names(model)
        entries = {name: value for name, value in item.source.items() if not known or name in known}
        if entries:
            return {name: _array(item, value)[None] for name, value in entries.items()}
        return _array(item, item.image())[None]
    return _array(item, item.source)[None]


def _array(item: Item, value: Any) -> npt.NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise DtypeError(
            f"with preprocess='prepared' images are arrays of numbers; image {item.index} is "
            f"{type(value).__name__}"
        )
    return array


@dataclass(frozen=True)
class Job:
    """What is done to images, and where to.

    Attributes
    ----------
    layers
        Which, see `actgrid.Extractor`.
    output
        A folder or URL.
    sink
        ``"folders"`` or ``"tar"``.
    replaces_unfinished
        Whether the output may hold pictures of an unfinished run, which are to be removed.
    """

    layers: LayersLike
    work: Work
    output: str
    loading: Loading = Loading()
    sink: str = "folders"
    replaces_unfinished: bool = False

    def extractor(self, model: Any) -> Extractor:
        """Return an extractor of the layers, traced where the model's input is known."""
        extractor = Extractor(model, self.layers)
        if (spec := self.loading.spec(extractor.model)) is not None:
            trace_layers(extractor, spec)
        return extractor

    def run(
        self,
        extractor: Extractor,
        items: Iterable[Item],
        *,
        recorded: Mapping[int, bool] | None = None,
        thresholds: Mapping[str, Any] | None = None,
        meter: Meter | None = None,
    ) -> Iterator[Record | Shard]:
        """Do the work, see `process`."""
        with self._open_sink() as sink:
            yield from process(
                extractor,
                items,
                lambda item: self.loading.load(extractor.model, item),
                sink,
                self.work,
                recorded=recorded,
                thresholds=thresholds,
                meter=meter,
            )

    def _open_sink(self) -> Sink:
        store = open_store(self.output)
        if self.sink == "tar":
            return TarSink(store, self.work.shard_size)
        return FolderSink(store, remove_others=self.replaces_unfinished)
