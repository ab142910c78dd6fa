"""Find the images that a path, a folder, a glob or a list stands for."""

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
    "find_images",
    "images_in_folder",
    "is_folder",
    "open_images",
    "reading_image",
]

DEMO = "demo"  # the word for the embedded photo
# Formats that Pillow knows by name but leaves to others to read.
_UNREADABLE = frozenset(["BUFR", "GRIB", "HDF5", "MPEG", "WMF"])
# What Pillow raises, besides its own, on files that are no more what they were.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError, struct.error)


def open_images(sources: ImageSources) -> list[Any]:
    """Return image sources one by one, files as Pillow images that are read."""

    def opened(source: Any) -> Any:
        if not isinstance(source, (str, os.PathLike)):
            return source
        with reading_image(source), Image.open(source) as image:
            image.load()
            return image

    return [opened(source) for source in expand_sources(sources)]


def are_images(x: Any) -> TypeGuard[ImageSources]:
    """Return whether an input is image files or Pillow images, for `load_images`."""
    if isinstance(x, (list, tuple)):
        return bool(x) and all(are_images(entry) for entry in x)
    return isinstance(x, (str, os.PathLike, Image.Image))


def find_images(source: str | os.PathLike[str]) -> list[Path]:
    """Return the image files that a path, a folder or a glob stands for, sorted.

    The word ``"demo"`` stands for the embedded photo, also where there is a file or folder of this
    name: that is ``"./demo"``.

    Raises
    ------
    MissingFileError
        If there are none.
    """
    if source == "":
        raise MissingFileError("the path of an image is empty")
    if source == DEMO:
        return [Path(str(files("actgrid") / "demo" / "cat.jpg"))]
    path = Path(source)
    if is_folder(source):
        return [path / name for name in images_in_folder(path)]
    if path.exists():
        return [path]
    names = glob.glob(os.fspath(source), recursive=True)
    found = sorted(Path(name) for name in names if not Path(name).is_dir())
    if not found:
        raise MissingFileError(f"there is no image {source}")
    return found


def is_folder(source: str | os.PathLike[str]) -> bool:
    """Return whether an image source is a folder; as a Path, "" would be the current folder."""
    return source not in ("", DEMO) and Path(source).is_dir()


def images_in_folder(folder: Path, without: str | None = None) -> Iterator[str]:
    """Yield the image files in a folder and below it, relative to it, sorted.

    Hidden files and folders, whose names begin with a dot, are skipped, as are folders that may
    not be read and the one at the relative path `without`. Links to folders are not followed; a
    link to a file that does not exist is yielded, so that the caller reports it.

    Raises
    ------
    MissingFileError
        If there are none.
    """
    suffixes = {
        suffix
        for suffix, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _UNREADABLE
    }
    # Folder by folder: of a million files, only the names in one are held at a time.
    none = True
    for name in _walk(folder, "", without):
        if Path(name).suffix.lower() in suffixes:
            none = False
            yield name
    if none:
        raise MissingFileError(f"the folder {folder} holds no images")


def _walk(folder: str | os.PathLike[str], below: str, without: str | None) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if below + entry.name != without:
                yield from _walk(entry, f"{below}{entry.name}{os.sep}", without)
        elif entry.is_file(follow_symlinks=False) or _links_to_file(entry):
            yield below + entry.name


def _links_to_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to a file, or to nothing, which is an error to report."""
    # Not Path's methods, which raise where the target may not be looked at.
    return entry.is_symlink() and (os.path.isfile(entry) or not os.path.exists(entry))  # noqa: PTH110, PTH113


def expand_sources(sources: ImageSources) -> list[Any]:
    """Return single sources: paths of files, Pillow images and arrays."""
    if isinstance(sources, (str, os.PathLike)):
        return list(find_images(sources))
    if isinstance(sources, Image.Image):
        return [sources]
    if hasattr(sources, "__array__"):  # of NumPy, TensorFlow or another
        array = np.asarray(sources)
        return list(array) if array.ndim == 4 else [array]
    if isinstance(sources, Iterable):
        return [image for source in sources for image in expand_sources(source)]
    raise OptionError(f"images are files, folders, globs, arrays or pictures, not {sources!r}")


@contextmanager
def reading_image(name: object) -> Iterator[None]:
    """Raise ImageError where Pillow fails on an image that is called so."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except ActgridError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLargeError(
            f"{name} is too large to be safe: more than {Image.MAX_IMAGE_PIXELS} pixels"
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that Pillow can read") from error
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            # Its text would tell where the file is, which its name need not.
            raise ImageError(f"{name} cannot be read: {error.strerror}") from error
        raise ImageError(f"{name} is truncated or broken: {error}") from error
