"""The reference: the arithmetic as the design states it, in plain NumPy.

Written to be read and to be checked against; it uses one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.rendering.normalize import Mapping, drawn_dtype
from actgrid.rendering.stats import ChannelStats

__all__ = ["measure", "paint"]

# Values taken at once, so that temporaries stay in the cache and small beside the picture.
_BLOCK = 1 << 16
_PIXELS = (2, 3)

Block = tuple[slice, slice]  # of channels, of rows


def _blocks(tiles: npt.NDArray[Any]) -> Iterator[list[Block]]:
    """Yield for a range of channels the bands of rows to take one after the other."""
    channels, slices, height, width = tiles.shape
    step = max(1, _BLOCK // (slices * height * width))
    rows = max(1, _BLOCK // (slices * width))
    for first in range(0, channels, step):
        yield [
            (slice(first, first + step), slice(row, row + rows)) for row in range(0, height, rows)
        ]


def measure(tiles: npt.NDArray[Any], threads: int) -> ChannelStats:
    size = tiles.shape[2] * tiles.shape[3]
    parts = [_measure(tiles, bands) for bands in _blocks(tiles)]
    return ChannelStats.of((np.concatenate(column) for column in zip(*parts, strict=True)), size)


def _values(tiles: npt.NDArray[Any], band: Block) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return a band's values and which of them are finite."""
    channels, rows = band
    x = tiles[channels, :, rows].astype(np.float64)
    return x, np.isfinite(x)


@np.errstate(all="ignore")
def _measure(tiles: npt.NDArray[Any], bands: list[Block]) -> list[npt.NDArray[Any]]:
    count = zeros = np.zeros((), np.int64)
    total = square = np.zeros(())
    low, high = np.array(np.inf), np.array(-np.inf)
    for band in bands:
        x, finite = _values(tiles, band)
        count = count + finite.sum(_PIXELS)
        total = total + np.where(finite, x, 0).sum(_PIXELS)
        zeros = zeros + (x == 0).sum(_PIXELS)
        low = np.minimum(low, np.where(finite, x, np.inf).min(_PIXELS))
        high = np.maximum(high, np.where(finite, x, -np.inf).max(_PIXELS))
    mean = total / count
    for band in bands:
        x, finite = _values(tiles, band)
        square = square + (np.where(finite, x - mean[..., None, None], 0) ** 2).sum(_PIXELS)
    std = np.sqrt(square / count)
    # The mean of equal values may differ from them by a rounding; they do not deviate.
    constant = low == high
    none = count == 0
    return [
        np.where(constant, low, mean),
        np.where(constant, 0.0, std),
        np.where(none, np.nan, low),
        np.where(none, np.nan, high),
        zeros / count,
        tiles.shape[2] * tiles.shape[3] - count,
    ]


def percentiles(
    tiles: npt.NDArray[Any], limits: tuple[float, ...], pooled: bool, threads: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    def of(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with np.errstate(invalid="ignore"):  # signalling NaN
            finite = values[np.isfinite(values)].astype(np.float64)
        return np.percentile(finite, limits) if finite.size else np.zeros(2)

    if pooled:
        found = of(tiles)[:, None, None]
    else:
        found = np.array([[of(tile) for tile in channel] for channel in tiles])
        found = np.moveaxis(found, -1, 0)
    return found[0], found[1]


def paint(
    tiles: npt.NDArray[Any],
    mapping: Mapping,
    origin: npt.NDArray[np.int64],
    canvas: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    top, left = np.divmod(origin, canvas.strides[0])
    for bands in _blocks(tiles):
        for channels, rows in bands:
            levels = _levels(tiles[channels, :, rows], mapping, channels)
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
def _levels(tiles: npt.NDArray[Any], mapping: Mapping, block: slice) -> npt.NDArray[np.uint8]:
    real: Any = drawn_dtype(tiles.dtype)
    x = tiles.astype(real)
    shift = mapping.shift[block].astype(real)[..., None, None]
    scale = mapping.scale[block].astype(real)[..., None, None]
    base = mapping.base[block].astype(real)[..., None, None]
    v = (x - shift) * scale + base
    v[x == np.inf] = 255
    v[np.isnan(v)] = 0  # NaN; also -inf where the scale is 0
    levels: npt.NDArray[np.uint8] = np.clip(v, 0, 255).astype(np.uint8)
    return levels
