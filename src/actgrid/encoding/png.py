"""Encode PNG files fast: several threads deflate bands of rows."""

from __future__ import annotations

import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from PIL import Image

from actgrid.errors import OptionError, ShapeError
from actgrid.option_groups import check_option
from actgrid.options import FileOptions

try:
    from actgrid import _core
except ImportError:  # installed without a compiler: ISA-L deflates in about twice the time
    _core = None  # type: ignore[assignment]

__all__ = [
    "convert_to_pillow",
    "encode_png",
    "encode_png_pieces",
    "is_gray_palette",
    "make_blank_levels",
]

Levels = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAYSCALE, _INDEXED = 0, 3
_NO_FILTER, _SUB = 0, 1
_GRAY_PALETTE = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
_ZLIB_HEADER = b"\x78\x01"
_RAW_DEFLATE = -15
# The ISA-L buffer size that makes the smallest blocks, each with its own Huffman codes.
_BUFFER_LEVEL = 2
# Bytes of a band, which one thread deflates. It does not depend on the number of threads, so that
# the file does not either.
_BAND_BYTES = 1 << 20
# Bytes of a band that are compressed with every filter to choose the best filter.
_SAMPLE_BYTES = 1 << 15
_ADLER_BASE = 65521
# 32,768 x 32,768 pixels: 1 GiB of levels, and six times the limit at which Pillow refuses files.
_MAX_PIXELS = 1 << 30


def check_picture_size(height: int, width: int) -> None:
    """Raise OptionError if a picture has too many pixels to be drawn and opened.

    Parameters
    ----------
    height, width : int
        Size of the picture in pixels.

    Raises
    ------
    OptionError
        If there are more than 2**30 pixels. Also a ValueError.

    Examples
    --------
    >>> from actgrid.encoding import check_picture_size
    >>> check_picture_size(1000, 2000)
    """
    if height * width > _MAX_PIXELS:
        raise OptionError(
            f"a picture of {height:,} x {width:,} pixels is too large: expected at most "
            f"{_MAX_PIXELS:,} pixels; reduce zoom, padding, size or the number of channels"
        )


def make_blank_levels(height: int, width: int, background: int | None = None) -> Levels:
    """Return levels to draw on, which `encode_png` can compress without a copy.

    In memory, each row follows a byte for the PNG filter type, as in a PNG file.

    Parameters
    ----------
    height, width : int
        Size of the picture in pixels.
    background : int, optional
        Level of all pixels, 0 to 255. None: the pixels are uninitialized.

    Returns
    -------
    numpy.ndarray
        (height, width) uint8.

    Raises
    ------
    OptionError
        If there are more than 2**30 pixels. Also a ValueError.

    Examples
    --------
    >>> from actgrid.encoding import make_blank_levels
    >>> make_blank_levels(2, 3, background=9)
    array([[9, 9, 9],
           [9, 9, 9]], dtype=uint8)
    """
    check_picture_size(height, width)
    rows = np.empty((height, width + 1), np.uint8)
    if background is not None:
        rows.fill(background)
    rows[:, 0] = _NO_FILTER
    return rows[:, 1:]


def _add_filter_bytes(levels: Levels) -> Levels:
    """Return the pixel rows of a PNG image, each with a filter byte 0 before it.

    The memory of levels that were made by `make_blank_levels` is shared.

    Returns
    -------
    numpy.ndarray
        (height, width + 1) uint8.
    """
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
    rows = make_blank_levels(height, width)
    rows[:] = levels
    rows_with_filter: Levels = rows.base  # type: ignore[assignment]
    return rows_with_filter


def is_gray_palette(palette: Levels | None) -> bool:
    """Return whether a palette shows each level i as gray level i; True for None."""
    return palette is None or np.array_equal(palette, _GRAY_PALETTE)


def convert_to_pillow(levels: Levels, palette: Levels | None = None) -> Image.Image:
    """Convert levels or RGB pixels to a Pillow image.

    Parameters
    ----------
    levels
        (height, width) levels or (height, width, 3) RGB pixels, uint8.
    palette
        Colour of each level. None: gray levels, or RGB pixels.

    Returns
    -------
    PIL.Image.Image
        Mode P with the palette, mode L for gray levels, or mode RGB.
    """
    image = Image.fromarray(levels)
    if palette is not None and not is_gray_palette(palette):
        image.putpalette(palette.tobytes())  # turns mode L into mode P
    return image


