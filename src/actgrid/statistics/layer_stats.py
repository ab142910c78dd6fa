"""Statistics of the channels of a layer over many images, with their top images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from actgrid.models import LayerInfo
from actgrid.option_checks import check_number
from actgrid.rendering.stats import import_pandas

if TYPE_CHECKING:
    import pandas

__all__ = ["NEARLY_DEAD", "LayerStats", "TopImage"]

# A channel is nearly dead if a smaller fraction of the images activates it.
NEARLY_DEAD = 0.01

_COLUMNS = (
    *("count", "mean", "std", "min", "max", "zero_fraction"),
    *("nonfinite", "activating_images"),
)


@dataclass(frozen=True)
class TopImage:
    """Record of one of the images that activate a channel most.

    Parameters
    ----------
    index : int
        Position of the image among the inputs, from 0.
    name : str
        Name of the image.
    maximum : float
        Largest finite value of the channel in this image.
    position : tuple of int
        Position of the maximum in the activation: (y, x) for an image, (z, y, x) for a volume,
        (t,) for a sequence, () for a dense layer.

    Examples
    --------
    >>> from actgrid.statistics import TopImage
    >>> TopImage(index=3, name="cat.jpg", maximum=2.5, position=(4, 7)).maximum
    2.5
    """

    index: int
    name: str
    maximum: float
    position: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerStats:
    """Record of the statistics of a layer's channels over many images.

    All arrays have an entry for each channel. A channel without finite values has NaN in `mean`,
    `std`, `min`, `max` and `zero_fraction`.

    Parameters
    ----------
    info : LayerInfo
        The layer.
    images : int
        Number of images.
    count : numpy.ndarray
        (channels,) int64: number of finite values.
    mean : numpy.ndarray
        (channels,) float64: mean of the finite values.
    std : numpy.ndarray
        (channels,) float64: population standard deviation (``ddof=0``) of the finite values.
    min : numpy.ndarray
        (channels,) float64: minimum of the finite values.
    max : numpy.ndarray
        (channels,) float64: maximum of the finite values.
    zero_fraction : numpy.ndarray
        (channels,) float64, 0 to 1: fraction of zeros among the finite values.
    nonfinite : numpy.ndarray
        (channels,) int64: number of NaN and infinite values.
    activating_images : numpy.ndarray
        (channels,) int64: number of images that activate the channel, that is, have a finite value
        greater than zero in it.
    top_max : numpy.ndarray
        (channels, top) float64: the largest maxima of an image, sorted, largest first; -inf if
        there are fewer images.
    top_index : numpy.ndarray
        (channels, top) int64: indices of these images; -1 if there are fewer images. Of images with
        equal maxima, the lower index comes first.
    top_position : numpy.ndarray
        (channels, top, spatial axes) int32: position of each maximum in the activation.
    _names : dict
        Image index -> name.

    Examples
    --------
    >>> x = np.zeros((1, 4, 4, 2), np.float32)
    >>> x[..., 0] = np.arange(16).reshape(4, 4)
    >>> shape = (None, 4, 4, 2)
    >>> info = actgrid.LayerInfo("conv", "Conv2D", shape, "float32", "channels_last", 0, 0)
    >>> stats = actgrid.DatasetStats()
    >>> stats.update({"conv": x}, {"conv": info})
    >>> stats.layers["conv"].max
    array([15.,  0.])
    >>> stats.layers["conv"].dead
    array([False,  True])
    """

    info: LayerInfo
    images: int
    count: npt.NDArray[np.int64]
    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    min: npt.NDArray[np.float64]
    max: npt.NDArray[np.float64]
    zero_fraction: npt.NDArray[np.float64]
    nonfinite: npt.NDArray[np.int64]
    activating_images: npt.NDArray[np.int64]
    top_max: npt.NDArray[np.float64]
    top_index: npt.NDArray[np.int64]
    top_position: npt.NDArray[np.int32]
    _names: Mapping[int, str]

    @property
    def dead(self) -> npt.NDArray[np.bool_]:
        """Return a mask of the channels with the same finite value in all images.

        Returns
        -------
        numpy.ndarray
            (channels,) bool.
        """
        dead: npt.NDArray[np.bool_] = (self.nonfinite == 0) & (self.min == self.max)
        return dead

    def find_nearly_dead(self, fraction: float = NEARLY_DEAD) -> npt.NDArray[np.bool_]:
        """Find the channels that few images activate, without the dead channels.

        Parameters
        ----------
        fraction : float
            A channel is nearly dead if less than this fraction of the images activates it, 0 to 1.

        Returns
        -------
        numpy.ndarray
            (channels,) bool.

        Raises
        ------
        OptionError
            If `fraction` is not a number from 0 to 1. Also a ValueError.
        """
        fraction = check_number("fraction", fraction, 0, 1)
        is_nearly_dead: npt.NDArray[np.bool_] = ~self.dead & (
            self.activating_images < fraction * self.images
        )
        return is_nearly_dead

    def get_names(self) -> dict[int, str]:
        """Return the names of all top images of the layer.

        Returns
        -------
        dict
            Image index -> name.
        """
        indices = np.unique(self.top_index)
        return {index: self._names[index] for index in indices[indices >= 0].tolist()}

    def get_top_images(self, channel: int) -> list[TopImage]:
        """Return the images that activate a channel most, largest maximum first.

        Parameters
        ----------
        channel : int
            Index of the channel.

        Returns
        -------
        list of TopImage
            At most `DatasetStats.top` images.
        """
        return [
            TopImage(index, self._names[index], maximum, tuple(position))
            for index, maximum, position in zip(
                self.top_index[channel].tolist(),
                self.top_max[channel].tolist(),
                self.top_position[channel].tolist(),
                strict=True,
            )
            if index >= 0
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Convert the statistics to a pandas DataFrame with a row for each channel.

        Returns
        -------
        pandas.DataFrame
            Columns: the one-dimensional arrays of this class, and ``dead``. Index: ``channel``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.
        """
        columns = {name: getattr(self, name) for name in _COLUMNS} | {"dead": self.dead}
        return import_pandas().DataFrame(columns).rename_axis("channel")
