"""Encode levels or RGB pixels in the image format of a file suffix."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding.png import convert_to_pillow, encode_png_pieces
from actgrid.errors import OptionError, suggest
from actgrid.option_checks import list_writable_formats
from actgrid.option_groups import check_option
from actgrid.options import FileOptions

__all__ = ["encode", "find_image_format"]

# Options of Pillow's PNG encoder, which is used for RGB pictures, for each compression.
_PNG_OPTIONS: dict[str, dict[str, Any]] = {
    "fast": {"compress_level": 1},
    "small": {"optimize": True},
    "none": {"compress_level": 0},
}


def find_image_format(suffix: str) -> str:
    """Return Pillow's name of the image format of a file suffix.

    Parameters
    ----------
    suffix : str
        File suffix, such as ``".png"``, in any case.

    Returns
    -------
    str
        Name of the format, such as ``"PNG"``.

    Raises
    ------
    OptionError
        If Pillow cannot write files with this suffix.

    Examples
    --------
    >>> from actgrid.encoding import find_image_format
    >>> find_image_format(".jpg")
    'JPEG'
    """
    formats = list_writable_formats()
    name = formats.get(suffix.lower())
    if name is None:
        raise OptionError(
            f"no image format is known for the suffix {suffix!r}"
            f"{suggest(suffix, formats) or '; expected .png, .webp, .jpg or .tiff'}"
        )
    return name


def encode(
    path: str | Path,
    levels: npt.NDArray[np.uint8],
    palette: npt.NDArray[np.uint8] | None = None,
    *,
    compression: str = "fast",
    threads: int = 1,
    **options: object,
) -> list[bytes]:
    """Encode a picture in the format of a file suffix, without writing a file.

    Parameters
    ----------
    path : str or pathlib.Path
        File name, of which only the suffix is used.
    levels : numpy.ndarray
        (height, width) uint8 levels; or (height, width, 3) uint8 RGB pixels, which Pillow encodes
        in every format, including PNG.
    palette : numpy.ndarray, optional
        (256, 3) uint8 RGB colours of the levels. None for grayscale and for RGB pixels.
    compression : {"fast", "small", "none"}, default "fast"
        Compression of PNG files; see `encode_png`.
    threads : int, default 1
        Number of threads for PNG files of levels.
    **options : object
        Options of Pillow's ``Image.save``. With options, Pillow also encodes PNG files of levels.

    Returns
    -------
    list of bytes
        The file in consecutive pieces.

    Raises
    ------
    OptionError
        If Pillow cannot write files with this suffix, or the format refuses an option.

    Examples
    --------
    >>> from actgrid.encoding import encode
    >>> levels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    >>> b"".join(encode("levels.webp", levels, lossless=True))[:4]
    b'RIFF'
    """
    check_option(FileOptions, "compression", compression)
    name = find_image_format(Path(path).suffix)
    if name == "PNG" and levels.ndim == 3:
        options = {**_PNG_OPTIONS[compression], **options}
    elif name == "PNG" and not options:
        return encode_png_pieces(levels, palette, compression=compression, threads=threads)
    image = convert_to_pillow(levels, palette)
    last_error: Exception | None = None
    for mode in dict.fromkeys((image.mode, "RGB")):  # formats such as JPEG have no palettes
        buffer = io.BytesIO()
        try:
            image.convert(mode).save(buffer, name, **options)
            return [buffer.getvalue()]
        except (OSError, ValueError, TypeError, OverflowError, struct.error) as error:
            last_error = error
    raise OptionError(f"a picture cannot be saved as {name}: {last_error}") from last_error
