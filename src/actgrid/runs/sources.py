"""The images of a run in order: from files, datasets or arrays."""

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
from actgrid.figures.files import make_safe_name, make_unique_names
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_sources import DEMO, find_images, is_folder, iterate_folder_images

__all__ = ["Item", "Items", "find_items"]


@dataclass(frozen=True)
class Item:
    """An image of a run, which is not loaded yet.

    Parameters
    ----------
    index : int
        Position of the image among the inputs, from 0.
    name : str
        Path of the image file, with bytes that are not UTF-8 escaped, or the index as text.
    key : str
        Prefix of the output files: unique without regard to case, valid on all file systems, with
        ``/`` between folders, and without dots.
    source : object
        A path, or an element of the inputs: an array, a Pillow image or a dict.
    label : str or None
        Class of the image; None if the inputs do not contain labels.
    """

    index: int
    name: str
    key: str
    source: Any
    label: str | None = None

    def image(self, names: Iterable[str] = ()) -> Any:
        """Return the item's image for `actgrid.load_images`.

        Parameters
        ----------
        names
            If the item is a dict: keys under which the image may be stored. If none of them is
            present, the entry ``"image"`` is used. If that is missing too, the only entry that has
            the shape of an image is used.

        Returns
        -------
        pathlib.Path, PIL.Image.Image or ndarray
            The image, which is not loaded if it is a file.

        Raises
        ------
        MissingFileError
            If the file does not exist or is a folder. Also a FileNotFoundError.
        ImageError
            If the file cannot be accessed. Also an OSError.
        DtypeError
            If the item is not an image. Also a TypeError.
        ShapeError
            If the array contains several images. Also a ValueError.
        """
        source = self.source
        if isinstance(source, Mapping):
            source = self._get_entry(source, names)
        if isinstance(source, Image.Image):
            return source
        if isinstance(source, Path):
            return _check_exists(source)
        description = f"image {self.index} is a {type(source).__name__}"
        if not hasattr(source, "__array__"):
            raise DtypeError(f"{description}, not an array of pixels")
        try:
            array = np.asarray(source)
        except (TypeError, ValueError, RuntimeError) as error:  # such as for a GPU tensor
            raise DtypeError(f"{description}, which cannot be converted: {error}") from error
        if array.dtype.kind not in "biuf":
            raise DtypeError(f"{description} of dtype {array.dtype}, not an array of pixels")
        if array.ndim not in (2, 3):
            raise ShapeError(f"{description} of shape {array.shape}, not one image")
        return array

    def _get_entry(self, source: Mapping[str, Any], names: Iterable[str]) -> Any:
        """Return the entry of a dict that contains the image."""
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
                f"{len(images)} can be the image: name the image 'image'"
            )
        return images[0]


class Items(ABC):
    """Base class of the images of a run, in order.

    Attributes
    ----------
    total
        Number of images; None if it is not known.
    are_files
        Whether all images are files, which other processes can also read.
    are_named_files
        Whether all images are files that were given by their own paths.
    is_repeatable
        Whether the images can be iterated more than once.
    """

    total: int | None = None
    are_files = False
    are_named_files = False
    is_repeatable = True

    @abstractmethod
    def start(self, index: int = 0) -> Iterator[Item]:
        """Yield the images from an index on.

        Errors of single images are raised by `Item.image`, and not here. Errors of the input
        iterator itself are raised here.
        """

    def digest(self) -> str | None:
        """Return a hash of the names, keys and labels of all images, as hexadecimal text.

        None: they are not known before the inputs are read, as for an iterator.
        """
        return None


# Folders for other files of a run, which are not used as keys of images.
_RESERVED_KEYS = ("manifest", "top")


def find_items(inputs: Any, output: Path | None = None) -> Items:
    """Find the images that the given inputs describe, without loading them.

    Parameters
    ----------
    inputs
        - An image file, a folder, a glob, ``"demo"`` (the embedded photo), a text list, or an
          iterable of these. A folder is searched recursively, without hidden files and links to
          folders. A text list is a ``.txt`` file in UTF-8 with a path in each line, relative to the
          folder of the list, and optionally a tab and a label.
        - A `tf.data.Dataset` of images, (image, label), or batches of these.
        - An iterable or sequence of arrays, Pillow images or (image, label); or an array of one
          image, or (N, H, W, C).
        - A dict in the place of an image: the inputs of a model by name, or an image with further
          entries, see `Item.image`. A dict of arrays with N entries stands for N dicts.
    output
        Folder of the output files, which is not searched for images.

    Returns
    -------
    Items
        A file that is given twice is included twice. The label of ``dog/001.jpg`` in a folder is
        ``dog``. Other files have no label.

    Raises
    ------
    MissingFileError
        If a file does not exist, or a glob or folder contains no images; files in a text list are
        not checked. Also a FileNotFoundError.
    OptionError
        If there are no images, if the inputs have an unsupported type, or if `output` is a folder
        of images. Also a ValueError.

    Examples
    --------
    >>> from PIL import Image
    >>> from pathlib import Path
    >>> for name in ("cat", "dog"):
    ...     Path("photos", name).mkdir(parents=True)
    ...     Image.new("RGB", (8, 8)).save(f"photos/{name}/001.png")
    >>> [item.key for item in find_items("photos").start()]
    ['cat/001', 'dog/001']
    """
    if _is_dataset(inputs):
        return _Dataset(inputs)
    if isinstance(inputs, (str, os.PathLike, Image.Image)) or _is_single_image_array(inputs):
        inputs = [inputs]
    if isinstance(inputs, Iterator):  # an iterator of paths, such as Path.glob, is read now
        head = list(islice(inputs, 1))
        inputs = [*head, *inputs] if _are_paths(head) else chain(head, inputs)
    if isinstance(inputs, Mapping):
        inputs = _Rows(inputs)
    if isinstance(inputs, bytes) or not (isinstance(inputs, Iterable) or _is_indexed(inputs)):
        raise OptionError(
            "images must be files, folders, globs, text lists, a tf.data.Dataset or an iterable "
            f"of arrays, not {type(inputs).__name__}"
        )
    if isinstance(inputs, Collection) and _are_paths(inputs):
        return _Files(inputs, output)
    return _Elements(inputs)


