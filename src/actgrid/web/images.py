"""The images of the viewer: given images and uploads, which are untrusted."""

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
from actgrid.web.samples import Sample, SampleReader, make_excerpt

__all__ = ["ImageStore", "StoredImage", "compute_scaled_size", "make_thumbnail", "read_image"]

# Accepted formats of uploads: simple formats that Pillow decodes without other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
# Uploads are stored as pixels, with a maximum side each and a maximum memory together.
_MAX_SIDE = 2048
_MAX_UPLOAD_MEMORY = 256 << 20
_MAX_NAME_LENGTH = 200
# A progressive JPEG has about ten scans. Decoding visits all pixels in each scan, however short.
_MAX_SCANS = 40
_MAX_SEGMENTS = 2000
# The start of a JPEG segment; entropy-coded pixel data cannot contain this pattern.
_SEGMENT_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")
_SCAN, _END, _WITHOUT_LENGTH = b"\xda", b"\xd9", (b"\x01", b"\xd8")
# EXIF orientations that exchange width and height.
_TRANSPOSED_ORIENTATIONS = (5, 6, 7, 8)


@dataclass(frozen=True)
class StoredImage:
    """An image of the viewer.

    Parameters
    ----------
    id
        16 hexadecimal digits.
    name
        Name that the page shows.
    source
        A path, a Pillow image or an array, see `actgrid.load_images`.
    uploaded
        Whether the image was uploaded. Only uploads can be removed.
    """

    id: str
    name: str
    source: Any = field(repr=False, compare=False)
    uploaded: bool = False


