"""Statistics of the channels of an activation."""

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
    "assign_stats",
    "get_named_arrays",
    "import_pandas",
    "list_stat_arrays",
    "make_stats",
    "reshape_stats",
]

_ARRAYS = ("mean", "std", "min", "max", "zero_fraction", "nonfinite")


@dataclass(frozen=True, eq=False)
class ChannelStats:
    """Record of statistics over the finite values of each channel of an activation.

    All arrays have the same shape: (channels,) in `Grid.stats`, where entry c is channel c of the
    activation, whichever channels are drawn and in whatever order. A channel without finite values
    has NaN in every array except `nonfinite`.

    Parameters
    ----------
    mean : numpy.ndarray
        Means, float64.
    std : numpy.ndarray
        Population standard deviations (``ddof=0``), float64.
    min : numpy.ndarray
        Smallest values, float64.
    max : numpy.ndarray
        Largest values, float64.
    zero_fraction : numpy.ndarray
        Fractions of the finite values that are zero, 0 to 1, float64.
    nonfinite : numpy.ndarray
        Numbers of values that are NaN or infinite, int64.
    size : int
        Number of values of each channel, finite or not.

    Examples
    --------
    >>> stats = actgrid.render(np.array([[[0.0, 1.0], [0.0, 3.0]]])).stats
    >>> stats.mean
    array([0., 2.])
    >>> stats.dead
    array([ True, False])
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
        """Mask of the dead channels, bool: all their values are the same finite value."""
        dead: npt.NDArray[np.bool_] = (self.nonfinite == 0) & (self.min == self.max)
        return dead

    def pool(self, axis: int | tuple[int, ...] | None = None) -> ChannelStats:
        """Pool the statistics of several entries, as if their values were one channel.

        Parameters
        ----------
        axis : int or tuple of int, optional
            Axes of the arrays to pool over. Pooled axes keep length 1. None pools all entries into
            one.

        Returns
        -------
        ChannelStats
            The pooled statistics.
        """
        finite = self.size - self.nonfinite
        has_finite = finite > 0

        def weighted_sum(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
            result: npt.NDArray[np.float64] = np.sum(
                values * finite, axis, where=has_finite, keepdims=True
            )
            return result

        count = np.sum(finite, axis, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            mean = weighted_sum(self.mean) / count
            std = np.sqrt(weighted_sum(self.std**2 + (self.mean - mean) ** 2) / count)
            zero_fraction = weighted_sum(self.zero_fraction) / count
        low = np.min(self.min, axis, where=has_finite, initial=np.inf, keepdims=True)
        high = np.max(self.max, axis, where=has_finite, initial=-np.inf, keepdims=True)
        # Equal constants pool to that constant, with an exact standard deviation of 0.
        is_constant = low == high
        return ChannelStats(
            mean=np.where(is_constant, low, mean),
            std=np.where(is_constant, 0.0, std),
            min=np.where(count > 0, low, np.nan),
            max=np.where(count > 0, high, np.nan),
            zero_fraction=zero_fraction,
            nonfinite=np.sum(self.nonfinite, axis, keepdims=True),
            size=self.size * (self.mean.size // count.size),
        )

    def to_dict(self) -> dict[str, Any]:
        """Convert the channel statistics to lists that can be written as JSON.

        Returns
        -------
        dict of {str: list}
            Attribute name -> values, with None for NaN and infinities. ``"dead"`` lists the indices
            of the dead channels.
        """

        def convert(values: npt.NDArray[Any]) -> list[Any]:
            numbers: list[Any] = values.tolist()
            if np.isfinite(values).all():
                return numbers
            return [value if math.isfinite(value) else None for value in numbers]

        return {name: convert(values) for name, values in get_named_arrays(self).items()}

    def to_frame(self) -> pandas.DataFrame:
        """Convert the statistics to a pandas DataFrame with one row per channel.

        Returns
        -------
        pandas.DataFrame
            The columns are the arrays of this class and ``dead``; the index is ``channel``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.

        Examples
        --------
        >>> stats = actgrid.render(np.zeros((4, 4, 2))).stats
        >>> int(stats.to_frame()["dead"].sum())
        2
        """
        columns = {
            name: values.reshape(-1) for name, values in _get_contiguous_arrays(self).items()
        }
        frame = import_pandas().DataFrame(columns | {"dead": self.dead.reshape(-1)})
        return frame.rename_axis("channel")


def make_stats(arrays: Iterable[npt.NDArray[Any]], size: int) -> ChannelStats:
    """Create `ChannelStats` from arrays in the order of its attributes.

    Parameters
    ----------
    arrays
        mean, std, min, max, zero_fraction and nonfinite.
    size
        Number of values of each channel.
    """
    mean, std, low, high, zero_fraction, nonfinite = arrays
    return ChannelStats(mean, std, low, high, zero_fraction, nonfinite, size)


def list_stat_arrays(stats: ChannelStats) -> list[npt.NDArray[Any]]:
    """Return the arrays of a `ChannelStats` in the order of its attributes."""
    return [getattr(stats, name) for name in _ARRAYS]


def reshape_stats(stats: ChannelStats, *shape: int) -> ChannelStats:
    """Reshape all arrays of a `ChannelStats` to one shape, as `numpy.reshape` does."""
    return make_stats((values.reshape(shape) for values in list_stat_arrays(stats)), stats.size)


def assign_stats(stats: ChannelStats, index: tuple[int, ...], other: ChannelStats) -> None:
    """Copy the statistics of a single channel into arrays of statistics.

    Parameters
    ----------
    stats
        Statistics whose arrays are changed.
    index
        Position in these arrays.
    other
        Statistics whose arrays have one element.
    """
    for target, source in zip(list_stat_arrays(stats), list_stat_arrays(other), strict=True):
        target[index] = source.item()


def get_named_arrays(stats: ChannelStats) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a `ChannelStats` by name.

    The additional entry ``"dead"`` contains the indices of the dead channels.
    """
    return _get_contiguous_arrays(stats) | {"dead": np.flatnonzero(stats.dead)}


def import_pandas() -> Any:
    """Import and return the module pandas.

    Returns
    -------
    module
        pandas.

    Raises
    ------
    MissingDependencyError
        If pandas is not installed. Also an ImportError.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise MissingDependencyError(
            f"to_frame needs pandas, which is not installed ({error}); to install it, "
            "pip install 'actgrid[pandas]'"
        ) from error


def _get_contiguous_arrays(stats: ChannelStats) -> dict[str, npt.NDArray[Any]]:
    return dict(zip(_ARRAYS, map(np.ascontiguousarray, list_stat_arrays(stats)), strict=True))
