"""Reference backend in plain NumPy, against which the other backends are tested.

It uses one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.rendering.normalize import Mapping, choose_render_dtype
from actgrid.rendering.stats import ChannelStats, make_stats

__all__ = ["measure", "overlay", "paint", "percentiles", "resize"]

# Number of values processed at a time, so that temporary arrays stay in the cache.
_BLOCK = 1 << 16
_PIXEL_AXES = (2, 3)

Block = tuple[slice, slice]  # channels, rows


def _iterate_blocks(tiles: npt.NDArray[Any]) -> Iterator[list[Block]]:
    """Yield blocks of tiles that fit into the cache, as slices to index the tiles.

    Yields
    ------
    list of tuple of slice
        (channels, rows) of each band of rows, for one range of channels.
    """
    channels, slices, height, width = tiles.shape
    step = max(1, _BLOCK // (slices * height * width))
    rows = max(1, _BLOCK // (slices * width))
    for first in range(0, channels, step):
        yield [
            (slice(first, first + step), slice(row, row + rows)) for row in range(0, height, rows)
        ]


def measure(tiles: npt.NDArray[Any], threads: int) -> ChannelStats:
    """Compute the statistics of each tile.

    The arguments and the result are those of `actgrid.rendering.backends.Backend.measure`.
    """
    size = tiles.shape[2] * tiles.shape[3]
    parts = [_measure_bands(tiles, bands) for bands in _iterate_blocks(tiles)]
    return make_stats((np.concatenate(column) for column in zip(*parts, strict=True)), size)


def _read_band(
    tiles: npt.NDArray[Any], band: Block
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the values of one band of tiles, and a mask of the finite values.

    Parameters
    ----------
    band
        Slices of channels and rows.

    Returns
    -------
    tuple of numpy.ndarray
        Values as float64, and the mask.
    """
    channels, rows = band
    x = tiles[channels, :, rows].astype(np.float64)
    return x, np.isfinite(x)


@np.errstate(all="ignore")
def _measure_bands(tiles: npt.NDArray[Any], bands: list[Block]) -> list[npt.NDArray[Any]]:
    count = zeros = np.zeros((), np.int64)
    total = square = np.zeros(())
    low, high = np.array(np.inf), np.array(-np.inf)
    for band in bands:
        x, finite = _read_band(tiles, band)
        count = count + finite.sum(_PIXEL_AXES)
        total = total + np.where(finite, x, 0).sum(_PIXEL_AXES)
        zeros = zeros + (x == 0).sum(_PIXEL_AXES)
        low = np.minimum(low, np.where(finite, x, np.inf).min(_PIXEL_AXES))
        high = np.maximum(high, np.where(finite, x, -np.inf).max(_PIXEL_AXES))
    mean = total / count
    for band in bands:
        x, finite = _read_band(tiles, band)
        square = square + (np.where(finite, x - mean[..., None, None], 0) ** 2).sum(_PIXEL_AXES)
    std = np.sqrt(square / count)
    # The mean of equal values may have a rounding error; their deviation is exactly 0.
    is_constant = low == high
    is_empty = count == 0
    return [
        np.where(is_constant, low, mean),
        np.where(is_constant, 0.0, std),
        np.where(is_empty, np.nan, low),
        np.where(is_empty, np.nan, high),
        zeros / count,
        tiles.shape[2] * tiles.shape[3] - count,
    ]


