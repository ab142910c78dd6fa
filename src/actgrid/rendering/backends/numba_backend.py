"""Backend in numba, compiled on first use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from actgrid.rendering.backends import numpy_backend

# An overlay is drawn once, not for each of many channels, so that compiled loops would save less
# time than their compilation takes.
from actgrid.rendering.backends.numpy_backend import overlay, percentiles, resize
from actgrid.rendering.normalize import Mapping, choose_render_dtype
from actgrid.rendering.stats import ChannelStats, assign_stats

__all__ = ["measure", "overlay", "paint", "percentiles", "resize"]

Array = npt.NDArray[Any]

# Number of channels processed together where channels are adjacent in memory: enough to fill the
# widest registers, few enough for a row of them to stay in the cache.
_CHANNEL_COUNT = 64
# Number of values that NumPy converts at a time for dtypes that numba does not support.
_CONVERTED_VALUES = 1 << 16


def _compile(kernel: Callable[..., Any]) -> Callable[..., Any]:
    options = {"nogil": True, "error_model": "numpy"}
    compiled: Callable[..., Any]
    try:
        compiled = numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # no writable cache folder, as in a read-only container
        compiled = numba.njit(**options)(kernel)
    return compiled


@_compile
def _measure_adjacent(
    x: Array, first: int, last: int, pivot: Array, sums: Array, bounds: Array, zeros: Array
) -> None:
    # x is (height, width, channels). Without branches and index arithmetic, the inner loop is
    # vectorised.
    total, square, low, high = sums[0], sums[1], bounds[0], bounds[1]
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            pixel = x[i, j, first:last]
            for c in range(last - first):
                value = pixel[c]
                d = np.float64(value) - pivot[c]
                total[c] += d
                square[c] += d * d
                low[c] = min(low[c], value)
                high[c] = max(high[c], value)
                zeros[c] += value == 0


@_compile
def _measure_rows(
    x: Array, first: int, last: int, pivot: Array, sums: Array, bounds: Array, zeros: Array
) -> None:
    # x is (channels, height, width).
    for c in range(last - first):
        total = square = 0.0
        low, high = bounds[0, c], bounds[1, c]
        zero = 0
        for i in range(x.shape[1]):
            row = x[first + c, i]
            for j in range(x.shape[2]):
                value = row[j]
                d = np.float64(value) - pivot[c]
                total += d
                square += d * d
                low = min(low, value)
                high = max(high, value)
                zero += value == 0
        sums[0, c] += total
        sums[1, c] += square
        bounds[0, c], bounds[1, c] = low, high
        zeros[c] += zero


@_compile
def _compute_level(value: Any, shift: Any, scale: Any, base: Any, zero: Any, top: Any) -> Any:
    v = (value - shift) * scale + base
    # In a constant tile (scale 0) infinity times zero is NaN, but +inf must be level 255.
    v = top if value == np.inf else v
    v = v if v > zero else zero  # NaN compares false
    v = v if v < top else top
    return np.uint8(np.int32(v))


@_compile
def _paint_adjacent(
    x: Array,
    first: int,
    last: int,
    shift: Array,
    scale: Array,
    base: Array,
    origin: Array,
    canvas: Array,
    stride: int,
) -> None:
    real = shift.dtype.type
    zero, top = real(0), real(255)
    levels = np.empty((x.shape[1], last - first), np.uint8)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            pixel, out = x[i, j, first:last], levels[j]
            for c in range(last - first):
                out[c] = _compute_level(real(pixel[c]), shift[c], scale[c], base[c], zero, top)
        for c in range(last - first):
            start = origin[c] + i * stride
            if origin[c] >= 0:
                row = canvas[start : start + x.shape[1]]
                for j in range(x.shape[1]):
                    row[j] = levels[j, c]


@_compile
def _paint_rows(
    x: Array,
    first: int,
    last: int,
    shift: Array,
    scale: Array,
    base: Array,
    origin: Array,
    canvas: Array,
    stride: int,
) -> None:
    real = shift.dtype.type
    zero, top = real(0), real(255)
    for c in range(last - first):
        if origin[c] < 0:
            continue
        for i in range(x.shape[1]):
            start = origin[c] + i * stride
            pixels, row = x[first + c, i], canvas[start : start + x.shape[2]]
            for j in range(x.shape[2]):
                row[j] = _compute_level(real(pixels[j]), shift[c], scale[c], base[c], zero, top)


def _are_channels_adjacent(tiles: Array) -> bool:
    """Return whether neighbouring channels are adjacent in the memory of tiles.

    False: neighbouring pixels of a row are closer together in memory.
    """
    return tiles.shape[0] > 1 and abs(tiles.strides[0]) <= abs(tiles.strides[3])


def _iterate_bands(
    tiles: Array, part: int, first: int, last: int, is_adjacent: bool
) -> Iterator[tuple[int, Array, int, int]]:
    """Yield the rows of some channels of one slice of tiles in bands.

    Dtypes that numba does not support are converted to float32 band by band. Other dtypes are one
    band that is a view of all rows.

    Parameters
    ----------
    tiles
        (channels, slices, height, width).
    part
        Number of the slice.
    first, last
        Range of channels.
    is_adjacent
        Whether channels are adjacent in memory.

    Yields
    ------
    tuple
        (first row of the band, values of the band, first channel, last channel). The channels are
        counted in the band.
    """
    x = tiles[:, part]
    bands: Iterator[tuple[int, Array, int, int]]
    if x.dtype.itemsize == 2 and x.dtype.kind not in "iu":
        x = x[first:last]
        rows = max(1, _CONVERTED_VALUES * x.shape[1] // x.size)
        bands = (
            (row, x[:, row : row + rows].astype(np.float32, order="K"), 0, last - first)
            for row in range(0, x.shape[1], rows)
        )
    else:
        bands = iter([(0, x.view(np.uint8) if x.dtype == np.bool_ else x, first, last)])
    if is_adjacent:
        return ((row, band.transpose(1, 2, 0), start, stop) for row, band, start, stop in bands)
    return bands


def _run_ranges(tiles: Array, threads: int, task: Callable[[int, int, int], None]) -> None:
    """Call a function for ranges of channels that together cover all tiles.

    Parameters
    ----------
    task
        Function of the number of a slice and a range (first, last) of channels. It runs on several
        threads if `threads` is more than 1.
    """
    ranges = [
        (part, first, min(first + _CHANNEL_COUNT, tiles.shape[0]))
        for part in range(tiles.shape[1])
        for first in range(0, tiles.shape[0], _CHANNEL_COUNT)
    ]
    if threads == 1 or len(ranges) == 1:
        for channel_range in ranges:
            task(*channel_range)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(lambda channel_range: task(*channel_range), ranges))


def measure(tiles: Array, threads: int) -> ChannelStats:
    """Compute the statistics of each tile.

    The arguments and the result are those of `actgrid.rendering.backends.Backend.measure`.
    """
    is_adjacent = _are_channels_adjacent(tiles)
    kernel = _measure_adjacent if is_adjacent else _measure_rows
    shape, size = tiles.shape[:2], tiles.shape[2] * tiles.shape[3]
    pivot = tiles[:, :, 0, 0].astype(np.float64)
    sums = np.zeros((2, *shape))
    bounds = np.empty((2, *shape))
    zeros = np.zeros(shape, np.int64)

    def task(part: int, first: int, last: int) -> None:
        index = np.s_[..., first:last, part]
        pivots = np.ascontiguousarray(pivot[index])
        range_sums = np.zeros((2, last - first))
        range_zeros = np.zeros(last - first, np.int64)
        range_bounds = None
        for _, band, start, stop in _iterate_bands(tiles, part, first, last, is_adjacent):
            if range_bounds is None:
                corner = band[0, 0, start:stop] if is_adjacent else band[start:stop, 0, 0]
                range_bounds = np.stack([corner, corner])
            kernel(band, start, stop, pivots, range_sums, range_bounds, range_zeros)
        sums[index], bounds[index], zeros[index] = range_sums, range_bounds, range_zeros

    with np.errstate(all="ignore"):
        _run_ranges(tiles, threads, task)
        offset = sums[0] / size
        variance = np.maximum(sums[1] / size - offset**2, 0)
        low, high = bounds
        # The standard deviation of a constant channel is exactly 0, without a rounding error.
        std = np.where(low == high, 0.0, np.sqrt(variance))
    stats = ChannelStats(
        pivot + offset, std, low, high, zeros / size, np.zeros(shape, np.int64), size
    )
    # NaN and infinities make the sum of squares nonfinite.
    for c, part in np.argwhere(~np.isfinite(sums[1])):
        tile = tiles[c : c + 1, part : part + 1]
        assign_stats(stats, (c, part), numpy_backend.measure(tile, threads))
    return stats


def paint(
    tiles: Array,
    mapping: Mapping,
    origin: npt.NDArray[np.int64],
    canvas: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    """Draw tiles as gray levels on a canvas, in place.

    The arguments are those of `actgrid.rendering.backends.Backend.paint`.
    """
    is_adjacent = _are_channels_adjacent(tiles)
    kernel = _paint_adjacent if is_adjacent else _paint_rows
    real = choose_render_dtype(tiles.dtype)
    stride = canvas.strides[0]
    # All bytes from the first pixel to the last, including those between rows.
    pixels = np.lib.stride_tricks.as_strided(
        canvas, ((canvas.shape[0] - 1) * stride + canvas.shape[1],), (1,)
    )

    def task(part: int, first: int, last: int) -> None:
        shift = mapping.shift[first:last, part].astype(real)
        scale = mapping.scale[first:last, part].astype(real)
        base = mapping.base[first:last, part].astype(real)
        tile_origin = np.ascontiguousarray(origin[first:last, part])
        for row, band, start, stop in _iterate_bands(tiles, part, first, last, is_adjacent):
            # The origin of a tile that is not drawn stays negative in every band.
            band_origin = np.where(tile_origin < 0, -1, tile_origin + row * stride)
            kernel(band, start, stop, shift, scale, base, band_origin, pixels, stride)

    _run_ranges(tiles, threads, task)
