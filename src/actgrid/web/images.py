"""The images that are looked at: those on disk, and those that strangers send."""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from actgrid.encoding import encode
from actgrid.errors import (
    ImageError,
    NotFoundError,
    OptionError,
    ShapeError,
    TooLargeError,
)
from actgrid.models.image_sources import (
    find_images,
    is_folder,
    iterate_folder_images,
    raise_image_errors,
)
from actgrid.models.images import load_images
from actgrid.option_checks import check_integer

__all__ = ["ImageStore", "StoredImage", "read_image", "sides_within", "thumbnail"]

# What is decoded of uploads: formats that are simple, and read by nothing but Pillow.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# Uploads are kept as pixels: at most of this side, and of so many bytes together.
_LONGEST_SIDE = 2048
_MOST_KEPT = 256 << 20
_MOST_NAME = 200
# A progressive JPEG has about ten scans. Each, however short, goes over all pixels.
_MOST_SCANS = 40
_MOST_SEGMENTS = 2000
# Of a segment of a JPEG, which none of the bytes of its pixels look like.
_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_SCAN, _END, _BARE = b"\xda", b"\xd9", (b"\x01", b"\xd8")
# EXIF's orientations of pictures whose rows are columns.
_TURNED_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True)
class StoredImage:
    """An image that can be looked at.

    Attributes
    ----------
    id
        16 hexadecimal digits.
    name
        What it is called.
    source
        What `actgrid.load_images` takes: a path, a Pillow image or an array.
    uploaded
        Whether the image was uploaded, so that it may be removed.
    """

    id: str
    name: str
    source: Any = field(repr=False, compare=False)
    uploaded: bool = False


