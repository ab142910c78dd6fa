from typing import Any

import numpy as np
import numpy.typing as npt

_Float32s = npt.NDArray[np.float32]
_Float64s = npt.NDArray[np.float64]
_Int64s = npt.NDArray[np.int64]
_Uint8s = npt.NDArray[np.uint8]

def measure(
    tiles: npt.NDArray[Any], threads: int
) -> tuple[_Float64s, _Float64s, _Float64s, _Float64s, _Int64s, _Int64s]:
    """Mean, std, min, max, zeros and nonfinite of each of (channels, slices) tiles."""

def paint(
    tiles: npt.NDArray[Any],
    shift: _Float64s,
    scale: _Float64s,
    base: _Float64s,
    origin: _Int64s,
    canvas: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    """Draw each tile on the canvas at its origin, a byte offset; negative: not drawn."""

def percentiles(
    tiles: npt.NDArray[Any], low: float, high: float, pooled: bool, threads: int
) -> tuple[_Float64s, _Float64s]:
    """Two percentiles of the finite values of each tile, or of all: (channels, slices)."""

def deflate(data: _Uint8s, last: bool) -> bytes:
    """Return data as raw deflate of literals and runs; if not `last`, more may follow."""

def estimate_deflated(data: _Uint8s) -> int:
    """Return about how many bytes `deflate` would return."""

def filter_paeth(rows: _Uint8s, filtered: _Uint8s) -> None:
    """Filter rows of a filter byte and pixels, all but the first row and the filter bytes."""

def resize(values: _Float32s, resized: _Float32s, threads: int) -> None:
    """Resize (maps, height, width) bilinearly to the height and width of `resized`."""

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
    """Lay a map, (height, width), resized and coloured, over a picture, (height, width, 3)."""

def simd_variants() -> list[str]:
    """Return the variants of the core that this processor can run, the fastest last."""

def simd_variant() -> str:
    """Return the variant in use."""

def use_simd_variant(name: str) -> None:
    """Use this variant from now on. Raises ValueError if it is none of `simd_variants`."""