@lru_cache(maxsize=16)
def _make_palette_chunk(colours: bytes | None) -> tuple[int, list[bytes]]:
    """Return the PNG colour type and the palette chunk, which is empty for gray levels."""
    if colours is None or colours == _GRAY_PALETTE.tobytes():
        return _GRAYSCALE, []
    return _INDEXED, _make_chunk(b"PLTE", colours)


def _make_chunk(kind: bytes, *data: bytes) -> list[bytes]:
    """Return the parts of a PNG chunk: its length, kind, data and checksum."""
    checksum = 0
    for piece in (kind, *data):
        checksum = isal_zlib.crc32(piece, checksum)
    return [struct.pack(">I", sum(map(len, data))), kind, *data, struct.pack(">I", checksum)]


def _filter_sub(rows: Levels) -> Levels:
    """Apply the PNG filter "sub" to rows: subtract the pixel to the left.

    Parameters
    ----------
    rows
        (height, width + 1) uint8, with a filter byte before the pixels.
    """
    filtered = np.empty_like(rows)
    filtered[:, 0] = _SUB
    filtered[:, 1:2] = rows[:, 1:2]
    np.subtract(rows[:, 2:], rows[:, 1:-1], out=filtered[:, 2:])
    return filtered


def _choose_filter(rows: Levels) -> Levels:
    """Return PNG rows with the filter, none or "sub", that compresses a sample best."""
    height, width = rows.shape
    count = min(height, max(1, _SAMPLE_BYTES // width))
    start = (height - count) // 2
    sample = rows[start : start + count]
    is_smaller = len(_deflate(_filter_sub(sample), 1, True)) < len(_deflate(sample, 1, True))
    return _filter_sub(rows) if is_smaller else rows


def _deflate(rows: Levels, level: int, is_last: bool) -> bytes:
    """Compress PNG rows to raw deflate data with ISA-L, or with zlib for level 0.

    Parameters
    ----------
    is_last
        Whether the data end here. False: further deflate data may follow.
    """
    deflater: Any = (
        isal_zlib.compressobj(level, zlib.DEFLATED, _RAW_DEFLATE, _BUFFER_LEVEL)
        if level
        else zlib.compressobj(0, zlib.DEFLATED, _RAW_DEFLATE)
    )
    # Flushed to a full byte, so that the next band can follow.
    flush = zlib.Z_FINISH if is_last else zlib.Z_SYNC_FLUSH
    data: bytes = deflater.compress(rows) + deflater.flush(flush)
    return data


def _compress_band(rows: Levels, is_last: bool, is_stored: bool) -> tuple[bytes, int, int]:
    """Compress a band of PNG rows to raw deflate data.

    Parameters
    ----------
    is_last
        Whether no band follows.
    is_stored
        Whether the rows are stored without compression.

    Returns
    -------
    tuple
        Compressed data, Adler-32 checksum of the data before compression, and their number of
        bytes.
    """
    if _core is not None and not is_stored:
        return *_core.compress_rows(rows, is_last), rows.nbytes
    if not is_stored:
        rows = _choose_filter(rows)
    data = _deflate(rows, 0 if is_stored else 1, is_last)
    return data, isal_zlib.adler32(rows), rows.nbytes


def _combine_adler32(first: int, second: int, length: int) -> int:
    """Return the Adler-32 checksum of two joined pieces of data from their checksums.

    Parameters
    ----------
    first, second
        Checksums of the pieces.
    length
        Number of bytes of the second piece.
    """
    low, high = first & 0xFFFF, first >> 16
    high = (high + (second >> 16) + length * (low - 1)) % _ADLER_BASE
    low = (low + (second & 0xFFFF) - 1) % _ADLER_BASE
    return high << 16 | low


@lru_cache(maxsize=1)
def _get_pool() -> ThreadPoolExecutor:
    """Return the thread pool that all PNG encoders share, which is never shut down."""
    return ThreadPoolExecutor(thread_name_prefix="actgrid-png")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        after_in_child=_get_pool.cache_clear
    )  # a forked child has no threads of the parent


def _make_data_chunks(rows: Levels, is_stored: bool, threads: int) -> list[bytes]:
    """Compress PNG rows to IDAT chunks, in bands on several threads.

    Returns
    -------
    list of bytes
        Parts of a chunk for each band, and of one for the checksum of all data.
    """
    height, width = rows.shape
    step = max(1, _BAND_BYTES // width)
    starts = range(0, height, step)

    def deflate(start: int) -> tuple[bytes, int, int]:
        return _compress_band(rows[start : start + step], start + step >= height, is_stored)

    threads = min(threads, len(starts))
    batches = [starts[batch::threads] for batch in range(threads)]

    def deflate_batch(batch: range) -> list[tuple[bytes, int, int]]:
        return [deflate(start) for start in batch]

    futures = [_get_pool().submit(deflate_batch, batch) for batch in batches[1:]]
    results = [deflate_batch(batches[0]), *(future.result() for future in futures)]
    adler = 1
    chunks: list[bytes] = []
    for number, _ in enumerate(starts):
        band, checksum, length = results[number % threads][number // threads]
        adler = _combine_adler32(adler, checksum, length)
        chunks += _make_chunk(b"IDAT", *([] if number else [_ZLIB_HEADER]), band)
    return chunks + _make_chunk(b"IDAT", struct.pack(">I", adler))


def encode_png(
    levels: Levels,
    palette: Levels | None = None,
    *,
    compression: str = "fast",
    threads: int = 1,
) -> bytes:
    r"""Encode levels as an 8-bit PNG file: indexed, or grayscale for a gray palette.

    Parameters
    ----------
    levels : numpy.ndarray
        (height, width) uint8. Arrays made by `make_blank_levels` are not copied.
    palette : numpy.ndarray, optional
        (256, 3) uint8 RGB colours of the levels. None for grayscale.
    compression : {"fast", "small", "none"}, default "fast"
        ``"fast"``: deflate of runs only, with the best of three filters; without the native core,
        deflate at level 1 by ISA-L. ``"small"``: Pillow's best compression, about thirty times
        slower. ``"none"``: no compression, for data that are compressed later.
    threads : int, default 1
        Maximum number of threads. The file does not depend on this number. ``"small"`` uses one
        thread.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    ShapeError
        If `levels` is not a picture of at least one pixel.
    OptionError
        If `compression` is invalid.

    References
    ----------
    W3C, 2025, Portable Network Graphics (PNG) Specification, Third Edition,
    https://www.w3.org/TR/png-3/.

    Examples
    --------
    >>> from actgrid.encoding import encode_png
    >>> encode_png(np.zeros((2, 3), np.uint8))[:4]
    b'\x89PNG'
    """
    return b"".join(encode_png_pieces(levels, palette, compression=compression, threads=threads))


def encode_png_pieces(
    levels: Levels,
    palette: Levels | None = None,
    *,
    compression: str = "fast",
    threads: int = 1,
) -> list[bytes]:
    """Encode levels as a PNG file in consecutive pieces of bytes.

    The pieces save a copy of the file. The arguments are those of `encode_png`.
    """
    check_option(FileOptions, "compression", compression)
    if levels.ndim != 2 or levels.size == 0:
        raise ShapeError(f"levels must be (height, width) and not empty, not {levels.shape}")
    if compression == "small":
        buffer = io.BytesIO()
        convert_to_pillow(levels, palette).save(buffer, "PNG", optimize=True)
        return [buffer.getvalue()]
    height, width = levels.shape
    colour_type, palette_chunk = _make_palette_chunk(None if palette is None else palette.tobytes())
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    pieces = [_SIGNATURE, *_make_chunk(b"IHDR", header), *palette_chunk]
    pieces += _make_data_chunks(_add_filter_bytes(levels), compression == "none", threads)
    return pieces + _make_chunk(b"IEND")