class ImageStore:
    """The images that can be looked at: of folders and files, given ones, and those uploaded.

    An id is a hash, of the name or of the bytes that were uploaded, by which an image is found
    among those that are listed: no id ever becomes a path. Calls may come from several threads.

    Parameters
    ----------
    sources
        What `actgrid.load_images` takes: files, folders (their image files, recursively), globs,
        Pillow images, arrays, or a list of these. Files are listed once, here, and not opened.
    most_bytes, most_pixels
        Of an upload. Pillow opens images of at most 89,478,485 pixels.
    most_uploads
        How many are kept: then the oldest is forgotten, earlier if all take more than 256 MB. 0
        takes none.

    Attributes
    ----------
    most_bytes, most_pixels, most_uploads : int
        As given.

    Raises
    ------
    MissingFileError
        If a file does not exist, or a glob or folder holds no image. Also a FileNotFoundError.
    OptionError, ShapeError
        If the sources are something else, or a bound is no number. Both are ValueErrors.

    Examples
    --------
    >>> store = ImageStore("photos")
    >>> [image.name for image in store.listed(0, 2)]
    ['cat.jpg', 'dogs/rex.jpg']
    """

    def __init__(
        self,
        sources: Any = (),
        *,
        most_bytes: int = 32 << 20,
        most_pixels: int = 50_000_000,
        most_uploads: int = 64,
    ) -> None:
        self.most_bytes = check_integer("most_bytes", most_bytes, 1)
        self.most_pixels = check_integer("most_pixels", most_pixels, 1)
        pillow = Image.MAX_IMAGE_PIXELS
        if pillow is not None and self.most_pixels > pillow:
            raise OptionError(
                f"most_pixels must be at most {pillow}, the largest image that Pillow opens, "
                f"not {most_pixels}"
            )
        self.most_uploads = check_integer("most_uploads", most_uploads, 0)
        self._given: dict[str, StoredImage] = {}
        self._uploads: OrderedDict[str, StoredImage] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.Lock()  # one at a time: each may be large
        for name, source in _named(sources):
            self._list(name, source)

    def __len__(self) -> int:
        return len(self._given) + len(self._uploads)

    def __contains__(self, image: str) -> bool:
        return image in self._given or image in self._uploads

    def __getitem__(self, image: str) -> StoredImage:
        """Return the image of an id.

        Raises
        ------
        NotFoundError
            If there is none. Also a LookupError.
        """
        found = self._given.get(image) or self._uploads.get(image)
        if found is None:
            raise NotFoundError(
                "there is no such image; an upload may have been removed, or forgotten"
            )
        return found

    def listed(self, offset: int, limit: int) -> list[StoredImage]:
        """Return images from one on, those given first, in order, then those uploaded.

        Parameters
        ----------
        offset, limit
            Which is the first, and at most how many.
        """
        found = list(islice(self._given.values(), offset, offset + limit))
        with self._lock:
            uploads = list(self._uploads.values())
        start = max(0, offset - len(self._given))
        return found + uploads[start : start + limit - len(found)]

    def find(self, name: str) -> StoredImage | None:
        """Return the image of a name, or of the path of a file; None if there is none.

        Of a path so much of the end counts as is the name of an image: ``"photos/cat.jpg"`` is
        ``"cat.jpg"`` where `photos` is the folder.
        """
        parts = Path(name).parts
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        found = (self._given.get(_digest("file", tail.encode())) for tail in (name, *tails))
        return next(filter(None, found), None)

    def add(self, data: bytes, name: str) -> StoredImage:
        """Keep an image that was uploaded, after it was checked and decoded.

        PNG, JPEG, WebP, GIF and BMP are taken. The EXIF orientation is applied; what is longer
        than 2048 pixels is made smaller. The same bytes are the same image.

        Parameters
        ----------
        data
            The bytes of a file.
        name
            What it is called. It is shown, and nothing else: what is not printable is left out.

        Raises
        ------
        TooLargeError
            If it has more bytes or pixels than may be: found in its header, before any is decoded.
        ImageError
            If it is none of these formats, or broken. Also an OSError.
        OptionError
            If no uploads are taken. Also a ValueError.
        """
        if not self.most_uploads:
            raise OptionError("no images can be added here")
        if len(data) > self.most_bytes:
            raise TooLargeError(
                f"the image is of {len(data)} bytes; at most {self.most_bytes} are taken"
            )
        image = _digest("upload", data)
        with self._decoding:
            with self._lock:
                if image in self._uploads:
                    self._uploads.move_to_end(image)
                    return self._uploads[image]
            picture = _decoded(data, self.most_pixels)
            added = StoredImage(image, _shown(name), picture, uploaded=True)
        with self._lock:
            self._uploads[image] = added
            while len(self._uploads) > self.most_uploads or (
                len(self._uploads) > 1 and sum(map(_bytes, self._uploads.values())) > _MOST_KEPT
            ):
                self._uploads.popitem(last=False)
        return added

    def remove(self, image: str) -> None:
        """Remove an uploaded image.

        Parameters
        ----------
        image
            Id of the image.

        Raises
        ------
        NotFoundError
            If there is no image with this id. Also a LookupError.
        OptionError
            If the image was not uploaded. Also a ValueError.
        """
        stored = self[image]
        if not stored.uploaded:
            raise OptionError(
                f"{stored.name} cannot be removed: the viewer was started with this image, and "
                "only uploaded images can be removed"
            )
        with self._lock:
            self._uploads.pop(image, None)

    def _list(self, name: str, source: Any) -> None:
        name = name.encode(errors="backslashreplace").decode()  # of files that are no UTF-8
        numbered, count = name, 1
        while (known := self._given.get(image := _digest("file", numbered.encode()))) is not None:
            if isinstance(source, Path) and known.source == source:
                return
            count += 1
            numbered = f"{name} ({count})"
        self._given[image] = StoredImage(image, numbered, source)