def percentiles(
    tiles: npt.NDArray[Any], limits: tuple[float, ...], pooled: bool, threads: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute two percentiles of the finite values of tiles.

    The arguments and the result are those of `actgrid.rendering.normalize.Percentiles.percentiles`.
    """

    def compute(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with np.errstate(invalid="ignore"):  # signalling NaN
            finite = values[np.isfinite(values)].astype(np.float64)
        return np.percentile(finite, limits) if finite.size else np.zeros(2)

    if pooled:
        limits_by_tile = compute(tiles)[:, None, None]
    else:
        limits_by_tile = np.array([[compute(tile) for tile in channel] for channel in tiles])
        limits_by_tile = np.moveaxis(limits_by_tile, -1, 0)
    return limits_by_tile[0], limits_by_tile[1]


def paint(
    tiles: npt.NDArray[Any],
    mapping: Mapping,
    origin: npt.NDArray[np.int64],
    canvas: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    """Draw tiles as gray levels on a canvas, in place.

    The arguments are those of `actgrid.rendering.backends.Backend.paint`.
    """
    top, left = np.divmod(origin, canvas.strides[0])
    for bands in _iterate_blocks(tiles):
        for channels, rows in bands:
            levels = _compute_levels(tiles[channels, :, rows], mapping, channels)
            height, width = levels.shape[2:]
            for tile, y, x, start in zip(
                levels.reshape(-1, height, width),
                (top[channels] + rows.start).flat,
                left[channels].flat,
                origin[channels].flat,
                strict=True,
            ):
                if start >= 0:
                    canvas[y : y + height, x : x + width] = tile


@np.errstate(invalid="ignore", over="ignore")
def _compute_levels(
    tiles: npt.NDArray[Any], mapping: Mapping, block: slice
) -> npt.NDArray[np.uint8]:
    real: Any = choose_render_dtype(tiles.dtype)
    x = tiles.astype(real)
    shift = mapping.shift[block].astype(real)[..., None, None]
    scale = mapping.scale[block].astype(real)[..., None, None]
    base = mapping.base[block].astype(real)[..., None, None]
    v = (x - shift) * scale + base
    v[x == np.inf] = 255
    v[np.isnan(v)] = 0  # NaN; also -inf where the scale is 0
    levels: npt.NDArray[np.uint8] = np.clip(v, 0, 255).astype(np.uint8)
    return levels


def _compute_neighbours(
    count: int, new_count: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Return which source pixels each pixel of a resized axis is interpolated from.

    The centre of pixel i, i + 0.5, corresponds to (i + 0.5) * count / new_count - 0.5, which is a
    multiple of 1 / (2 * new_count) and is computed in integers.

    Parameters
    ----------
    count
        Number of pixels before resizing.
    new_count
        Number of pixels after resizing.

    Returns
    -------
    tuple of numpy.ndarray
        First source pixel, second source pixel, and weight of the second, each (new_count,).
    """
    denominator = 2 * new_count
    position = np.clip(
        (2 * np.arange(new_count) + 1) * count - new_count, 0, (count - 1) * denominator
    )
    first, remainder = np.divmod(position, denominator)
    return first, first + (remainder != 0), (remainder / denominator).astype(np.float32)


def _interpolate(
    a: npt.NDArray[Any], b: npt.NDArray[Any], weight: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    # Equal values are kept, because arithmetic would turn two infinities into NaN.
    return np.where(a == b, a, a * (1 - weight) + b * weight)


@np.errstate(invalid="ignore")
def resize(values: npt.NDArray[np.float32], resized: npt.NDArray[np.float32], threads: int) -> None:
    """Resize maps bilinearly and write the result into the array `resized`.

    The arguments are those of `actgrid.rendering.backends.Backend.resize`.
    """
    first, second, weight = _compute_neighbours(values.shape[1], resized.shape[1])
    resized_rows = _interpolate(values[:, first], values[:, second], weight[:, None])
    first, second, weight = _compute_neighbours(values.shape[2], resized.shape[2])
    resized[:] = _interpolate(resized_rows[..., first], resized_rows[..., second], weight)


def overlay(
    values: npt.NDArray[np.float32],
    mapping: Mapping,
    palette: npt.NDArray[np.uint8],
    image: npt.NDArray[np.uint8],
    alpha: float,
    overlaid: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    """Blend a map in colour with an image and write the result into `overlaid`.

    The arguments are those of `actgrid.rendering.backends.Backend.overlay`.
    """
    resized = np.empty((1, *image.shape[:2]), np.float32)
    resize(values[None], resized, threads)
    colours = palette[_compute_levels(resized[None], mapping, slice(None))[0, 0]]
    difference = np.subtract(colours, image, dtype=np.float32)
    overlaid[:] = image + difference * np.float32(alpha) + np.float32(0.5)
