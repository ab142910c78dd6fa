"""The images of a run, in their order: files, datasets, arrays."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from actgrid.errors import DtypeError, ImageError, MissingFileError, OptionError, ShapeError
from actgrid.figures.files import safe_name, unique_names
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_sources import DEMO, find_images, images_in_folder, is_folder

__all__ = ["Item", "Items", "find_items"]


@dataclass(frozen=True)
class Item:
    """An image of a run.

    Attributes
    ----------
    index
        Its place among the inputs, from 0.
    name
        What it is called in records: a file's path as it was found (bytes that are no UTF-8
        escaped), or the index.
    key
        What its files are called: unique whatever its case, safe on any file system, with ``/``
        between folders, and without dots.
    source
        A path, or an element as the inputs gave it, perhaps a dict: see `image`.
    label
        Its class, where the inputs tell.
    """

    index: int
    name: str
    key: str
    source: Any
    label: str | None = None

    def image(self, names: Iterable[str] = ()) -> Any:
        """Return the one image for `actgrid.load_images`: a path, a picture or an array.

        Parameters
        ----------
        names
            What the image may be called in a dict. Without such an entry it is the one called
            ``"image"``, or else the only one that can be an image.

        Raises
        ------
        MissingFileError
            If there is no such file, but perhaps a folder. Also a FileNotFoundError.
        ImageError
            If that cannot be told. Also an OSError.
        DtypeError
            If it is nothing of the kind. Also a TypeError.
        ShapeError
            If it is an array of several. Also a ValueError.
        """
        source = self.source
        if isinstance(source, Mapping):
            source = self._entry(source, names)
        if isinstance(source, Image.Image):
            return source
        if isinstance(source, Path):
            return _existing(source)
        found = f"image {self.index} is a {type(source).__name__}"
        if not hasattr(source, "__array__"):
            raise DtypeError(f"{found}, not an array of pixels")
        try:
            array = np.asarray(source)
        except (TypeError, ValueError, RuntimeError) as error:  # as of a tensor on a GPU
            raise DtypeError(f"{found}, which makes no array: {error}") from error
        if array.dtype.kind not in "biuf":
            raise DtypeError(f"{found} of dtype {array.dtype}, not an array of pixels")
        if array.ndim not in (2, 3):
            raise ShapeError(f"{found} of shape {array.shape}, not one image")
        return array

    def _entry(self, source: Mapping[str, Any], names: Iterable[str]) -> Any:
        """Return the image in a dict."""
        for name in (*names, "image"):
            if name in source:
                return source[name]
        images = [
            value
            for value in source.values()
            if isinstance(value, Image.Image)
            or (getattr(value, "ndim", 0) in (2, 3) and value.dtype.kind in "biuf")
        ]
        if len(images) != 1:
            raise DtypeError(
                f"image {self.index} is a dict of {', '.join(map(repr, source))}, of which "
                f"{len(images)} can be the image: call it 'image'"
            )
        return images[0]


class Items(ABC):
    """The images of a run, each in its place.

    Attributes
    ----------
    total
        How many; None: not known.
    files
        Whether all are files, which others who see the same disk can read as well.
    single
        Whether all are files that were named one by one.
    repeatable
        Whether they can be started more than once.
    """

    total: int | None = None
    files = False
    single = False
    repeatable = True

    @abstractmethod
    def start(self, index: int = 0) -> Iterator[Item]:
        """Yield the images from an index on.

        No image raises an error here, see `Item.image`; what the inputs themselves raise when
        they are asked for the next one does. An iterator can be started once.
        """

    def digest(self) -> str | None:
        """Return a hash of all names, keys and labels; None where the inputs have to be read."""
        return None


# Folders that a run has for its own files; no image is called so.
_TAKEN = ("manifest", "top")


def find_items(inputs: Any, output: Path | None = None) -> Items:
    """Return the images that inputs stand for, none of which is loaded yet.

    Parameters
    ----------
    inputs
        - An image file, a folder (its image files, recursively, without hidden ones, not following
          links to folders), a glob, ``"demo"`` (the embedded photo), a text list, or an iterable of
          these. A list is a ``.txt`` file, UTF-8, with a
          path in each line, relative to its folder, and perhaps a tab and a label.
        - A `tf.data.Dataset` of images, (image, label), or batches of these. One that shuffles
          has other images whenever it is started.
        - An iterable or a sequence of arrays or Pillow images, or of (image, label); or one array:
          (N, H, W, C), or one image.
        - In place of an image also a dict: of a model's inputs by name, or of an image and what
          comes with it, see `Item.image`. A dict of arrays stands for N such dicts.
    output
        Where pictures are written to. In a folder or a glob it is passed over, so that none of
        them becomes an image.

    Returns
    -------
    Items
        A file that is named twice is there twice. In a folder the label of ``dog/001.jpg`` is
        ``dog``; other files have none.

    Raises
    ------
    MissingFileError
        If there is no such file, or a glob or folder holds none; files in a text list are not
        looked at. Also a FileNotFoundError.
    OptionError
        If there are no images, or nothing that could be images, or if `output` is a folder of
        them. Also a ValueError.

    Examples
    --------
    >>> [item.key for item in find_items("photos").start()]
    ['cat/001', 'cat/002', 'dog/001']
    """
    if _is_dataset(inputs):
        return _Dataset(inputs)
    if isinstance(inputs, (str, os.PathLike, Image.Image)) or _is_one_array(inputs):
        inputs = [inputs]
    if isinstance(inputs, Iterator):  # perhaps of paths, such as those of Path.glob
        first = list(islice(inputs, 1))
        inputs = [*first, *inputs] if _are_paths(first) else chain(first, inputs)
    if isinstance(inputs, Mapping):
        inputs = _Rows(inputs)
    if isinstance(inputs, bytes) or not (isinstance(inputs, Iterable) or _is_indexed(inputs)):
        raise OptionError(
            "images are files, folders, globs, text lists, a tf.data.Dataset or an iterable of "
            f"arrays, not {type(inputs).__name__}"
        )
    if isinstance(inputs, Collection) and _are_paths(inputs):
        return _Files(inputs, output)
    return _Elements(inputs)


class _Rows(Sequence[Any]):
    """A dict of arrays of N entries as N dicts."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = dict(arrays)
        counts = {}
        for name, array in self._arrays.items():
            if not hasattr(array, "__len__") or isinstance(array, (str, bytes)):
                raise OptionError(
                    f"a dict of images must be of arrays, not of {type(array).__name__} ({name!r})"
                )
            counts[name] = len(array)
        if len(set(counts.values())) > 1:
            shown = ", ".join(f"{name!r}: {count}" for name, count in counts.items())
            raise ShapeError(f"the arrays of a dict must be of one length, not {shown}")
        self._count = next(iter(counts.values()), 0)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return {name: array[index] for name, array in self._arrays.items()}