class _Rows(Sequence[Any]):
    """A dict of arrays with N entries, as a sequence of N dicts."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = dict(arrays)
        counts = {}
        for name, array in self._arrays.items():
            if not hasattr(array, "__len__") or isinstance(array, (str, bytes)):
                raise OptionError(
                    f"a dict of images must contain arrays, not {type(array).__name__} ({name!r})"
                )
            counts[name] = len(array)
        if len(set(counts.values())) > 1:
            lengths = ", ".join(f"{name!r}: {count}" for name, count in counts.items())
            raise ShapeError(f"the arrays of a dict must have equal lengths, not {lengths}")
        self._count = next(iter(counts.values()), 0)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return {name: array[index] for name, array in self._arrays.items()}


class _Files(Items):
    """The `Items` of image files.

    Only strings are stored for each file, because there may be millions of files.
    """

    are_files = True

    def __init__(
        self, sources: Iterable[str | os.PathLike[str]], output: Path | None = None
    ) -> None:
        self._paths: list[str] = []
        self._labels: list[str | None] = []
        self.are_named_files = True
        keys: list[str] = []
        for source in sources:
            folder = Path(source)
            if is_folder(source):
                excluded = None if output is None else _find_relative_path(folder, output)
                if excluded == ".":
                    raise OptionError(
                        f"the output {output} is the folder of the images: its pictures would "
                        "become images; choose another folder, for example inside it"
                    )
                for name in iterate_folder_images(folder, excluded):
                    parts = Path(name).parts
                    self._add(str(folder / name), parts[0] if len(parts) > 1 else None)
                    keys.append(_make_key(parts))
                self.are_named_files = False
                continue
            paths = find_images(source)
            glob_folder = _find_glob_folder(folder)
            if output is not None and _find_relative_path(glob_folder, output) not in (None, "."):
                paths = [path for path in paths if _find_relative_path(output, path) is None]
            for path in paths:
                is_named = path == folder or source == DEMO
                self.are_named_files &= is_named and path.suffix.lower() != ".txt"
                listed = _read_list(path) if path.suffix.lower() == ".txt" else [(path, None)]
                for file, label in listed:
                    self._add(str(file), label)
                    keys.append(_make_key([file.name]))
        if not keys:
            raise OptionError("no images were given")
        self._keys = make_unique_names(keys, _RESERVED_KEYS)
        self.total = len(keys)

    def _add(self, path: str, label: str | None) -> None:
        self._paths.append(path)
        self._labels.append(label and sys.intern(_escape(label)))

    def start(self, index: int = 0) -> Iterator[Item]:
        for i in range(index, len(self._paths)):
            path = self._paths[i]
            yield Item(i, _escape(path), self._keys[i], Path(path), self._labels[i])

    def digest(self) -> str:
        digest = hashlib.sha256()
        for item in self.start():
            digest.update(orjson.dumps([item.name, item.key, item.label]))
        return digest.hexdigest()


class _Elements(Items):
    """The `Items` of an iterable or a sequence of images."""

    def __init__(self, elements: Any) -> None:
        self._elements = elements
        self.is_repeatable = not isinstance(elements, Iterator)
        self.total = len(elements) if hasattr(elements, "__len__") else None
        if self.total == 0:
            raise OptionError("no images were given")

    def start(self, index: int = 0) -> Iterator[Item]:
        for i, element in enumerate(self._iterate_from(index), index):
            image, label = element, None
            if isinstance(element, (tuple, list)) and element:
                image, label = element[0], _format_label(*element[1:2])
            if label is None and isinstance(image, Mapping):
                label = _format_label(image.get("label"))
            yield Item(i, f"{i:06}", f"{i:06}", image, label)

    def _iterate_from(self, index: int) -> Iterator[Any]:
        if _is_indexed(self._elements):
            return (self._elements[i] for i in range(index, len(self._elements)))
        return islice(self._elements, index, None)


class _Dataset(_Elements):
    """The `Items` of a `tf.data.Dataset`, whose batches are split into images."""

    def __init__(self, dataset: Any) -> None:
        spec = dataset.element_spec
        image = spec[0] if isinstance(spec, tuple) and spec else spec
        entries = image.values() if isinstance(image, Mapping) else [image]
        ranks = [
            entry.shape.rank
            for entry in entries
            if getattr(entry, "shape", None) is not None and entry.dtype.name != "string"
        ]
        # The image has the highest rank of all entries.
        rank = None if None in ranks else max(ranks, default=0)
        if rank not in (None, 2, 3, 4):
            raise OptionError(
                f"the elements of the dataset are {spec}; expected images or (image, label), where "
                "an image may be in a dict: convert them with dataset.map"
            )
        if dataset.cardinality() == -1:
            raise OptionError("the dataset is infinite: limit it with dataset.take")
        try:
            if rank is None:
                dataset = dataset.map(_ensure_batch)
            if rank in (None, 4):
                dataset = dataset.unbatch()
        except ValueError as error:
            raise OptionError(f"the batches of the dataset cannot be split: {error}") from error
        self._dataset = dataset
        cardinality = int(dataset.cardinality())
        self.total = cardinality if cardinality >= 0 else None
        if cardinality == 0:
            raise OptionError("no images were given")

    def _iterate_from(self, index: int) -> Iterator[Any]:
        elements: Iterator[Any] = self._dataset.skip(index).as_numpy_iterator()
        return elements


def _ensure_batch(*element: Any) -> Any:
    """Add a batch axis to a dataset element unless it has one, at run time."""
    tf = tensorflow()
    images = [tensor for tensor in tf.nest.flatten(element[0]) if tensor.dtype != tf.string]
    return tf.cond(
        tf.reduce_max([tf.rank(image) for image in images]) == 4,
        lambda: element,
        lambda: tf.nest.map_structure(lambda tensor: tensor[None], element),
    )


def _is_dataset(inputs: Any) -> bool:
    # If a dataset exists, TensorFlow is imported; do not import it for other inputs.
    tf = sys.modules.get("tensorflow")
    return tf is not None and isinstance(inputs, tf.data.Dataset)


def _is_single_image_array(inputs: Any) -> bool:
    return hasattr(inputs, "__array__") and np.ndim(inputs) not in (1, 4)


def _is_indexed(inputs: Any) -> bool:
    return hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__")


def _are_paths(inputs: Iterable[Any]) -> bool:
    return all(isinstance(element, (str, os.PathLike)) for element in inputs)


def _read_list(file: Path) -> Iterator[tuple[Path, str | None]]:
    """Yield the paths and labels of a text list.

    Raises
    ------
    ImageError
        If the list cannot be read.
    MissingFileError
        If the list is empty.
    """
    is_empty = True
    try:
        # Files of Windows may begin with a byte order mark; names on Linux may not be UTF-8.
        with file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for line in lines:
                path, _, label = map(str.strip, line.partition("\t"))
                if path:
                    is_empty = False
                    # Path.expanduser would raise for a file name that begins with a tilde.
                    path = os.path.expanduser(path)  # noqa: PTH111
                    yield file.parent / path, label or None
    except OSError as error:
        raise ImageError(f"the list {file} cannot be read: {error.strerror}") from error
    if is_empty:
        raise MissingFileError(f"the list {file} contains no images")


def _check_exists(file: Path) -> Path:
    try:
        if file.is_file():
            return file
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror}") from error
    if file.is_symlink():
        raise MissingFileError(f"{file} is a link to {os.readlink(file)}, which is not a file")  # noqa: PTH115
    raise MissingFileError(f"there is no image {file}")


def _find_relative_path(folder: Path, path: Path) -> str | None:
    """Return the path relative to a folder; None if it is not inside the folder."""
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError:
        return None


def _find_glob_folder(pattern: Path) -> Path:
    """Return the folder in which a glob pattern searches: its part without wildcards."""
    return Path(*takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def _make_key(parts: Sequence[str]) -> str:
    # In WebDataset, the key of an entry ends at its first dot.
    stems = [*parts[:-1], Path(parts[-1]).stem]
    return "/".join(make_safe_name(stem.replace(".", "_")) for stem in stems)


def _format_label(label: Any = None) -> str | None:
    """Return the class of an element as text, from a scalar or a one-hot vector."""
    if hasattr(label, "__array__"):
        array = np.asarray(label)
        if array.size == 1:
            label = array.item()
        elif array.ndim == 1 and array.dtype.kind in "biuf" and sorted(array)[-2:] == [0, 1]:
            label = array.argmax()
        else:
            return None  # not a class, such as a mask
    if isinstance(label, bytes):
        label = label.decode(errors="surrogateescape")
    return None if label is None else _escape(str(label))


def _escape(text: str) -> str:
    """Escape bytes of a file name that are not UTF-8, so that JSON can contain it."""
    return text.encode(errors="backslashreplace").decode()
