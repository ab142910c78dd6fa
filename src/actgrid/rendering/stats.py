"""What is measured of each channel."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import MissingDependencyError

if TYPE_CHECKING:
    import pandas

__all__ = [
    "ChannelStats",
    "arrays_of",
    "assign_stats",
    "import_pandas",
    "named_arrays",
    "reshape_stats",
    "stats_of",
]

_ARRAYS = ("mean", "std", "min", "max", "zero_fraction", "nonfinite")


@dataclass(frozen=True, eq=False)
class ChannelStats:
    """Statistics over the finite values of each channel.

    All arrays have one shape: (channels,) in `Grid.stats`, where entry c is channel c of the
    activation, whichever channels are drawn and in whatever order. A channel with no finite value
    has NaN for everything but `nonfinite`.

    Attributes
    ----------
    mean, std, min, max
        float64. The standard deviation is the population's (``ddof=0``).
    zero_fraction
        float64: the share of the finite values that are zero, 0 to 1.
    nonfinite
        int64: how many values are NaN or infinite.
    size
        int: how many values each channel has, finite or not.

    Examples
    --------
    >>> grid = actgrid.render(np.zeros((4, 4, 2)))
    >>> grid.stats.dead
    array([ True,  True])
    """

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    min: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    zero_fraction: npt.NDArray[np.float64]
    nonfinite: npt.NDArray[np.int64]
    size: int

    @property
    def dead(self) -> npt.NDArray[np.bool_]:
        """Whether all values of a channel are the same finite value (for ReLU: zero)."""
        dead: npt.NDArray[np.bool_] = (self.nonfinite == 0) & (self.min == self.max)
        return dead

    def pool(self, axis: int | tuple[int, ...] | None = None) -> ChannelStats:
        """Return the statistics of the values of several entries taken together.

        Parameters
        ----------
        axis
            The axes of entries to pool; None pools all into one. Pooled axes stay, with length 1.
        """
        finite = self.size - self.nonfinite
        has = finite > 0

        def total(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
            summed: npt.NDArray[np.float64] = np.sum(
                values * finite, axis, where=has, keepdims=True
            )
            return summed

        count = np.sum(finite, axis, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean = total(self.mean) / count
            std = np.sqrt(total(self.std**2 + (self.mean - mean) ** 2) / count)
            zero_fraction = total(self.zero_fraction) / count
        low = np.min(self.min, axis, where=has, initial=np.inf, keepdims=True)
        high = np.max(self.max, axis, where=has, initial=-np.inf, keepdims=True)
        # Equal constants pool to that constant, without a deviation of the rounding's size.
        constant = low == high
        return ChannelStats(
            mean=np.where(constant, low, mean),
            std=np.where(constant, 0.0, std),
            min=np.where(count > 0, low, np.nan),
            max=np.where(count > 0, high, np.nan),
            zero_fraction=zero_fraction,
            nonfinite=np.sum(self.nonfinite, axis, keepdims=True),
            size=self.size * (self.mean.size // count.size),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists for JSON; None stands for NaN and infinities."""

        def plain(values: npt.NDArray[Any]) -> list[Any]:
            listed: list[Any] = values.tolist()
            if np.isfinite(values).all():
                return listed
            return [value if math.isfinite(value) else None for value in listed]

        return {name: plain(values) for name, values in named_arrays(self).items()}

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each channel.

        Returns
        -------
        pandas.DataFrame
            The columns are the arrays of this class, and ``dead``; the index is ``channel``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.

        Examples
        --------
        >>> actgrid.render(np.zeros((4, 4, 2))).stats.to_frame()["dead"].sum()
        2
        """
        columns = {name: values.reshape(-1) for name, values in _by_name(self).items()}
        frame = import_pandas().DataFrame(columns | {"dead": self.dead.reshape(-1)})
        return frame.rename_axis("channel")


def stats_of(arrays: Iterable[npt.NDArray[Any]], size: int) -> ChannelStats:
    """Return statistics made of arrays in the order of the attributes."""
    mean, std, low, high, zero_fraction, nonfinite = arrays
    return ChannelStats(mean, std, low, high, zero_fraction, nonfinite, size)


def arrays_of(stats: ChannelStats) -> list[npt.NDArray[Any]]:
    """Return the arrays of statistics in the order of the attributes."""
    return [getattr(stats, name) for name in _ARRAYS]


def reshape_stats(stats: ChannelStats, *shape: int) -> ChannelStats:
    """Return the same entries in another shape, as `numpy.reshape` would."""
    return stats_of((values.reshape(shape) for values in arrays_of(stats)), stats.size)


def assign_stats(stats: ChannelStats, index: tuple[int, ...], other: ChannelStats) -> None:
    """Put the one entry of `other` at `index` of the arrays of `stats`."""
    for mine, theirs in zip(arrays_of(stats), arrays_of(other), strict=True):
        mine[index] = theirs.item()


def named_arrays(stats: ChannelStats) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays by the names of the attributes, and the dead channels as ``"dead"``."""
    return _by_name(stats) | {"dead": np.flatnonzero(stats.dead)}


def import_pandas() -> Any:
    """Return the module pandas.

    Raises
    ------
    MissingDependencyError
        If it is not installed. Also an ImportError.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise MissingDependencyError(
            f"to_frame needs pandas, which is not installed ({error}); to get it, "
            "pip install 'actgrid[pandas]'"
        ) from error


def _by_name(stats: ChannelStats) -> dict[str, npt.NDArray[Any]]:
    return dict(zip(_ARRAYS, map(np.ascontiguousarray, arrays_of(stats)), strict=True))
