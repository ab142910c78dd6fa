"""Statistics of the channels of all layers while images are added and statistics are merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.models import LayerInfo
from actgrid.statistics.layer_stats import LayerStats
from actgrid.statistics.measurements import MAX_AXES, MeasuredLayer

__all__ = ["Accumulator"]

Array = npt.NDArray[Any]

# Names kept at least before those that no channel's top has any more are dropped.
_MIN_NAMES = 1024

# What is kept of each channel, and what it is while no image was seen.
_EMPTY: dict[str, Any] = {
    "count": np.int64(0),
    "mean": np.float64(0),
    "deviation": np.float64(0),  # the sum of the squared deviations from the mean
    "min": np.float64(np.inf),
    "max": np.float64(-np.inf),
    "zeros": np.int64(0),
    "nonfinite": np.int64(0),
    "activated": np.int64(0),
}


class Accumulator:
    """Arrays with an entry for each channel of all layers, one layer after the other.

    Parameters
    ----------
    top
        Number of top images to keep for each channel.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self.images = 0
        self.infos: dict[str, LayerInfo] = {}
        self.names: dict[int, str] = {}
        self._max_names = _MIN_NAMES
        self.start({}, [])

    def start(self, infos: dict[str, LayerInfo], channels: Sequence[int]) -> None:
        """Begin with the layers, whose channels follow each other in every array."""
        stops = list(accumulate(channels, initial=0))
        self.infos = infos
        self.slices = dict(zip(infos, map(slice, stops, stops[1:]), strict=True))
        total = stops[-1]
        self.values = {name: np.full(total, empty) for name, empty in _EMPTY.items()}
        self.maxima = np.full((total, self.top), -np.inf)
        self.indices = np.full((total, self.top), -1, np.int64)
        self.places = np.full((total, self.top, MAX_AXES), -1, np.int32)

    def layer_stats(self, path: str) -> LayerStats:
        """Return the statistics of a layer."""
        info, part = self.infos[path], self.slices[path]
        values = {name: array[part].copy() for name, array in self.values.items()}
        count = values["count"]
        none = count == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            std = np.sqrt(values["deviation"] / count)
            zero_fraction = values["zeros"] / count
        return LayerStats(
            info=info,
            images=self.images,
            count=count,
            mean=np.where(none, np.nan, values["mean"]),
            std=std,
            min=np.where(none, np.nan, values["min"]),
            max=np.where(none, np.nan, values["max"]),
            zero_fraction=zero_fraction,
            nonfinite=values["nonfinite"],
            activated=values["activated"],
            top_max=self.maxima[part].copy(),
            top_index=self.indices[part].copy(),
            top_place=self.places[part, :, : len(info.shape) - 2].copy(),
            _names=self.names,
        )

    def thresholds(self, index: int = 0) -> dict[str, npt.NDArray[np.float64]]:
        """Return by layer path the least maximum of each channel that can be among the top.

        It only rises: one that was had earlier, or from statistics that these will be merged with,
        holds too, and only makes more work.

        Parameters
        ----------
        index
            The lowest index of the images to come. Where all that are at the top have lower ones,
            an equal maximum does not reach it: worth telling for layers that saturate, as ReLU6.

        Returns
        -------
        dict
            (channels,) float64 each; none of a layer that is not known yet.
        """
        least = self.maxima[:, -1]
        every = np.where(self.indices[:, -1] < index, np.nextafter(least, np.inf), least)
        return {path: every[part] for path, part in self.slices.items()}

    def add(self, index: int, name: str, layers: Sequence[MeasuredLayer]) -> None:
        """Add one image.

        Parameters
        ----------
        index
            Its place among the inputs, from 0.
        name
            What reports call it.
        layers
            What was measured of it: the same layers for every image.

        Raises
        ------
        ShapeError
            If the layers are not those of the images before. Also a ValueError.
        """
        channels = {layer.info.path: layer._values.shape[1] for layer in layers}
        if not self.infos:
            self.start({layer.info.path: layer.info for layer in layers}, list(channels.values()))
        self._check_layers(channels)
        mean, std, low, high, zero_fraction, nonfinite = np.concatenate(
            [layer._values for layer in layers], 1
        )
        count = np.repeat([layer._size for layer in layers], list(channels.values())) - nonfinite
        none = count == 0
        some = {
            "count": count.astype(np.int64),
            "mean": np.where(none, 0, mean),
            "deviation": np.where(none, 0, std**2 * count),
            "min": np.where(none, np.inf, low),
            "max": np.where(none, -np.inf, high),
            "zeros": np.rint(np.where(none, 0, zero_fraction * count)).astype(np.int64),
            "nonfinite": nonfinite.astype(np.int64),
            "activated": high > 0,
        }
        self._combine(some, 1)
        self._enter(index, name, layers, some["max"])

    def _check_layers(self, channels: Mapping[str, int]) -> None:
        """Raise ShapeError unless layers, in their order, have the channels of those here."""
        mine = {path: part.stop - part.start for path, part in self.slices.items()}
        if list(mine.items()) == list(channels.items()):
            return
        for path in [*mine, *channels]:
            if path not in channels or path not in mine:
                here, there = ("with", "without") if path in mine else ("without", "with")
                raise ShapeError(
                    f"these statistics are {here} layer {path}, what is added is {there} it"
                )
            if mine[path] != channels[path]:
                raise ShapeError(
                    f"layer {path} has {mine[path]} channels here, {channels[path]} in what is "
                    "added"
                )
        raise ShapeError("the layers added are those of these statistics in another order")

    def _combine(self, other: Mapping[str, Array], images: int) -> None:
        """Add the images that values of each channel are of."""
        mine = self.values
        both = mine["count"] + other["count"]
        share = other["count"] / np.maximum(both, 1)
        apart = other["mean"] - mine["mean"]
        with np.errstate(over="ignore"):
            mine["deviation"] += other["deviation"] + apart**2 * (mine["count"] * share)
        mine["mean"] += apart * share
        # Adding 0 leaves no -0, which would come and go with the order.
        mine["min"] = np.minimum(mine["min"], other["min"]) + 0.0
        mine["max"] = np.maximum(mine["max"], other["max"]) + 0.0
        for name in ("count", "zeros", "nonfinite", "activated"):
            mine[name] += other[name]
        self.images += images

    def _enter(
        self,
        index: int,
        name: str,
        layers: Sequence[MeasuredLayer],
        maxima: npt.NDArray[np.float64],
    ) -> None:
        """Put an image where it belongs among the top of each channel."""
        starts = [part.start for part in self.slices.values()]
        channels = np.concatenate([layer.channels for layer in layers])
        channels += np.repeat(starts, [layer.channels.size for layer in layers])
        places = np.concatenate([layer._places for layer in layers])
        maxima = maxima[channels] + 0.0
        others, indices = self.maxima[channels], self.indices[channels]
        ahead = (others > maxima[:, None]) | ((others == maxima[:, None]) & (indices < index))
        rank = ahead.sum(1)
        entering = np.flatnonzero(rank < self.top)
        if not entering.size:
            return
        channels, rank = channels[entering], rank[entering]
        position = np.arange(self.top)
        # What comes after the newcomer moves one place on.
        source = position - (position > rank[:, None])
        for array, new in (
            (self.maxima, maxima[entering]),
            (self.indices, index),
            (self.places, places[entering]),
        ):
            array[channels] = array[channels[:, None], source]
            array[channels, rank] = new
        self.names[index] = name
        self.drop_names()

    def drop_names(self, keep: int | None = None) -> None:
        """Forget the names of images that are not at any top, now and then."""
        if len(self.names) > (self._max_names if keep is None else keep):
            wanted = np.unique(self.indices)
            self.names = {index: self.names[index] for index in wanted[wanted >= 0].tolist()}
            self._max_names = max(_MIN_NAMES, 2 * len(self.names))

    def merge(self, other: Accumulator) -> None:
        """Add all images of other statistics, of other images, in place.

        Raises
        ------
        OptionError
            If the other keeps another number of top images.
        ShapeError
            If its layers are others. Both are ValueErrors.
        """
        if self.top != other.top:
            raise OptionError(
                f"statistics with top={self.top} and with top={other.top} cannot be merged"
            )
        if not other.infos:
            return
        channels = {path: part.stop - part.start for path, part in other.slices.items()}
        if not self.infos:
            self.start(dict(other.infos), list(channels.values()))
        self._check_layers(channels)
        self._combine(other.values, other.images)
        maxima = np.concatenate([self.maxima, other.maxima], 1)
        indices = np.concatenate([self.indices, other.indices], 1)
        places = np.concatenate([self.places, other.places], 1)
        order = np.lexsort((indices, -maxima))[:, : self.top]
        self.maxima = np.take_along_axis(maxima, order, 1)
        self.indices = np.take_along_axis(indices, order, 1)
        self.places = np.take_along_axis(places, order[..., None], 1)
        self.names |= other.names
        self.drop_names()

    def tops(self) -> dict[str, Array]:
        """Return the arrays of the top images by the names in a saved file."""
        return {"top_max": self.maxima, "top_index": self.indices, "top_place": self.places}
