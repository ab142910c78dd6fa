"""Compute the mapping from activation values to levels 0 to 255."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from actgrid.option_checks import read_normalize
from actgrid.rendering.stats import ChannelStats

__all__ = ["Mapping", "Normalization", "choose_render_dtype", "parse_normalize"]

Float64s = npt.NDArray[np.float64]

# Normalization without limits -> what the lowest and the highest colour stand for.
_RANGES = {
    "standard": ("mean \N{MINUS SIGN} 2 std", "mean + 2 std"),
    "minmax": ("minimum", "maximum"),
    "symmetric": ("\N{MINUS SIGN} largest absolute value", "largest absolute value"),
}


def choose_render_dtype(dtype: np.dtype[Any]) -> type[np.float32] | type[np.float64]:
    """Return the float dtype in which activations of a dtype are converted to levels.

    This is float64 for elements of 64 bits, else float32.
    """
    return np.float64 if dtype.itemsize == 8 else np.float32


class Percentiles(Protocol):
    """Protocol of a rendering backend that can compute percentiles."""

    def percentiles(
        self, tiles: npt.NDArray[Any], limits: tuple[float, ...], pooled: bool, threads: int
    ) -> tuple[Float64s, Float64s]:
        """Compute two percentiles of the finite values of each tile.

        Parameters
        ----------
        tiles
            (channels, slices, height, width).
        limits
            The two percentiles, 0 to 100.
        pooled
            Whether the percentiles are computed from the values of all tiles together.
        threads
            Number of threads.

        Returns
        -------
        tuple of numpy.ndarray
            Lower and upper percentiles, float64: (channels, slices), or (1, 1) if pooled.
        """


@dataclass(frozen=True)
class Mapping:
    """Record of a linear mapping from values to levels for each tile.

    ``level = uint8(trunc(clip((x - shift) * scale + base, 0, 255)))``. All three attributes are
    (channels, slices) float64, with one entry per tile.
    """

    shift: Float64s
    scale: Float64s
    base: Float64s

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def compute_range(self) -> tuple[Float64s, Float64s]:
        """Compute the values that the lowest and the highest colour stand for.

        Returns
        -------
        tuple of numpy.ndarray
            For each tile, the values in the middle of the values with the levels 0 and 255, not
            clipped. Both are `shift` for a tile that is drawn in one level.
        """
        low, high = (self.shift + (level + 0.5 - self.base) / self.scale for level in (0, 255))
        is_flat = self.scale == 0
        return np.where(is_flat, self.shift, low), np.where(is_flat, self.shift, high)


@dataclass(frozen=True)
class Normalization:
    """Record of a normalization by name and limits, such as ``percentile(1, 99)``."""

    name: str
    limits: tuple[float, ...] = ()

    def describe_range(self) -> tuple[str, str]:
        """Return what the lowest and the highest colour stand for, such as "minimum".

        See `Mapping.compute_range` for the values.
        """
        if self.name == "percentile":
            low, high = (f"percentile {limit:g}" for limit in self.limits)
        elif self.name == "range":
            low, high = (f"{limit:g}" for limit in self.limits)
        else:
            low, high = _RANGES[self.name]
        return low, high

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def compute_mapping(
        self,
        tiles: npt.NDArray[Any],
        stats: ChannelStats,
        scope: str,
        backend: Percentiles,
        threads: int = 1,
    ) -> Mapping:
        """Compute the mapping from the values of tiles to levels.

        Parameters
        ----------
        tiles
            The tiles.
        stats
            Statistics of these tiles, (channels, slices).
        scope
            ``"channel"``: map each tile by its own statistics; ``"layer"``: map all tiles by their
            pooled statistics.
        backend, threads
            Backend and number of threads for percentiles, if the normalization needs them.

        Returns
        -------
        Mapping
            One linear mapping for each tile.
        """
        if scope == "layer":
            stats = stats.pool()
        low, high = stats.min, stats.max
        if self.name == "percentile":
            low, high = backend.percentiles(tiles, self.limits, scope == "layer", threads)
        mapping = Mapping(*self.compute_terms(stats, low, high, choose_render_dtype(tiles.dtype)))
        shape = tiles.shape[:2]
        if mapping.shift.shape == shape:
            return mapping
        terms = (mapping.shift, mapping.scale, mapping.base)  # one entry for the whole layer
        return Mapping(*(np.ascontiguousarray(np.broadcast_to(term, shape)) for term in terms))

    def compute_terms(
        self, stats: ChannelStats, low: Any, high: Any, real: type[np.floating[Any]], xp: Any = np
    ) -> tuple[Any, Any, Any]:
        """Compute the terms of the mapping from values to levels for measured statistics.

        Parameters
        ----------
        stats
            The statistics.
        low, high
            The smallest and largest values, or two percentiles for the normalization
            ``"percentile"``.
        real
            The dtype to render with.
        xp
            The array module: numpy, or a module with the same functions.

        Returns
        -------
        tuple
            Shift, scale and base of `Mapping`, in the shape of the statistics.
        """

        def replace_nonfinite(values: Any) -> Any:
            # Levels of a tile without finite values do not depend on the mapping.
            return xp.where(xp.isfinite(values), values, 0.0)

        if self.name == "standard":
            shift, span, gain, base = replace_nonfinite(stats.mean), stats.std, 64.0, 128.0
        elif self.name == "symmetric":
            shift = xp.zeros_like(low)
            span = xp.maximum(xp.abs(replace_nonfinite(low)), xp.abs(replace_nonfinite(high)))
            gain, base = 127.5, 128.0
        else:
            if self.name == "range":
                low, high = (xp.zeros_like(low) + limit for limit in self.limits)
            shift = replace_nonfinite(low)
            span = replace_nonfinite(high) - replace_nonfinite(low)
            gain = 255.0
            base = 0.5
        # Division by a tiny span must stay finite in the dtype to render with.
        largest = float(np.finfo(real).max)
        scale = xp.where(span > 0, xp.minimum(gain / span, largest), 0.0)
        # The rounding error of the shift would be many levels for a channel with a tiny standard
        # deviation, so that the base compensates it.
        rounded = xp.asarray(xp.asarray(xp.clip(shift, -largest, largest), real), np.float64)
        return rounded, scale, base - (shift - rounded) * scale


def parse_normalize(value: object) -> Normalization:
    """Convert a value of the option `normalize` to a `Normalization`.

    Returns
    -------
    Normalization
        Name and limits of the normalization.

    Raises
    ------
    OptionError
        If the normalization is unknown, or its limits are invalid.
    """
    return value if isinstance(value, Normalization) else Normalization(*read_normalize(value))