def _named(sources: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names of images and what they are of."""
    if isinstance(sources, (str, os.PathLike)):
        folder = Path(sources)
        if is_folder(sources):
            for name in iterate_folder_images(folder):
                yield name.replace(os.sep, "/"), folder / name
        else:
            for path in find_images(sources):
                yield path.name, path
    elif isinstance(sources, Image.Image):
        with raise_image_errors("the image"):
            sources.load()  # threads are to share it
        yield Path(getattr(sources, "filename", "") or "image").name, sources
    elif hasattr(sources, "__array__"):
        array = np.asarray(sources)
        if array.ndim not in (2, 3, 4):
            raise ShapeError(f"images must be (H, W), (H, W, C) or (N, H, W, C), not {array.shape}")
        yield from (("image", one) for one in (array if array.ndim == 4 else [array]))
    elif isinstance(sources, Iterable):
        for source in sources:
            yield from _named(source)
    else:
        raise OptionError(f"images are files, folders, globs, arrays or pictures, not {sources!r}")


def _digest(kind: str, data: bytes) -> str:
    digest = hashlib.sha256(kind.encode() + b"\0")
    digest.update(data)
    return digest.hexdigest()[:16]


def _shown(name: str) -> str:
    """Return a name that is fit to be shown."""
    return "".join(filter(str.isprintable, name))[:_MOST_NAME].strip() or "image"


def _bytes(image: StoredImage) -> int:
    picture: Image.Image = image.source
    return picture.width * picture.height * len(picture.getbands())


class _Rationed(io.BytesIO):
    """A file that can be read only so often.

    A loop over its pieces reads each: one of millions of pieces, of a byte each, would keep a
    processor busy for long. Large pictures are read in large parts.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = 1000 + len(data) // 1024

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise ImageError("the image is made of too many small pieces")
        return super().read(size)


def _decoded(data: bytes, most_pixels: int) -> Image.Image:
    """Return the picture in the bytes of a file that nobody vouches for."""
    if not data:
        raise ImageError("the image is empty")
    with raise_image_errors("the image"):
        try:
            image = Image.open(_Rationed(data), formats=_FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            # Of more pixels than Pillow opens, which are more than `most_pixels`.
            raise TooLargeError(
                f"the image has more than {most_pixels} pixels, which is the limit"
            ) from None
        except UnidentifiedImageError:
            raise ImageError("the image is no PNG, JPEG, WebP, GIF or BMP") from None
        with image:
            width, height = image.size
            if width * height > most_pixels:
                raise TooLargeError(
                    f"the image is of {width} x {height} pixels; at most {most_pixels} are taken"
                )
            if image.format in ("JPEG", "MPO") and _has_many_scans(data):
                raise ImageError("the image is a JPEG of too many scans")
            return _smaller(_plain(_loaded(image, _LONGEST_SIDE)))


def _loaded(image: Image.Image, longest: int | None) -> Image.Image:
    """Return a picture decoded and turned: a JPEG at about the size that is asked for."""
    if longest is not None:
        image.draft(image.mode, (longest, longest))
    image.load()
    return ImageOps.exif_transpose(image)


def _has_many_scans(data: bytes) -> bool:
    """Tell whether a JPEG, as far as it is one picture, has more scans than any that is honest."""
    place = scans = 0
    for _ in range(_MOST_SEGMENTS):
        marker = _MARKER.search(data, place)
        if marker is None or marker[1] == _END:
            return False
        place = marker.end()
        if marker[1] not in _BARE:
            place += int.from_bytes(data[place : place + 2], "big")
        scans += marker[1] == _SCAN
        if scans > _MOST_SCANS:
            return True
    return True


def _plain(image: Image.Image) -> Image.Image:
    """Return a picture without what came with it, which may be large, but for transparency."""
    image.info = {name: image.info[name] for name in ("transparency",) if name in image.info}
    return image


def _smaller(image: Image.Image) -> Image.Image:
    if max(image.size) <= _LONGEST_SIDE:
        return image
    if image.mode.startswith("I;"):
        image = image.convert("I")
    elif image.mode not in ("L", "RGB", "RGBA", "I", "F"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    height, width = _within(image.height, image.width, _LONGEST_SIDE)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)


def _within(height: int, width: int, longest: int) -> tuple[int, int]:
    share = min(1.0, longest / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def read_image(source: Any, longest: int | None = None) -> Any:
    """Return an image that `actgrid.load_images` takes, of a file its picture.

    Parameters
    ----------
    source
        A path, a Pillow image or an array.
    longest
        A JPEG may be smaller than it is, but not than so many pixels; None: no smaller.

    Raises
    ------
    ImageError
        If the file cannot be read: told without the folder that it is in. Also an OSError.
    """
    if not isinstance(source, Path):
        return source
    with raise_image_errors(source.name), Image.open(source) as image:
        return _loaded(image, longest)


def sides_within(source: Any, longest: int) -> tuple[int, int]:
    """Return (height, width) of an image, scaled so that no side is longer than `longest`.

    Parameters
    ----------
    source
        A Pillow image or an array, (H, W) or (H, W, C).
    longest
        In pixels.
    """
    if not isinstance(source, Image.Image):
        height, width = np.shape(source)[:2]
        return _within(height, width, longest)
    height, width = source.height, source.width
    if source.getexif().get(ExifTags.Base.Orientation) in _TURNED_SIDEWAYS:
        height, width = width, height
    return _within(height, width, longest)


def thumbnail(source: Any, longest: int = 128) -> bytes:
    r"""Return a small picture of an image, a JPEG file.

    Parameters
    ----------
    source
        A path, a Pillow image or an array.
    longest
        Of its sides, in pixels.

    Raises
    ------
    ImageError
        If it cannot be read. Also an OSError.

    Examples
    --------
    >>> thumbnail(actgrid.demo.photo())[:2]
    b'\xff\xd8'
    """
    image = read_image(source, 2 * longest)
    pixels = load_images(
        image, size=sides_within(image, longest), preprocess="none", fit="stretch"
    )[0]
    return b"".join(encode("thumbnail.jpg", np.rint(pixels).astype(np.uint8), quality=80))
