"""Levels or colours to a file of any image format, by the file's suffix."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding.png import png_pieces, to_pillow
from actgrid.errors import OptionError, suggest
from actgrid.option_checks import writable_formats
from actgrid.option_groups import check_option
from actgrid.options import FileOptions

__all__ = ["encode", "image_format"]

# Of Pillow's PNG, which RGB pictures are written as, for each compression.
_PNG_OPTIONS: dict[str, dict[str, Any]] = {
    "fast": {"compress_level": 1},
    "small": {"optimize": True},
    "none": {"compress_level": 0},
}


def image_format(suffix: str) -> str:
    """Return Pillow's name of the format that a suffix such as ``".png"`` stands for.

    Raises
    ------
    OptionError
        If Pillow cannot write files with this suffix.
    """
    formats = writable_formats()
    name = formats.get(suffix.lower())
    if name is None:
        raise OptionError(
            f"no image format is known for the suffix {suffix!r}"
            f"{suggest(suffix, formats) or '; .png, .webp, .jpg and .tiff are'}"
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
    """Encode a picture in the format that the suffix of `path` names, without writing the file.

    Parameters
    ----------
    path
        Only its suffix is looked at.
    levels
        (height, width) uint8; or RGB pixels, (height, width, 3) uint8, which Pillow encodes in
        every format, PNG too.
    palette
        (256, 3) uint8 RGB of each level; None for grayscale and for RGB pixels.
    compression, threads
        For PNG: see `encode_png`. RGB pixels take one thread.
    options
        Given to Pillow's ``save``, and for PNG a reason to encode by it.

    Returns
    -------
    list of bytes
        The pieces of the file, one after the other.

    Raises
    ------
    OptionError
        If the suffix is of no format that can be written, or the format refuses an option.
    """
    check_option(FileOptions, "compression", compression)
    name = image_format(Path(path).suffix)
    if name == "PNG" and levels.ndim == 3:
        options = {**_PNG_OPTIONS[compression], **options}
    elif name == "PNG" and not options:
        return png_pieces(levels, palette, compression=compression, threads=threads)
    image = to_pillow(levels, palette)
    problem: Exception | None = None
    for mode in dict.fromkeys((image.mode, "RGB")):  # formats such as JPEG have no palettes
        buffer = io.BytesIO()
        try:
            image.convert(mode).save(buffer, name, **options)
            return [buffer.getvalue()]
        except (OSError, ValueError, TypeError, OverflowError, struct.error) as error:
            problem = error
    raise OptionError(f"a picture cannot be saved as {name}: {problem}") from problem
