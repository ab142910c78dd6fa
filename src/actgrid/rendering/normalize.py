"""The mapping from values to levels, worked out from what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from actgrid.option_checks import read_normalize
from actgrid.rendering.stats import ChannelStats

__all__ = ["Mapping", "Normalization", "drawn_dtype", "parse_normalize"]

Float64s = npt.NDArray[np.float64]


def drawn_dtype(dtype: np.dtype[Any]) -> type[np.float32] | type[np.float64]:
    """Return the type to draw a dtype in: float64 for 64-bit elements, else float32."""
    return np.float64 if dtype.itemsize == 8 else np.float32


class Percentiles(Protocol):
    """What the mapping asks of a backend."""

    def percentiles(
        self, tiles: npt.NDArray[Any], limits: tuple[float, ...], pooled: bool, threads: int
    ) -> tuple[Float64s, Float64s]:
        """Return two percentiles of each tile, or of all tiles pooled."""


@dataclass(frozen=True)
class Mapping:
    """``level = uint8(trunc(clip((x - shift) * scale + base, 0, 255)))``.

    All three are (channels, slices) float64, one entry per tile.
    """

    shift: Float64s
    scale: Float64s
    base: Float64s


@dataclass(frozen=True)
class Normalization:
    """A named normalisation with its numbers, such as ``percentile(1, 99)``."""

    name: str
    limits: tuple[float, ...] = ()

    @np.errstate(divide="ignore", over="ignore", invalid="ignore")
    def mapping(
        self,
        tiles: npt.NDArray[Any],
        stats: ChannelStats,
        scope: str,
        backend: Percentiles,
        threads: int = 1,
    ) -> Mapping:
        """Return the mapping of `tiles`, (channels, slices, height, width).

        Parameters
        ----------
        stats
            Measured of these tiles, (channels, slices).
        scope
            ``"channel"``: each tile by its own statistics; ``"layer"``: all by those of the whole.
        backend, threads
            What works out percentiles, if it maps by those.
        """
        if scope == "layer":
            stats = stats.pool()
        low, high = stats.min, stats.max
        if self.name == "percentile":
            low, high = backend.percentiles(tiles, self.limits, scope == "layer", threads)
        mapping = Mapping(*self.terms(stats, low, high, drawn_dtype(tiles.dtype)))
        shape = tiles.shape[:2]
        if mapping.shift.shape == shape:
            return mapping
        terms = (mapping.shift, mapping.scale, mapping.base)  # one for the whole layer
        return Mapping(*(np.ascontiguousarray(np.broadcast_to(term, shape)) for term in terms))

    def terms(
        self, stats: ChannelStats, low: Any, high: Any, real: type[np.floating[Any]], xp: Any = np
    ) -> tuple[Any, Any, Any]:
        """Return shift, scale and base by what was measured, in arrays of the same shape.

        Parameters
        ----------
        low, high
            The smallest and the largest value, or the two percentiles if it maps by those.
        real
            The type to draw in.
        xp
            The arrays' module: numpy, or one that has its functions.
        """

        def known(values: Any) -> Any:
            # Of a tile without a finite value no level depends on the mapping.
            return xp.where(xp.isfinite(values), values, 0.0)

        if self.name == "standard":
            shift, span, gain, base = known(stats.mean), stats.std, 64.0, 128.0
        elif self.name == "symmetric":
            shift = xp.zeros_like(low)
            span = xp.maximum(xp.abs(known(low)), xp.abs(known(high)))
            gain, base = 127.5, 128.0
        else:
            if self.name == "range":
                low, high = (xp.zeros_like(low) + limit for limit in self.limits)
            shift, span, gain, base = known(low), known(high) - known(low), 255.0, 0.5
        # What divides by next to nothing must stay finite in the type it is drawn in.
        largest = float(np.finfo(real).max)
        scale = xp.where(span > 0, xp.minimum(gain / span, largest), 0.0)
        # What rounding takes from the shift would be many levels where a channel hardly deviates
        # from its mean: the base makes up for it.
        rounded = xp.asarray(xp.asarray(xp.clip(shift, -largest, largest), real), np.float64)
        return rounded, scale, base - (shift - rounded) * scale


def parse_normalize(value: object) -> Normalization:
    """Return the normalization that a value of the option `normalize` stands for.

    Raises
    ------
    OptionError
        If there is no such normalization, or its limits cannot be used.
    """
    return value if isinstance(value, Normalization) else Normalization(*read_normalize(value))
