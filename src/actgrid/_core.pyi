from typing import Any

import numpy as np
import numpy.typing as npt

_Float64s = npt.NDArray[np.float64]
_Int64s = npt.NDArray[np.int64]

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

def cpu_features() -> list[str]:
    """Return the vector instruction sets of this processor, oldest first."""