class _Files(Items):
    """Files. There may be millions: of each there are two strings, and those of the labels."""

    files = True

    def __init__(
        self, sources: Iterable[str | os.PathLike[str]], output: Path | None = None
    ) -> None:
        self._paths: list[str] = []
        self._labels: list[str | None] = []
        self.single = True
        keys: list[str] = []
        for source in sources:
            folder = Path(source)
            if is_folder(source):
                ours = None if output is None else _below(folder, output)
                if ours == ".":
                    raise OptionError(
                        f"the output {output} is the folder of the images: its pictures would "
                        "become such; choose another, which may be inside it"
                    )
                for name in images_in_folder(folder, ours):
                    parts = Path(name).parts
                    self._add(str(folder / name), parts[0] if len(parts) > 1 else None)
                    keys.append(_key(parts))
                self.single = False
                continue
            found = find_images(source)
            if output is not None and _below(_fixed(folder), output) not in (None, "."):
                found = [path for path in found if _below(output, path) is None]
            for path in found:
                is_named = path == folder or source == DEMO
                self.single = self.single and is_named and path.suffix.lower() != ".txt"
                listed = _read_list(path) if path.suffix.lower() == ".txt" else [(path, None)]
                for file, label in listed:
                    self._add(str(file), label)
                    keys.append(_key([file.name]))
        if not keys:
            raise OptionError("no images were given")
        self._keys = unique_names(keys, _TAKEN)
        self.total = len(keys)

    def _add(self, path: str, label: str | None) -> None:
        self._paths.append(path)
        self._labels.append(label and sys.intern(_encodable(label)))

    def start(self, index: int = 0) -> Iterator[Item]:
        for place in range(index, len(self._paths)):
            path = self._paths[place]
            yield Item(place, _encodable(path), self._keys[place], Path(path), self._labels[place])

    def digest(self) -> str:
        found = hashlib.sha256()
        for item in self.start():
            found.update(orjson.dumps([item.name, item.key, item.label]))
        return found.hexdigest()


class _Elements(Items):
    """What an iterable or a sequence holds."""

    def __init__(self, elements: Any) -> None:
        self._elements = elements
        self.repeatable = not isinstance(elements, Iterator)
        self.total = len(elements) if hasattr(elements, "__len__") else None
        if self.total == 0:
            raise OptionError("no images were given")

    def start(self, index: int = 0) -> Iterator[Item]:
        for place, element in enumerate(self._from(index), index):
            image, label = element, None
            if isinstance(element, (tuple, list)) and element:
                image, label = element[0], _label(*element[1:2])
            if label is None and isinstance(image, Mapping):
                label = _label(image.get("label"))
            yield Item(place, f"{place:06}", f"{place:06}", image, label)

    def _from(self, index: int) -> Iterator[Any]:
        if _is_indexed(self._elements):
            return (self._elements[place] for place in range(index, len(self._elements)))
        return islice(self._elements, index, None)


