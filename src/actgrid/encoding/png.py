"""PNG, written for speed: a fast deflate of bands of rows, by several threads."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
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
except ImportError:  # installed without a compiler: ISA-L deflates, in about twice the time
    _core = None  # type: ignore[assignment]

__all__ = [
    "blank_levels",
    "encode_png",
    "is_gray",
    "png_pieces",
    "to_pillow",
]

Levels = npt.NDArray[np.uint8]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAYSCALE, _INDEXED = 0, 3
_NO_FILTER, _SUB, _PAETH = 0, 1, 4
_GRAY_PALETTE = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
_ZLIB_HEADER = b"\x78\x01"
_RAW_DEFLATE = -15
# Of the sizes of ISA-L's buffer the one that makes the smallest blocks, each with its own codes.
_BUFFER = 2
# Bytes that one thread deflates by themselves. They do not depend on the number of threads.
_BAND_BYTES = 1 << 20
# Bytes of a band that are tried with every filter to choose one.
_SAMPLE_BYTES = 1 << 15
_ADLER_BASE = 65521
# About 32,768 x 32,768: six times what Pillow opens without being asked to, and 1 GiB of levels.
_MAX_PIXELS = 1 << 30


def check_picture_size(height: int, width: int) -> None:
    """Raise OptionError if a picture has too many pixels to be drawn and opened.

    Raises
    ------
    OptionError
        If there are more than 2**30 pixels. Also a ValueError.
    """
    if height * width > _MAX_PIXELS:
        raise OptionError(
            f"a picture of {height:,} x {width:,} pixels is too large: expected at most "
            f"{_MAX_PIXELS:,} pixels; a smaller zoom, padding or size, or fewer channels, may do"
        )


def blank_levels(height: int, width: int, background: int | None = None) -> Levels:
    """Return levels to draw on, which `encode_png` can deflate where they are.

    Each row comes after the byte that says how it is filtered, as in a PNG file.

    Parameters
    ----------
    background
        The level of all pixels; None leaves them as they come.

    Raises
    ------
    OptionError
        See `check_picture_size`.
    """
    check_picture_size(height, width)
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


def _chunk(kind: bytes, *data: bytes) -> list[bytes]:
    """Return the pieces of a chunk, to be joined when all are there."""
    checksum = 0
    for piece in (kind, *data):
        checksum = isal_zlib.crc32(piece, checksum)
    return [struct.pack(">I", sum(map(len, data))), kind, *data, struct.pack(">I", checksum)]


def _subtracted(rows: Levels) -> Levels:
    """Return rows with the filter "sub": each pixel less the one to its left."""
    filtered = np.empty_like(rows)
    filtered[:, 0] = _SUB
    filtered[:, 1:2] = rows[:, 1:2]
    np.subtract(rows[:, 2:], rows[:, 1:-1], out=filtered[:, 2:])
    return filtered


def _paeth(rows: Levels) -> Levels:
    """Return rows with the filter "Paeth", but for the first, which has none above: "sub"."""
    filtered = np.empty_like(rows)
    filtered[:1] = _subtracted(rows[:1])
    filtered[1:, 0] = _PAETH
    assert _core is not None
    _core.filter_paeth(rows, filtered)
    return filtered


def _filtered(rows: Levels) -> Levels:
    """Return rows with the filter that makes a sample of them the smallest, for all of them."""
    height, width = rows.shape
    filters: list[Callable[[Levels], Levels]] = [lambda rows: rows, _subtracted]
    if _core is not None:
        filters.append(_paeth)
    # Rows that are neighbours, as a filter looks at two.
    count = min(height, max(2, _SAMPLE_BYTES // width))
    start = (height - count) // 2
    sample = rows[start : start + count]
    best = min(filters, key=lambda filtered: _deflated_size(filtered(sample)))
    return best(rows)


def _deflated_size(rows: Levels) -> int:
    """Return about how many bytes rows are once deflated."""
    if _core is not None:
        return _core.estimate_deflated(rows)
    return len(_deflate(rows, last=True))


def _deflate(rows: Levels, last: bool) -> bytes:
    """Return the bytes of rows as raw deflate; if not the last, more may follow."""
    if _core is not None:
        return _core.deflate(rows, last)
    return _finished(isal_zlib.compressobj(1, zlib.DEFLATED, _RAW_DEFLATE, _BUFFER), rows, last)


def _finished(deflater: Any, rows: Levels, last: bool) -> bytes:
    # Flushed to a whole byte, so that the next band can follow.
    flush = zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH
    data: bytes = deflater.compress(rows) + deflater.flush(flush)
    return data


def _deflate_band(rows: Levels, last: bool, stored: bool) -> tuple[bytes, int, int]:
    """Return a band as raw deflate, its Adler-32 and the number of bytes that it was of."""
    if stored:
        data = _finished(zlib.compressobj(0, zlib.DEFLATED, _RAW_DEFLATE), rows, last)
    else:
        rows = _filtered(rows)
        data = _deflate(rows, last)
    return data, isal_zlib.adler32(rows), rows.nbytes


def _joined_adler(first: int, second: int, length: int) -> int:
    """Return the Adler-32 of two pieces of data; `length` is that of the second (RFC 1950)."""
    low, high = first & 0xFFFF, first >> 16
    high = (high + (second >> 16) + length * (low - 1)) % _ADLER_BASE
    low = (low + (second & 0xFFFF) - 1) % _ADLER_BASE
    return high << 16 | low


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    """Return threads to deflate bands with, made once: new ones have no memory to use again."""
    return ThreadPoolExecutor(thread_name_prefix="actgrid-png")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # the threads stay with the parent


def _data_chunks(rows: Levels, stored: bool, threads: int) -> list[bytes]:
    """Return the IDAT chunks: one for each band, and one for the checksum of all."""
    height, width = rows.shape
    step = max(1, _BAND_BYTES // width)
    starts = range(0, height, step)

    def deflate(start: int) -> tuple[bytes, int, int]:
        return _deflate_band(rows[start : start + step], start + step >= height, stored)

    threads = min(threads, len(starts))
    turns = [starts[turn::threads] for turn in range(threads)]

    def deflate_turn(turn: range) -> list[tuple[bytes, int, int]]:
        return [deflate(start) for start in turn]

    others = [_pool().submit(deflate_turn, turn) for turn in turns[1:]]
    done = [deflate_turn(turns[0]), *(other.result() for other in others)]
    adler = 1
    chunks: list[bytes] = []
    for number, _ in enumerate(starts):
        band, one, length = done[number % threads][number // threads]
        adler = _joined_adler(adler, one, length)
        chunks += _chunk(b"IDAT", *([] if number else [_ZLIB_HEADER]), band)
    return chunks + _chunk(b"IDAT", struct.pack(">I", adler))


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
        ``"fast"``: deflate without a search for anything but runs, of rows with the best of
        three filters; without the native core, deflate at level 1 by ISA-L.
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
    return b"".join(png_pieces(levels, palette, compression=compression, threads=threads))


def png_pieces(
    levels: Levels,
    palette: Levels | None = None,
    *,
    compression: str = "fast",
    threads: int = 1,
) -> list[bytes]:
    """Return what `encode_png` does in pieces, which a file takes without a copy of them joined."""
    check_option(FileOptions, "compression", compression)
    if levels.ndim != 2 or levels.size == 0:
        raise ShapeError(f"levels must be (height, width) and not empty, not {levels.shape}")
    if compression == "small":
        buffer = io.BytesIO()
        to_pillow(levels, palette).save(buffer, "PNG", optimize=True)
        return [buffer.getvalue()]
    height, width = levels.shape
    gray = is_gray(palette)
    header = struct.pack(">IIBBBBB", width, height, 8, _GRAYSCALE if gray else _INDEXED, 0, 0, 0)
    pieces = [_SIGNATURE, *_chunk(b"IHDR", header)]
    if palette is not None and not gray:
        pieces += _chunk(b"PLTE", palette.tobytes())
    pieces += _data_chunks(_unfiltered(levels), compression == "none", threads)
    return pieces + _chunk(b"IEND")
