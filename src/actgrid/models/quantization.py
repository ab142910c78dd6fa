"""Convert between real values and the quantized values of exported models."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Scale"]

Array = npt.NDArray[Any]


class Scale(NamedTuple):
    """Record of the scale of quantized values: real value = scale * (value - zero point).

    Attributes
    ----------
    scales, zero_points
        A number each, or a value for each position of an axis.
    axis
        This axis.
    """

    scales: Array
    zero_points: Array
    axis: int

    def dequantize(self, values: Array) -> Array:
        """Return real values as float32."""
        scales, zero_points = self._broadcast(values.ndim)
        # float32 has every 16-bit integer, and float64 every 32-bit integer.
        wide = values.astype(np.promote_types(values.dtype, np.float32))
        wide -= zero_points.astype(wide.dtype)
        wide *= scales.astype(wide.dtype)
        return wide.astype(np.float32, copy=False)

    def quantize(self, values: Array, dtype: np.dtype[Any]) -> Array:
        """Return the nearest values of an integer dtype."""
        scales, zero_points = self._broadcast(values.ndim)
        limits = np.iinfo(dtype)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinity
            levels: Array = np.rint(values / scales) + zero_points
            return levels.clip(limits.min, limits.max).astype(dtype)

    def get_range(self, dtype: np.dtype[Any]) -> tuple[float, float] | None:
        """Return the smallest and largest real value of a dtype; None for several scales."""
        if self.scales.size > 1:
            return None
        limits = np.iinfo(dtype)
        low, high = self.dequantize(np.array([limits.min, limits.max], dtype))
        return float(low), float(high)

    def _broadcast(self, rank: int) -> tuple[Array, Array]:
        """Return the scales and zero points in a shape that broadcasts over `rank` axes."""
        sides = [1] * rank
        if self.scales.size > 1:
            sides[self.axis] = -1
        return self.scales.reshape(sides), self.zero_points.reshape(sides)
