"""Statistics of one layer's channels over many images, and the images with the largest values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from actgrid.models import LayerInfo
from actgrid.option_checks import number_option
from actgrid.rendering.stats import import_pandas

if TYPE_CHECKING:
    import pandas

__all__ = ["NEARLY_DEAD", "LayerStats", "TopImage"]

# A channel that a smaller fraction of the images activates is nearly dead.
NEARLY_DEAD = 0.01

_COLUMNS = ("count", "mean", "std", "min", "max", "zero_fraction", "nonfinite", "activated")


@dataclass(frozen=True)
class TopImage:
    """An image that excites a channel.

    Attributes
    ----------
    index, name
        The image: its place among the inputs, and its name.
    maximum
        The channel's largest finite value.
    place
        Where that is in the activation: (y, x) for an image, (z, y, x) for a volume, (t,) for a
        sequence, () for a dense layer.
    """

    index: int
    name: str
    maximum: float
    place: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class LayerStats:
    """Statistics of a layer's channels over all images, from `DatasetStats.layers`.

    All arrays have an entry for each channel; a channel without a finite value has NaN for
    `mean`, `std`, `min`, `max` and `zero_fraction`.

    Attributes
    ----------
    info
        The layer.
    images
        How many images were seen.
    count
        int64: how many finite values.
    mean, std, min, max
        float64, over the finite values. The standard deviation is the population's (``ddof=0``).
    zero_fraction
        float64: the share of the finite values that are zero, 0 to 1.
    nonfinite
        int64: how many values are NaN or infinite.
    activated
        int64: how many images activate the channel, that is, have a finite value above zero in it.
    top_max, top_index
        (channels, top): the largest maxima that an image has, the largest first, and these images.
        Of equal ones the image with the lower index comes first. -inf and -1 where there are fewer
        images.
    top_place
        (channels, top, spatial axes) int32: where in the activation each of these maxima is.
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
    activated: npt.NDArray[np.int64]
    top_max: npt.NDArray[np.float64]
    top_index: npt.NDArray[np.int64]
    top_place: npt.NDArray[np.int32]
    _names: Mapping[int, str]

    @property
    def dead(self) -> npt.NDArray[np.bool_]:
        """Whether all values of a channel, over all images, are the same finite value."""
        dead: npt.NDArray[np.bool_] = (self.nonfinite == 0) & (self.min == self.max)
        return dead

    def nearly_dead(self, share: float = NEARLY_DEAD) -> npt.NDArray[np.bool_]:
        """Tell which channels are not dead, yet activated by less than this share of the images."""
        share = number_option("share", share, 0, 1)
        nearly: npt.NDArray[np.bool_] = ~self.dead & (self.activated < share * self.images)
        return nearly

    def names(self) -> dict[int, str]:
        """Return the name of each image that excites a channel most, by its index."""
        indices = np.unique(self.top_index)
        return {index: self._names[index] for index in indices[indices >= 0].tolist()}

    def top(self, channel: int) -> list[TopImage]:
        """Return the images that excite a channel most, the one that does most first."""
        return [
            TopImage(index, self._names[index], maximum, tuple(place))
            for index, maximum, place in zip(
                self.top_index[channel].tolist(),
                self.top_max[channel].tolist(),
                self.top_place[channel].tolist(),
                strict=True,
            )
            if index >= 0
        ]

    def to_frame(self) -> pandas.DataFrame:
        """Return a pandas DataFrame with a row for each channel.

        Returns
        -------
        pandas.DataFrame
            The columns are the arrays of this class that have one entry for each channel, and
            ``dead``; the index is ``channel``.

        Raises
        ------
        MissingDependencyError
            If pandas is not installed. Also an ImportError.

        Examples
        --------
        >>> frame = stats.layers["block1_conv1"].to_frame()
        >>> frame.sort_values("zero_fraction").head()
        """
        columns = {name: getattr(self, name) for name in _COLUMNS} | {"dead": self.dead}
        return import_pandas().DataFrame(columns).rename_axis("channel")