class _Dataset(_Elements):
    """A `tf.data.Dataset`, whose batches are taken apart."""

    def __init__(self, dataset: Any) -> None:
        spec = dataset.element_spec
        image = spec[0] if isinstance(spec, tuple) and spec else spec
        entries = image.values() if isinstance(image, Mapping) else [image]
        ranks = [
            one.shape.rank
            for one in entries
            if getattr(one, "shape", None) is not None and one.dtype.name != "string"
        ]
        # The image has more axes than what comes beside it.
        rank = None if None in ranks else max(ranks, default=0)
        if rank not in (None, 2, 3, 4):
            raise OptionError(
                f"the dataset's elements are {spec}, not images or (image, label), where an image "
                "may be in a dict: map them to such"
            )
        if dataset.cardinality() == -1:
            raise OptionError("the dataset never ends: take as many as are wanted")
        try:
            if rank is None:
                dataset = dataset.map(_batched)
            if rank in (None, 4):
                dataset = dataset.unbatch()
        except ValueError as error:
            raise OptionError(f"the dataset's batches cannot be taken apart: {error}") from error
        self._dataset = dataset
        known = int(dataset.cardinality())
        self.total = known if known >= 0 else None
        if known == 0:
            raise OptionError("no images were given")

    def _from(self, index: int) -> Iterator[Any]:
        elements: Iterator[Any] = self._dataset.skip(index).as_numpy_iterator()
        return elements


def _batched(*element: Any) -> Any:
    """Return an element of a dataset as a batch, which only TensorFlow knows whether it is."""
    tf = tensorflow()
    images = [one for one in tf.nest.flatten(element[0]) if one.dtype != tf.string]
    return tf.cond(
        tf.reduce_max([tf.rank(one) for one in images]) == 4,
        lambda: element,
        lambda: tf.nest.map_structure(lambda tensor: tensor[None], element),
    )


def _is_dataset(inputs: Any) -> bool:
    # One that exists has loaded TensorFlow, which others need not.
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(inputs, tf.data.Dataset)


def _is_one_array(inputs: Any) -> bool:
    return hasattr(inputs, "__array__") and np.ndim(inputs) not in (1, 4)


def _is_indexed(inputs: Any) -> bool:
    return hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__")


def _are_paths(inputs: Iterable[Any]) -> bool:
    return all(isinstance(one, (str, os.PathLike)) for one in inputs)


def _read_list(file: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the paths and labels in a text list.

    Raises
    ------
    ImageError
        If it cannot be read.
    MissingFileError
        If there are none.
    """
    empty = True
    try:
        # Windows begins files with a mark; Linux has names that are no UTF-8.
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for line in lines:
                path, _, label = map(str.strip, line.partition("\t"))
                if path:
                    empty = False
                    # Unlike that of Path, it leaves a name alone that only begins so.
                    path = os.path.expanduser(path)  # noqa: PTH111
                    yield file.parent / path, label or None
    except OSError as error:
        raise ImageError(f"the list {file} cannot be read: {error.strerror}") from error
    if empty:
        raise MissingFileError(f"the list {file} names no images")


def _existing(file: Path) -> Path:
    try:
        if file.is_file():
            return file
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror}") from error
    if file.is_symlink():
        raise MissingFileError(f"{file} is a link to {os.readlink(file)}, which is no file")  # noqa: PTH115
    raise MissingFileError(f"there is no image {file}")


def _below(folder: Path, path: Path) -> str | None:
    """Return where a path is below a folder, None if it is not."""
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError:
        return None


def _fixed(pattern: Path) -> Path:
    """Return the folder in which a glob looks for what fits it."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def _key(parts: Sequence[str]) -> str:
    # WebDataset ends the key of an entry at its first dot.
    stems = [*parts[:-1], Path(parts[-1]).stem]
    return "/".join(safe_name(stem.replace(".", "_")) for stem in stems)


def _label(label: Any = None) -> str | None:
    """Return what an element says of its class: a scalar, or a one in a vector of zeros."""
    if hasattr(label, "__array__"):
        array = np.asarray(label)
        if array.size == 1:
            label = array.item()
        elif array.ndim == 1 and array.dtype.kind in "biuf" and sorted(array)[-2:] == [0, 1]:
            label = array.argmax()
        else:
            return None  # such as a mask
    if isinstance(label, bytes):
        label = label.decode(errors="surrogateescape")
    return None if label is None else _encodable(str(label))


def _encodable(text: str) -> str:
    """Return text that JSON can hold: of names that are no UTF-8, the bytes escaped."""
    return text.encode(errors="backslashreplace").decode()
