"""PNG, written for speed: a fast deflate of bands of rows, by several threads."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image

from actgrid.errors import OptionError, ShapeError

__all__ = [
    "COMPRESSIONS",
    "blank_levels",
    "check_compression",
    "encode_png",
    "is_gray",
    "to_pillow",
]

Levels = npt.NDArray[np.uint8]

COMPRESSIONS = ("fast", "small", "none")

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAYSCALE, _INDEXED = 0, 3
_NO_FILTER, _SUB = 0, 1
_GRAY_PALETTE = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
_ZLIB_HEADER = b"\x78\x01"
_RAW_DEFLATE = -15
# Of the sizes of ISA-L's buffer the one that makes the smallest blocks, each with its own codes.
_BUFFER = 2
# Bytes that one thread deflates by themselves. They do not depend on the number of threads.
_BAND_BYTES = 1 << 20
# Bytes of a band that are deflated both ways to choose a filter.
_SAMPLE_BYTES = 1 << 13
_ADLER_BASE = 65521


def blank_levels(height: int, width: int, background: int | None = None) -> Levels:
    """Return levels to draw on, which `encode_png` can deflate where they are.

    Each row comes after the byte that says how it is filtered, as in a PNG file.

    Parameters
    ----------
    background
        The level of all pixels; None leaves them as they come.
    """
    rows = np.empty((height, width + 1), np.uint8)
    if background is not None:
        rows.fill(background)
    rows[:, 0] = _NO_FILTER
    return rows[:, 1:]


def _unfiltered(levels: Levels) -> Levels:
    """Return levels as rows of a filter byte and pixels: no copy if made by `blank_levels`."""
    height, width = levels.shape
    base = levels.base
    if (
        isinstance(base, np.ndarray)
        and base.dtype == np.uint8
        and base.shape == (height, width + 1)
        and base.flags.c_contiguous
        and levels.strides == base.strides
        and levels.__array_interface__["data"][0] == base.__array_interface__["data"][0] + 1
        and not base[:, 0].any()
    ):
        return base
    rows = blank_levels(height, width)
    rows[:] = levels
    whole: Levels = rows.base  # type: ignore[assignment]
    return whole


def is_gray(palette: Levels | None) -> bool:
    """Tell whether a palette shows level i as gray i, so that none needs to be stored."""
    return palette is None or np.array_equal(palette, _GRAY_PALETTE)


def to_pillow(levels: Levels, palette: Levels | None = None) -> Image.Image:
    """Return levels as a Pillow image of mode P with this palette, or of mode L if it is gray."""
    image = Image.fromarray(levels)
    if palette is not None and not is_gray(palette):
        image.putpalette(palette.tobytes())  # turns mode L into mode P
    return image


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(data)), kind, data, struct.pack(">I", checksum)))


def check_compression(compression: str) -> None:
    """Raise OptionError unless there is such a compression."""
    if compression not in COMPRESSIONS:
        raise OptionError(
            f"compression must be one of {', '.join(COMPRESSIONS)}, not {compression!r}"
        )


def _subtracted(rows: Levels) -> Levels:
    """Return rows with the filter "sub": each pixel as its difference from the one before."""
    filtered = np.empty_like(rows)
    filtered[:, 0] = _SUB
    filtered[:, 1:2] = rows[:, 1:2]
    np.subtract(rows[:, 2:], rows[:, 1:-1], out=filtered[:, 2:])
    return filtered


def _filtered(rows: Levels) -> Levels:
    """Return rows with the filter that makes a sample of them smaller, for all of them."""
    height, width = rows.shape
    count = min(height, max(1, _SAMPLE_BYTES // width))
    sample = np.ascontiguousarray(rows[:: height // count][:count])
    plain, subtracted = (len(isal_zlib.compress(one, 1)) for one in (sample, _subtracted(sample)))
    return _subtracted(rows) if subtracted < plain else rows


def _deflate_band(rows: Levels, last: bool, stored: bool) -> tuple[bytes, int, int]:
    """Return a band as raw deflate, its Adler-32 and the number of bytes that it was of."""
    deflater: Any
    if stored:
        deflater = zlib.compressobj(0, zlib.DEFLATED, _RAW_DEFLATE)
    else:
        rows = _filtered(rows)
        deflater = isal_zlib.compressobj(1, zlib.DEFLATED, _RAW_DEFLATE, _BUFFER)
    # Flushed to a whole byte, so that the next band can follow.
    data = deflater.compress(rows) + deflater.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
    return data, isal_zlib.adler32(rows), rows.nbytes


def _joined_adler(first: int, second: int, length: int) -> int:
    """Return the Adler-32 of two pieces of data; `length` is that of the second (RFC 1950)."""
    low, high = first & 0xFFFF, first >> 16
    high = (high + (second >> 16) + length * (low - 1)) % _ADLER_BASE
    low = (low + (second & 0xFFFF) - 1) % _ADLER_BASE
    return high << 16 | low


def _data_chunks(rows: Levels, stored: bool, threads: int) -> list[bytes]:
    """Return the IDAT chunks: one for each band, and one for the checksum of all."""
    height, width = rows.shape
    step = max(1, _BAND_BYTES // width)
    starts = range(0, height, step)

    def deflate(start: int) -> tuple[bytes, int, int]:
        band, adler, length = _deflate_band(
            rows[start : start + step], start + step >= height, stored
        )
        return _chunk(b"IDAT", band if start else _ZLIB_HEADER + band), adler, length

    if threads == 1 or len(starts) == 1:
        bands = [deflate(start) for start in starts]
    else:
        with ThreadPoolExecutor(min(threads, len(starts))) as pool:
            bands = list(pool.map(deflate, starts))
    adler = 1
    for _, one, length in bands:
        adler = _joined_adler(adler, one, length)
    return [chunk for chunk, *_ in bands] + [_chunk(b"IDAT", struct.pack(">I", adler))]


def encode_png(
    levels: Levels,
    palette: Levels | None = None,
    *,
    compression: str = "fast",
    threads: int = 1,
) -> bytes:
    r"""Encode levels as an 8-bit PNG: indexed, or grayscale where the palette is gray.

    Parameters
    ----------
    levels
        (height, width) uint8. Those made by `blank_levels` are not copied.
    palette
        (256, 3) uint8 RGB of each level; None for grayscale.
    compression
        ``"fast"``: deflate at level 1 by ISA-L, of rows with the better of two filters.
        ``"small"``: as small as Pillow gets, some thirty times slower. ``"none"``: not
        compressed, for what is compressed again later.
    threads
        At most this many deflate one picture; the file does not depend on it. ``"small"`` uses
        one.

    Returns
    -------
    bytes
        The whole file, after the PNG specification (https://www.w3.org/TR/png-3/).

    Raises
    ------
    ShapeError
        If `levels` is not a picture of at least one pixel.
    OptionError
        If `compression` is none of the three.

    Examples
    --------
    >>> encode_png(np.zeros((2, 3), np.uint8))[:4]
    b'\x89PNG'
    """
    check_compression(compression)
    if levels.ndim != 2 or levels.size == 0:
        raise ShapeError(f"levels must be (height, width) and not empty, not {levels.shape}")
    if compression == "small":
        buffer = io.BytesIO()
        to_pillow(levels, palette).save(buffer, "PNG", optimize=True)
        return buffer.getvalue()
    height, width = levels.shape
    gray = is_gray(palette)
    header = struct.pack(">IIBBBBB", width, height, 8, _GRAYSCALE if gray else _INDEXED, 0, 0, 0)
    chunks = [_SIGNATURE, _chunk(b"IHDR", header)]
    if palette is not None and not gray:
        chunks.append(_chunk(b"PLTE", palette.tobytes()))
    chunks += _data_chunks(_unfiltered(levels), compression == "none", threads)
    return b"".join((*chunks, _chunk(b"IEND", b"")))
