from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_Float32s = npt.NDArray[np.float32]
_Float64s = npt.NDArray[np.float64]
_Int64s = npt.NDArray[np.int64]
_Uint8s = npt.NDArray[np.uint8]

_Stats = tuple[_Float64s, _Float64s, _Float64s, _Float64s, _Float64s, _Int64s]

def measure(tiles: npt.NDArray[Any], threads: int) -> _Stats:
    """Compute mean, std, min, max, zero fraction and nonfinite count, each (channels, slices)."""

def draw(
    layers: Sequence[tuple[npt.NDArray[Any], _Int64s, _Uint8s]],
    normalization: str,
    low: float,
    high: float,
    threads: int,
) -> list[_Stats]:
    """Measure layers, map each tile by its own statistics, and draw the tiles on canvases."""

def paint(
    tiles: npt.NDArray[Any],
    shift: _Float64s,
    scale: _Float64s,
    base: _Float64s,
    origin: _Int64s,
    canvas: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    """Draw each tile on `canvas` at its origin, a byte offset; negative origins are not drawn."""

def percentiles(
    tiles: npt.NDArray[Any], low: float, high: float, pooled: bool, threads: int
) -> tuple[_Float64s, _Float64s]:
    """Compute the percentiles `low` and `high`, each (channels, slices), or (1, 1) if pooled."""

def deflate(data: _Uint8s, last: bool) -> bytes:
    """Compress bytes as a raw deflate stream; if not `last`, another stream can be appended."""

def compress_rows(rows: _Uint8s, last: bool) -> tuple[bytes, int]:
    """Filter and deflate (height, 1 + width) PNG rows; return the data and the Adler-32."""

def resize(values: _Float32s, resized: _Float32s, threads: int) -> None:
    """Resize (maps, height, width) values bilinearly to the height and width of `resized`."""

def overlay(
    values: _Float32s,
    shift: float,
    scale: float,
    base: float,
    palette: _Uint8s,
    image: _Uint8s,
    alpha: float,
    overlaid: _Uint8s,
    threads: int,
) -> None:
    """Resize and colour a (height, width) map and blend it with a (height, width, 3) image."""

def simd_variants() -> list[str]:
    """Return the kernel variants that this processor can run, from slowest to fastest."""

def simd_variant() -> str:
    """Return the name of the active kernel variant."""

def use_simd_variant(name: str) -> None:
    """Select the kernel variant; raise ValueError if it is not in `simd_variants()`."""