class ImageStore:
    """The images of the viewer: files, folders, arrays and uploads.

    The id of an image is a hash of its name, or of its bytes if it was uploaded. Ids are only
    looked up and never used as paths. The methods are thread-safe.

    Parameters
    ----------
    sources
        Files, folders (searched recursively), globs, Pillow images, arrays, or a list of these, see
        `actgrid.load_images`. Folders are read once, at construction, and no file is opened.
    max_bytes, max_pixels
        Maximum size of an upload in bytes, and in pixels: at most 89,478,485, the limit of Pillow.
    max_uploads
        Maximum number of uploads; the oldest upload is removed first. Uploads are also limited to
        256 MiB of pixels together. 0: no uploads are accepted.
    reader
        Reader of the sources and uploads for a model that takes other samples than images. None:
        images.

    Attributes
    ----------
    max_bytes, max_pixels, max_uploads : int
        The limits of uploads.
    suffixes : tuple of str
        Suffixes of the files that can be uploaded.
    kind : str or None
        Kind of the samples, see `find_sample_kind`; None: decided by the model.

    Raises
    ------
    MissingFileError
        If a file does not exist, or a glob or folder contains no image. Also a FileNotFoundError.
    OptionError, ShapeError
        If a source has another type or shape, or a limit is invalid. Both are ValueErrors.

    Examples
    --------
    >>> store = ImageStore([np.zeros((8, 8, 3), np.uint8), actgrid.demo.photo()])
    >>> [image.name for image in store.list_images(offset=0, limit=10)]
    ['image', 'image (2)']
    """

    def __init__(
        self,
        sources: Any = (),
        *,
        max_bytes: int = 32 << 20,
        max_pixels: int = 50_000_000,
        max_uploads: int = 64,
        reader: SampleReader | None = None,
    ) -> None:
        self.max_bytes = check_integer("max_bytes", max_bytes, 1)
        self.max_pixels = check_integer("max_pixels", max_pixels, 1)
        pillow_limit = Image.MAX_IMAGE_PIXELS
        if pillow_limit is not None and self.max_pixels > pillow_limit:
            raise OptionError(
                f"max_pixels must be at most {pillow_limit}, the largest image that Pillow opens, "
                f"not {max_pixels}"
            )
        self.max_uploads = check_integer("max_uploads", max_uploads, 0)
        self._reader = reader
        self.kind = None if reader is None else reader.kind
        self.suffixes = _SUFFIXES if reader is None else reader.suffixes
        self._sources: dict[str, StoredImage] = {}
        self._uploads: OrderedDict[str, StoredImage] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.Lock()  # one image at a time, because each can be large
        if reader is not None:
            for sample in reader.iterate(sources):
                self._add_source(sample.name, sample)
            return
        for name, source in _iterate_sources(sources):
            self._add_source(name, source)

    def __len__(self) -> int:
        return len(self._sources) + len(self._uploads)

    def __contains__(self, image: str) -> bool:
        return image in self._sources or image in self._uploads

    def __getitem__(self, image: str) -> StoredImage:
        """Return the image with an id.

        Raises
        ------
        NotFoundError
            If there is no image with this id. Also a LookupError.
        """
        stored = self._sources.get(image) or self._uploads.get(image)
        if stored is None:
            raise NotFoundError(
                f"there is no image with the id {image!r}; an uploaded image may have been removed"
            )
        return stored

    def list_images(self, offset: int, limit: int) -> list[StoredImage]:
        """Return a range of the images: given images in their order, then uploads.

        Parameters
        ----------
        offset
            Index of the first image.
        limit
            Maximum number of images.
        """
        images = list(islice(self._sources.values(), offset, offset + limit))
        with self._lock:
            uploads = list(self._uploads.values())
        start = max(0, offset - len(self._sources))
        return images + uploads[start : start + limit - len(images)]

    def find_by_name(self, name: str) -> StoredImage | None:
        """Return the image with a name or file path, or None if there is no such image.

        A path matches an image whose name is the end of the path: ``"photos/cat.jpg"`` matches
        ``"cat.jpg"``.
        """
        parts = Path(name).parts
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        images = (self._sources.get(_make_id("file", tail.encode())) for tail in (name, *tails))
        return next(filter(None, images), None)

    def add(self, data: bytes, name: str) -> StoredImage:
        """Check, decode and store an uploaded image.

        PNG, JPEG, WebP, GIF and BMP are accepted, or the files of the reader. The EXIF orientation
        is applied, and larger images are reduced to at most 2048 pixels a side. The same bytes give
        the same image.

        Parameters
        ----------
        data
            Contents of the image file.
        name
            Name that the page shows. Characters that are not printable are removed.

        Returns
        -------
        StoredImage
            The stored image.

        Raises
        ------
        TooLargeError
            If the image has too many bytes or pixels; its header is checked before it is decoded.
        ImageError
            If the image has another format or is broken. Also an OSError.
        OptionError
            If no uploads are accepted. Also a ValueError.
        """
        if not self.max_uploads:
            raise OptionError("uploads are not accepted: max_uploads is 0")
        if len(data) > self.max_bytes:
            raise TooLargeError(f"the image has {len(data)} bytes; the limit is {self.max_bytes}")
        image = _make_id("upload", data)
        with self._decoding:
            with self._lock:
                if image in self._uploads:
                    self._uploads.move_to_end(image)
                    return self._uploads[image]
            if self._reader is None:
                source: Any = _decode_upload(data, self.max_pixels)
            else:
                source = self._reader.decode(data, name)
            added = StoredImage(image, _sanitize_name(name), source, uploaded=True)
        with self._lock:
            self._uploads[image] = added
            while len(self._uploads) > self.max_uploads or (
                len(self._uploads) > 1
                and sum(map(_count_bytes, self._uploads.values())) > _MAX_UPLOAD_MEMORY
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

    def _add_source(self, name: str, source: Any) -> None:
        name = name.encode(errors="backslashreplace").decode()  # names of files that are not UTF-8
        unique_name, count = name, 1
        while (
            existing := self._sources.get(image := _make_id("file", unique_name.encode()))
        ) is not None:
            if isinstance(source, Path) and existing.source == source:
                return
            count += 1
            unique_name = f"{name} ({count})"
        self._sources[image] = StoredImage(image, unique_name, source)


def _iterate_sources(sources: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and source of each image: a path, a Pillow image or an array."""
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
            sources.load()  # before several threads use the image
        yield Path(getattr(sources, "filename", "") or "image").name, sources
    elif hasattr(sources, "__array__"):
        array = np.asarray(sources)
        if array.ndim not in (2, 3, 4):
            raise ShapeError(
                f"images must have the shape (H, W), (H, W, C) or (N, H, W, C), not {array.shape}"
            )
        yield from (("image", image) for image in (array if array.ndim == 4 else [array]))
    elif isinstance(sources, Iterable):
        for source in sources:
            yield from _iterate_sources(source)
    else:
        raise OptionError(
            f"images must be files, folders, globs, arrays or Pillow images, not {sources!r}"
        )


def _make_id(kind: str, data: bytes) -> str:
    """Return an id of 16 hexadecimal digits: a hash of `kind` and `data`."""
    digest = hashlib.sha256(kind.encode() + b"\0")
    digest.update(data)
    return digest.hexdigest()[:16]


def _sanitize_name(name: str) -> str:
    """Return a name without unprintable characters, of at most 200 characters."""
    return "".join(filter(str.isprintable, name))[:_MAX_NAME_LENGTH].strip() or "image"


def _count_bytes(image: StoredImage) -> int:
    if isinstance(image.source, Sample):
        return image.source.x.nbytes
    picture: Image.Image = image.source
    return picture.width * picture.height * len(picture.getbands())


class _LimitedReads(io.BytesIO):
    """A file in memory that limits the number of reads.

    A file of millions of tiny chunks would keep Pillow busy for a long time, with a read for each
    chunk. Valid images of the same size need far fewer reads.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._remaining_reads = 1000 + len(data) // 1024

    def read(self, size: int | None = -1, /) -> bytes:
        self._remaining_reads -= 1
        if self._remaining_reads < 0:
            raise ImageError("the image file consists of too many small pieces")
        return super().read(size)


def _decode_upload(data: bytes, max_pixels: int) -> Image.Image:
    """Check the header of an untrusted image file, and return its decoded picture."""
    if not data:
        raise ImageError("the image is empty")
    with raise_image_errors("the image"):
        try:
            image = Image.open(_LimitedReads(data), formats=_FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            # Pillow's own limit, which is at least `max_pixels`.
            raise TooLargeError(
                f"the image has more than {max_pixels} pixels, which is the limit"
            ) from None
        except UnidentifiedImageError:
            raise ImageError("the image is no PNG, JPEG, WebP, GIF or BMP") from None
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise TooLargeError(
                    f"the image has {width} x {height} pixels; the limit is {max_pixels}"
                )
            if image.format in ("JPEG", "MPO") and _has_many_scans(data):
                raise ImageError("the image is a JPEG with too many scans")
            return _shrink(_strip_metadata(_load_upright(image, _MAX_SIDE)))


def _load_upright(image: Image.Image, max_side: int | None) -> Image.Image:
    """Decode a picture, a JPEG at a reduced size, and apply its EXIF orientation."""
    if max_side is not None:
        image.draft(image.mode, (max_side, max_side))
    image.load()
    return ImageOps.exif_transpose(image)


def _has_many_scans(data: bytes) -> bool:
    """Return whether a JPEG has more scans or segments than any ordinary file."""
    position = scans = 0
    for _ in range(_MAX_SEGMENTS):
        marker = _SEGMENT_MARKER.search(data, position)
        if marker is None or marker[1] == _END:
            return False
        position = marker.end()
        if marker[1] not in _WITHOUT_LENGTH:
            position += int.from_bytes(data[position : position + 2], "big")
        scans += marker[1] == _SCAN
        if scans > _MAX_SCANS:
            return True
    return True


def _strip_metadata(image: Image.Image) -> Image.Image:
    """Remove all metadata except transparency from a picture, and return the picture."""
    image.info = {name: image.info[name] for name in ("transparency",) if name in image.info}
    return image


def _shrink(image: Image.Image) -> Image.Image:
    """Return a picture reduced to at most 2048 pixels a side."""
    if max(image.size) <= _MAX_SIDE:
        return image
    if image.mode.startswith("I;"):
        image = image.convert("I")
    elif image.mode not in ("L", "RGB", "RGBA", "I", "F"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    height, width = _scale_size(image.height, image.width, _MAX_SIDE)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3)


def _scale_size(height: int, width: int, max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def read_image(source: Any, max_side: int | None = None) -> Any:
    """Return an image source as a Pillow image or array, opening it if it is a path.

    Parameters
    ----------
    source
        A path, a Pillow image or an array.
    max_side
        A JPEG may be decoded at a reduced size of at least this many pixels a side, which is
        faster. None: the full size.

    Raises
    ------
    ImageError
        If the file cannot be read. The message contains the name without its folder. Also an
        OSError.
    """
    if not isinstance(source, Path):
        return source
    with raise_image_errors(source.name), Image.open(source) as image:
        return _load_upright(image, max_side)


def compute_scaled_size(source: Any, max_side: int) -> tuple[int, int]:
    """Return (height, width) of an image, reduced so that no side exceeds `max_side`.

    Parameters
    ----------
    source
        A Pillow image or an array, of shape (H, W) or (H, W, C).
    max_side
        Maximum height and width in pixels.
    """
    if not isinstance(source, Image.Image):
        height, width = np.shape(source)[:2]
        return _scale_size(height, width, max_side)
    height, width = source.height, source.width
    if source.getexif().get(ExifTags.Base.Orientation) in _TRANSPOSED_ORIENTATIONS:
        height, width = width, height
    return _scale_size(height, width, max_side)


def make_thumbnail(source: Any, max_side: int = 128) -> bytes:
    r"""Return an image reduced to thumbnail size as a JPEG file.

    Parameters
    ----------
    source
        A path, a Pillow image or an array.
    max_side
        Maximum height and width in pixels.

    Raises
    ------
    ImageError
        If the image cannot be read. Also an OSError.

    Examples
    --------
    >>> make_thumbnail(actgrid.demo.photo())[:2]
    b'\xff\xd8'
    """
    image = make_excerpt(source) if isinstance(source, Sample) else read_image(source, 2 * max_side)
    pixels = load_images(
        image, size=compute_scaled_size(image, max_side), preprocess="none", fit="stretch"
    )[0]
    return b"".join(encode("thumbnail.jpg", np.rint(pixels).astype(np.uint8), quality=80))
