"""Accumulate and merge statistics of the channels of all layers."""

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

# Number of stored image names below which unused names are not removed.
_MIN_NAMES = 1024

# Accumulated values of a channel, and their initial values.
_INITIAL_VALUES: dict[str, Any] = {
    "count": np.int64(0),
    "mean": np.float64(0),
    "m2": np.float64(0),  # sum of squared deviations from the mean (Welford; Chan et al.)
    "min": np.float64(np.inf),
    "max": np.float64(-np.inf),
    "zeros": np.int64(0),
    "nonfinite": np.int64(0),
    "activating_images": np.int64(0),
}


class Accumulator:
    """Statistics of the channels of all layers over images, updated image by image.

    Each statistic is one array over the channels of all layers, concatenated.

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
        """Initialize the arrays of the accumulator for layers.

        Parameters
        ----------
        infos
            Layer path -> `LayerInfo`.
        channels
            Number of channels of each layer.
        """
        stops = list(accumulate(channels, initial=0))
        self.infos = infos
        self.slices = dict(zip(infos, map(slice, stops, stops[1:]), strict=True))
        total = stops[-1]
        self.values = {name: np.full(total, value) for name, value in _INITIAL_VALUES.items()}
        self.maxima = np.full((total, self.top), -np.inf)
        self.indices = np.full((total, self.top), -1, np.int64)
        self.positions = np.full((total, self.top, MAX_AXES), -1, np.int32)

    def compute_layer_stats(self, path: str) -> LayerStats:
        """Return the statistics of a layer over all images added to the accumulator."""
        info, part = self.infos[path], self.slices[path]
        values = {name: array[part].copy() for name, array in self.values.items()}
        count = values["count"]
        is_empty = count == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            std = np.sqrt(values["m2"] / count)
            zero_fraction = values["zeros"] / count
        return LayerStats(
            info=info,
            images=self.images,
            count=count,
            mean=np.where(is_empty, np.nan, values["mean"]),
            std=std,
            min=np.where(is_empty, np.nan, values["min"]),
            max=np.where(is_empty, np.nan, values["max"]),
            zero_fraction=zero_fraction,
            nonfinite=values["nonfinite"],
            activating_images=values["activating_images"],
            top_max=self.maxima[part].copy(),
            top_index=self.indices[part].copy(),
            top_position=self.positions[part, :, : len(info.shape) - 2].copy(),
            _names=self.names,
        )

    def thresholds(self, index: int = 0) -> dict[str, npt.NDArray[np.float64]]:
        """Return the smallest maximum that still enters the top images of each channel.

        Thresholds only increase. An earlier threshold, or one from statistics that will be merged
        with these, is therefore also valid.

        Parameters
        ----------
        index
            Lowest index of the images that will be added. If all top images have lower indices, an
            equal maximum does not enter. This matters for layers that saturate, such as ReLU6.

        Returns
        -------
        dict
            Layer path -> (channels,) float64; without layers that were not added yet.
        """
        minima = self.maxima[:, -1]
        thresholds = np.where(self.indices[:, -1] < index, np.nextafter(minima, np.inf), minima)
        return {path: thresholds[part] for path, part in self.slices.items()}

    def add(self, index: int, name: str, layers: Sequence[MeasuredLayer]) -> None:
        """Add the measurements of one image to the accumulated statistics.

        Parameters
        ----------
        index
            Position of the image among the inputs, from 0.
        name
            Name of the image in reports.
        layers
            Measurements of its layers: the same layers for every image.

        Raises
        ------
        ShapeError
            If the layers differ from those of earlier images. Also a ValueError.
        """
        channels = {layer.info.path: layer._values.shape[1] for layer in layers}
        if not self.infos:
            self.start({layer.info.path: layer.info for layer in layers}, list(channels.values()))
        self._check_layers(channels)
        mean, std, low, high, zero_fraction, nonfinite = np.concatenate(
            [layer._values for layer in layers], 1
        )
        count = np.repeat([layer._size for layer in layers], list(channels.values())) - nonfinite
        is_empty = count == 0
        values = {
            "count": count.astype(np.int64),
            "mean": np.where(is_empty, 0, mean),
            "m2": np.where(is_empty, 0, std**2 * count),
            "min": np.where(is_empty, np.inf, low),
            "max": np.where(is_empty, -np.inf, high),
            "zeros": np.rint(np.where(is_empty, 0, zero_fraction * count)).astype(np.int64),
            "nonfinite": nonfinite.astype(np.int64),
            "activating_images": high > 0,
        }
        self._add_values(values, 1)
        self._insert_top_image(index, name, layers, values["max"])

    def _check_layers(self, channels: Mapping[str, int]) -> None:
        """Raise ShapeError unless added data have the layers of the accumulator.

        Parameters
        ----------
        channels
            Layer path -> number of channels of the added data. Layers, order and numbers must be
            equal.
        """
        own = {path: part.stop - part.start for path, part in self.slices.items()}
        if list(own.items()) == list(channels.items()):
            return
        for path in [*own, *channels]:
            if path not in channels or path not in own:
                own_word, added_word = ("", "not ") if path in own else ("not ", "")
                raise ShapeError(
                    f"layer {path} is {own_word}in these statistics, and {added_word}in the added "
                    "data"
                )
            if own[path] != channels[path]:
                raise ShapeError(
                    f"layer {path} has {own[path]} channels in these statistics, "
                    f"{channels[path]} in the added data"
                )
        raise ShapeError("the added data has the layers of these statistics in another order")

    def _add_values(self, other: Mapping[str, Array], images: int) -> None:
        """Merge the statistics of further images into those of the accumulator.

        Parameters
        ----------
        other
            Name of a statistic -> array over the channels of all layers.
        images
            Number of the further images.
        """
        own = self.values
        count = own["count"] + other["count"]
        fraction = other["count"] / np.maximum(count, 1)
        delta = other["mean"] - own["mean"]
        with np.errstate(over="ignore"):
            own["m2"] += other["m2"] + delta**2 * (own["count"] * fraction)
        own["mean"] += delta * fraction
        # Adding 0 converts -0 to 0; otherwise the sign would depend on the order.
        own["min"] = np.minimum(own["min"], other["min"]) + 0.0
        own["max"] = np.maximum(own["max"], other["max"]) + 0.0
        for name in ("count", "zeros", "nonfinite", "activating_images"):
            own[name] += other[name]
        self.images += images

    def _insert_top_image(
        self,
        index: int,
        name: str,
        layers: Sequence[MeasuredLayer],
        maxima: npt.NDArray[np.float64],
    ) -> None:
        """Insert an image into the top images of each channel, sorted by maximum.

        Parameters
        ----------
        index
            Index of the image.
        name
            Name of the image.
        layers
            Measurements of the image, which name the channels to update.
        maxima
            Maximum of each channel of all layers.
        """
        starts = [part.start for part in self.slices.values()]
        channels = np.concatenate([layer.channels for layer in layers])
        channels += np.repeat(starts, [layer.channels.size for layer in layers])
        positions = np.concatenate([layer._positions for layer in layers])
        maxima = maxima[channels] + 0.0
        others, indices = self.maxima[channels], self.indices[channels]
        is_ahead = (others > maxima[:, None]) | ((others == maxima[:, None]) & (indices < index))
        rank = is_ahead.sum(1)
        selected = np.flatnonzero(rank < self.top)
        if not selected.size:
            return
        channels, rank = channels[selected], rank[selected]
        ranks = np.arange(self.top)
        # The images after the new image move to the next rank.
        source = ranks - (ranks > rank[:, None])
        for array, new in (
            (self.maxima, maxima[selected]),
            (self.indices, index),
            (self.positions, positions[selected]),
        ):
            array[channels] = array[channels[:, None], source]
            array[channels, rank] = new
        self.names[index] = name
        self.drop_names()

    def drop_names(self, max_names: int | None = None) -> None:
        """Remove the names of images that are no longer top images of any channel.

        Parameters
        ----------
        max_names
            Number of stored names up to which nothing is removed. None: a number that grows with
            the number of top images.
        """
        if len(self.names) > (self._max_names if max_names is None else max_names):
            used = np.unique(self.indices)
            self.names = {index: self.names[index] for index in used[used >= 0].tolist()}
            self._max_names = max(_MIN_NAMES, 2 * len(self.names))

    def merge(self, other: Accumulator) -> None:
        """Merge the statistics of an accumulator of other images into this accumulator.

        Raises
        ------
        OptionError
            If the other statistics have a different `top`.
        ShapeError
            If the other statistics have different layers. Both are ValueErrors.
        """
        if self.top != other.top:
            raise OptionError(
                f"statistics with top={self.top} and top={other.top} cannot be merged"
            )
        if not other.infos:
            return
        channels = {path: part.stop - part.start for path, part in other.slices.items()}
        if not self.infos:
            self.start(dict(other.infos), list(channels.values()))
        self._check_layers(channels)
        self._add_values(other.values, other.images)
        maxima = np.concatenate([self.maxima, other.maxima], 1)
        indices = np.concatenate([self.indices, other.indices], 1)
        positions = np.concatenate([self.positions, other.positions], 1)
        order = np.lexsort((indices, -maxima))[:, : self.top]
        self.maxima = np.take_along_axis(maxima, order, 1)
        self.indices = np.take_along_axis(indices, order, 1)
        self.positions = np.take_along_axis(positions, order[..., None], 1)
        self.names |= other.names
        self.drop_names()

    def get_top_arrays(self) -> dict[str, Array]:
        """Return the arrays of the top images of all channels.

        Returns
        -------
        dict
            Name of the array in a saved file -> array.
        """
        return {"top_max": self.maxima, "top_index": self.indices, "top_position": self.positions}
