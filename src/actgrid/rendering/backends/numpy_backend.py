"""The reference: the arithmetic as the design states it, in plain NumPy.

Written to be read and to be checked against; it uses one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.rendering.normalize import Mapping, drawn_dtype
from actgrid.rendering.stats import ChannelStats, stats_of

__all__ = ["measure", "overlay", "paint", "percentiles", "resize"]

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
    return stats_of((np.concatenate(column) for column in zip(*parts, strict=True)), size)


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


def _neighbours(
    count: int, wanted: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Return for each pixel of a resized axis the two it lies between, and how far from the first.

    Its centre, i + 0.5, lies at (i + 0.5) * count / wanted - 0.5: in (2 * wanted)ths, exactly.
    """
    whole = 2 * wanted
    at = np.clip((2 * np.arange(wanted) + 1) * count - wanted, 0, (count - 1) * whole)
    first, rest = np.divmod(at, whole)
    return first, first + (rest != 0), (rest / whole).astype(np.float32)


def _between(a: npt.NDArray[Any], b: npt.NDArray[Any], part: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Equal values need no arithmetic, which would turn two infinities into NaN.
    return np.where(a == b, a, a * (1 - part) + b * part)


@np.errstate(invalid="ignore")
def resize(values: npt.NDArray[np.float32], resized: npt.NDArray[np.float32], threads: int) -> None:
    first, second, part = _neighbours(values.shape[1], resized.shape[1])
    mixed = _between(values[:, first], values[:, second], part[:, None])
    first, second, part = _neighbours(values.shape[2], resized.shape[2])
    resized[:] = _between(mixed[..., first], mixed[..., second], part)


def overlay(
    values: npt.NDArray[np.float32],
    mapping: Mapping,
    palette: npt.NDArray[np.uint8],
    image: npt.NDArray[np.uint8],
    alpha: float,
    overlaid: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    resized = np.empty((1, *image.shape[:2]), np.float32)
    resize(values[None], resized, threads)
    colours = palette[_levels(resized[None], mapping, slice(None))[0, 0]]
    difference = np.subtract(colours, image, dtype=np.float32)
    overlaid[:] = image + difference * np.float32(alpha) + np.float32(0.5)
