"""Resolve image sources (paths, folders, globs, lists) to single images."""

from __future__ import annotations

import glob
import os
import struct
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from PIL import Image, UnidentifiedImageError

from actgrid.errors import (
    ActgridError,
    ImageError,
    MissingFileError,
    OptionError,
    TooLargeError,
)
from actgrid.models.types import ImageSources

__all__ = [
    "DEMO",
    "are_images",
    "expand_sources",
    "find_image_suffixes",
    "find_images",
    "is_folder",
    "iterate_folder_images",
    "open_images",
    "raise_image_errors",
]

DEMO = "demo"  # the name of the embedded photo
# Formats that Pillow identifies but cannot read without plugins.
_UNREADABLE = frozenset(["BUFR", "GRIB", "HDF5", "MPEG", "WMF"])
# Exceptions, besides its own, that Pillow raises for damaged files.
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, OverflowError),
    *(MemoryError, struct.error),
)


def open_images(sources: ImageSources) -> list[Any]:
    """Resolve image sources to a list of single images, and load image files.

    Returns
    -------
    list
        Files as Pillow images; Pillow images and arrays unchanged.
    """

    def open_source(source: Any) -> Any:
        if not isinstance(source, (str, os.PathLike)):
            return source
        with raise_image_errors(source), Image.open(source) as image:
            image.load()
            return image

    return [open_source(source) for source in expand_sources(sources)]


def are_images(x: Any) -> TypeGuard[ImageSources]:
    """Return whether a value is a path, a Pillow image or a non-empty list of these.

    `load_images` accepts such values.
    """
    if isinstance(x, (list, tuple)):
        return bool(x) and all(are_images(entry) for entry in x)
    return isinstance(x, (str, os.PathLike, Image.Image))


def find_images(source: str | os.PathLike[str]) -> list[Path]:
    """Find the image files of a path, a folder or a glob.

    ``"demo"`` returns the embedded photo, even if a file or folder has this name; use ``"./demo"``
    for that file.

    Returns
    -------
    list of pathlib.Path
        The files, sorted.

    Raises
    ------
    MissingFileError
        If there are no image files.
    """
    if source == "":
        raise MissingFileError("the path of an image is empty; expected a file, a folder or a glob")
    if source == DEMO:
        return [Path(str(files("actgrid") / "demo" / "cat.jpg"))]
    path = Path(source)
    if is_folder(source):
        return [path / name for name in iterate_folder_images(path)]
    if path.exists():
        return [path]
    names = glob.glob(os.fspath(source), recursive=True)
    paths = sorted(Path(name) for name in names if not Path(name).is_dir())
    if not paths:
        raise MissingFileError(f"there is no image {source}")
    return paths


def is_folder(source: str | os.PathLike[str]) -> bool:
    """Return whether an image source is the path of an existing folder.

    An empty path and the name of the demo image are no folders.
    """
    return source not in ("", DEMO) and Path(source).is_dir()


def iterate_folder_images(folder: Path, excluded: str | None = None) -> Iterator[str]:
    """Yield the relative paths of the image files in a folder and its subfolders.

    The paths are sorted.

    Hidden files and folders, whose names begin with a dot, are skipped, as are unreadable folders
    and the folder at the relative path `excluded`. Links to folders are not followed. A link to a
    file
    that does not exist is yielded, so that the caller reports the missing file.

    Yields
    ------
    str
        Path of a file relative to the folder.

    Raises
    ------
    MissingFileError
        If there are no image files.
    """
    suffixes = find_image_suffixes()
    # Folder by folder, so that only the names in one folder are in memory at a time.
    is_empty = True
    for name in _walk(folder, "", excluded):
        if Path(name).suffix.lower() in suffixes:
            is_empty = False
            yield name
    if is_empty:
        raise MissingFileError(f"the folder {folder} holds no images")


def find_image_suffixes() -> set[str]:
    """Return the suffixes of image files that Pillow can read, in lower case with a dot."""
    return {
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _UNREADABLE
    }


def _walk(folder: str | os.PathLike[str], prefix: str, excluded: str | None) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            sorted_entries = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return
    for entry in sorted_entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if prefix + entry.name != excluded:
                yield from _walk(entry, f"{prefix}{entry.name}{os.sep}", excluded)
        elif entry.is_file(follow_symlinks=False) or _links_to_file(entry):
            yield prefix + entry.name


def _links_to_file(entry: os.DirEntry[str]) -> bool:
    """Return whether a directory entry is a link to a file, or a link to nothing."""
    # The methods of Path raise if the target is in an inaccessible folder.
    return entry.is_symlink() and (os.path.isfile(entry) or not os.path.exists(entry))  # noqa: PTH110, PTH113


def expand_sources(sources: ImageSources) -> list[Any]:
    """Resolve image sources to a list of file paths, Pillow images and arrays.

    Folders and globs are replaced by their files, nested lists are flattened, and arrays (N, H, W,
    C) are split into N images.
    """
    if isinstance(sources, (str, os.PathLike)):
        return list(find_images(sources))
    if isinstance(sources, Image.Image):
        return [sources]
    if hasattr(sources, "__array__"):  # an array of NumPy, TensorFlow or another library
        array = np.asarray(sources)
        return list(array) if array.ndim == 4 else [array]
    if isinstance(sources, Iterable):
        return [image for source in sources for image in expand_sources(source)]
    raise OptionError(
        f"images must be files, folders, globs, arrays or Pillow images, not {sources!r}"
    )


@contextmanager
def raise_image_errors(name: object) -> Iterator[None]:
    """Convert errors of Pillow in the ``with`` block to ImageError or TooLargeError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except ActgridError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(
            f"{name} is too large to be safe: expected at most {Image.MAX_IMAGE_PIXELS} pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that Pillow can read") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            # The text of the error would disclose the path of the file.
            raise ImageError(f"{name} cannot be read: {error.strerror}") from error
        raise ImageError(f"{name} is truncated or broken: {error}") from error
