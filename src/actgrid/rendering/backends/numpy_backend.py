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

# Values taken at once: temporaries of this many float64 stay in the cache and small beside any
# activation worth drawing.
_BLOCK = 1 << 16


def _blocks(tiles: npt.NDArray[Any]) -> Iterator[slice]:
    channels = tiles.shape[0]
    step = max(1, _BLOCK * channels // tiles.size)
    return (slice(start, start + step) for start in range(0, channels, step))


def measure(tiles: npt.NDArray[Any], threads: int) -> ChannelStats:
    size = tiles.shape[2] * tiles.shape[3]
    blocks = [_measure(tiles[block]) for block in _blocks(tiles)]
    return ChannelStats.of((np.concatenate(column) for column in zip(*blocks, strict=True)), size)


def _measure(tiles: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    axes = (2, 3)
    with np.errstate(invalid="ignore"):  # signalling NaN
        x = tiles.astype(np.float64)
    finite = np.isfinite(x)
    count = finite.sum(axes)
    low = np.where(finite, x, np.inf).min(axes)
    high = np.where(finite, x, -np.inf).max(axes)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(finite, x, 0).sum(axes) / count
        deviation = np.where(finite, x - mean[..., None, None], 0)
        std = np.sqrt((deviation**2).sum(axes) / count)
        zero_fraction = (x == 0).sum(axes) / count
    # The mean of equal values may differ from them by a rounding; they do not deviate.
    constant = low == high
    none = count == 0
    return (
        np.where(constant, low, mean),
        np.where(constant, 0.0, std),
        np.where(none, np.nan, low),
        np.where(none, np.nan, high),
        zero_fraction,
        x.shape[2] * x.shape[3] - count,
    )


def paint(
    tiles: npt.NDArray[Any],
    mapping: Mapping,
    origin: npt.NDArray[np.int64],
    canvas: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    height, width = tiles.shape[2:]
    top, left = np.divmod(origin, canvas.shape[1])
    for block in _blocks(tiles):
        levels = _levels(tiles[block], mapping, block)
        for tile, y, x, start in zip(
            levels.reshape(-1, height, width),
            top[block].flat,
            left[block].flat,
            origin[block].flat,
            strict=True,
        ):
            if start >= 0:
                canvas[y : y + height, x : x + width] = tile


def _levels(tiles: npt.NDArray[Any], mapping: Mapping, block: slice) -> npt.NDArray[np.uint8]:
    real: Any = drawn_dtype(tiles.dtype)
    shift = mapping.shift[block].astype(real)[..., None, None]
    scale = mapping.scale[block].astype(real)[..., None, None]
    base = mapping.base[block].astype(real)[..., None, None]
    with np.errstate(invalid="ignore", over="ignore"):
        x = tiles.astype(real)
        v = (x - shift) * scale + base
    v[x == np.inf] = 255
    v[np.isnan(v)] = 0  # NaN; also -inf where the scale is 0
    levels: npt.NDArray[np.uint8] = np.clip(v, 0, 255).astype(np.uint8)
    return levels
