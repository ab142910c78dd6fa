"""Statistics of every channel over many images, and which images excite it most."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import write_file
from actgrid.errors import FormatError, MissingFileError, OptionError, ShapeError
from actgrid.figures.grids import batch_size
from actgrid.models import LayerInfo
from actgrid.models.archives import check_zip
from actgrid.option_groups import check_option
from actgrid.option_types import integer_option, number_option
from actgrid.options import StatisticsOptions
from actgrid.rendering import ChannelStats
from actgrid.rendering.backends import load_backend
from actgrid.rendering.stats import arrays_of, reshape_stats, stats_of
from actgrid.rendering.tiles import as_array

__all__ = [
    "NEARLY_DEAD",
    "STATISTICS",
    "DatasetStats",
    "LayerStats",
    "MeasuredLayer",
    "TopImage",
    "image_stats",
    "measure_batch",
    "measured",
]

Array = npt.NDArray[Any]

# A channel that a smaller share of the images activates is nearly dead.
NEARLY_DEAD = 0.01

# The file that a run leaves them in.
STATISTICS = "stats.npz"

_FORMAT = "actgrid dataset statistics 1"
# Values compared at once while a maximum is searched for: they are to stay in the cache.
_BLOCK = 1 << 16
_MOST_AXES = 3  # of the places in an activation: a volume's
# Names kept at least before those that no channel's top has any more are dropped.
_FEW_NAMES = 1024

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


@dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """What one image made of a layer. Made by `measure_batch` or `measured`.

    Attributes
    ----------
    info
        The layer.
    shape
        Of the activation of one image, without the batch axis.
    channels
        Those whose maximum reached the floor, in order: they alone can enter the top.
    """

    info: LayerInfo
    shape: tuple[int, ...]
    channels: npt.NDArray[np.intp]
    # All arrays of the statistics, one under the other, and all axes that a place may have: what
    # many layers have is joined in few steps.
    _values: npt.NDArray[np.float64]
    _size: int
    _places: npt.NDArray[np.int32]

    @property
    def stats(self) -> ChannelStats:
        """Statistics of each channel, (channels,). Each channel of a dense layer has one value."""
        *values, nonfinite = self._values
        return stats_of([*values, nonfinite.astype(np.int64)], self._size)

    @property
    def places(self) -> npt.NDArray[np.int32]:
        """Where the maxima of `channels` are, (len(channels), spatial axes), first in C order.

        (y, x) for an image, (z, y, x) for a volume, (t,) for a sequence, () for a dense layer.
        """
        return self._places[:, : len(self.shape) - 1]


def measure_batch(
    info: LayerInfo,
    activation: Array,
    *,
    batch: int,
    floor: npt.NDArray[np.float64] | None = None,
    threads: int = 1,
    backend: str = "auto",
) -> list[MeasuredLayer]:
    """Measure a layer's activation, image by image, in one call of a backend.

    Parameters
    ----------
    info
        The layer.
    activation
        Its output for a batch, as an extractor gives it.
    batch
        Images in the batch. A layer that gives one output for all of them gives it for each.
    floor
        (channels,): a maximum below it need not be found again in the activation, see
        `DatasetStats.floors`; None finds all.
    threads, backend
        As in `actgrid.render`.

    Returns
    -------
    list
        One for each image.

    Raises
    ------
    ShapeError
        If the activation is empty, or not of the batch.
    """
    values = _of_batch(info, activation, batch)
    stats = _image_stats(info, values, threads, backend)
    found = _located(info, values, stats, floor)
    return found if len(found) == batch else found * batch


def image_stats(
    info: LayerInfo, activation: Array, *, batch: int, threads: int = 1, backend: str = "auto"
) -> ChannelStats:
    """Return the statistics of each channel in each image, (channels, images).

    A layer that gives one output for all images has one column. Pooled over axis 1 they are those
    of all images together. Parameters and errors are those of `measure_batch`.
    """
    return _image_stats(info, _of_batch(info, activation, batch), threads, backend)


def measured(
    info: LayerInfo,
    activation: Array,
    sample: int,
    stats: ChannelStats,
    floor: npt.NDArray[np.float64] | None = None,
) -> MeasuredLayer:
    """Return what `measure_batch` does of one image that was drawn.

    Parameters
    ----------
    sample
        Which image of the batch.
    stats
        Those of the layer's grid.
    """
    values = as_array(activation)
    values = values[sample if len(values) > 1 else 0][None]
    if info.kind == "dense":  # the grid knows only what the channels are together
        stats = _single_values(values.T)
    (found,) = _located(info, values, reshape_stats(stats, -1, 1), floor)
    return found


def _of_batch(info: LayerInfo, activation: Array, batch: int) -> Array:
    """Return an activation, of as many images as there are, or of one for all."""
    values = as_array(activation)
    if 0 in values.shape:
        raise ShapeError(f"layer {info.path}: an activation of {values.shape} is empty")
    if len(values) < batch and len(values) != 1:
        raise ShapeError(f"layer {info.path}: {values.shape} is no activation of {batch} images")
    return values[:batch]


def _image_stats(info: LayerInfo, values: Array, threads: int, backend: str) -> ChannelStats:
    if info.kind == "dense":
        return _single_values(values.T)
    return load_backend(backend).measure(_tiles(values, info), threads)


def _tiles(values: Array, info: LayerInfo) -> Array:
    """Return the activation of a batch as tiles of one image and channel each."""
    tiles = np.moveaxis(values, 1 if info.data_format == "channels_first" else -1, 0)
    channels, batch, *sides = tiles.shape
    if len(sides) == 1:
        return tiles[..., None]
    return tiles.reshape(channels, batch, -1, sides[-1])  # slices one above the other: a view


def _single_values(values: Array) -> ChannelStats:
    """Return the statistics of channels that have one value each."""
    single = values.astype(np.float64)
    finite = np.isfinite(single)
    single[~finite] = np.nan
    zero_fraction = np.where(finite, single == 0, np.nan)
    std = np.where(finite, 0.0, np.nan)
    nonfinite = (~finite).astype(np.int64)
    return ChannelStats(single, std, single, single, zero_fraction, nonfinite, 1)


def _located(
    info: LayerInfo, values: Array, stats: ChannelStats, floor: npt.NDArray[np.float64] | None
) -> list[MeasuredLayer]:
    """Return what was measured of each image; `stats` are of (channels, images)."""
    last = np.moveaxis(values, 1, -1) if info.data_format == "channels_first" else values
    batch, *sides, count = last.shape
    joined = np.ascontiguousarray(np.stack(arrays_of(stats)).transpose(2, 0, 1))
    maxima, alive = stats.max.T, ~stats.dead.T
    images, channels = np.nonzero(maxima >= (-np.inf if floor is None else floor))
    flat = np.zeros(channels.size, np.intp)
    # The maximum of a constant channel is where it begins. Dead ones may be in every image's top.
    search = np.flatnonzero(alive[images, channels])
    if search.size:
        where = images[search], channels[search]
        flat[search] = _first_places(last.reshape(batch, -1, count), *where, maxima[where])
    places = np.full((channels.size, _MOST_AXES), -1, np.int32)
    for axis, indices in enumerate(np.unravel_index(flat, sides) if sides else ()):
        places[:, axis] = indices
    ends = np.searchsorted(images, np.arange(batch + 1))
    return [
        MeasuredLayer(
            info,
            values.shape[1:],
            channels[start:stop],
            joined[image],
            stats.size,
            places[start:stop],
        )
        for image, (start, stop) in enumerate(pairwise(ends.tolist()))
    ]


def _first_places(
    values: Array,
    images: npt.NDArray[np.intp],
    channels: npt.NDArray[np.intp],
    maxima: npt.NDArray[np.float64],
) -> npt.NDArray[np.intp]:
    """Return where in `values`, (images, places, all channels), each maximum is first."""
    found = np.zeros(channels.size, np.intp)
    if values.dtype.kind not in "iu":
        maxima = maxima.astype(values.dtype)  # which it came from
    left = np.arange(channels.size)
    start = 0
    while left.size and start < values.shape[1]:
        # So few places at once that neighbouring channels find them in the cache.
        stop = start + max(1, _BLOCK // left.size)
        hits = values[images[left], start:stop, channels[left]] == maxima[left, None]
        here = hits.any(1)
        found[left[here]] = start + hits[here].argmax(1)
        left = left[~here]
        start = stop
    return found


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


class DatasetStats:
    """Statistics of every channel over a dataset: gathered image by image, merged, saved.

    Neither the order in which images are added nor how they are spread over several of these that
    are merged matters to the result, but for the last digits of means and standard deviations
    (1e-6 relative). Those are merged by the formula of Chan, Golub and LeVeque, *Updating Formulae
    and a Pairwise Algorithm for Computing Sample Variances* (1979), in float64.

    Parameters
    ----------
    top
        How many images to keep for each channel: those with the largest maxima.

    Attributes
    ----------
    images : int
        How many images were added.

    Raises
    ------
    OptionError
        If `top` is not a positive integer.

    Examples
    --------
    >>> extractor = actgrid.Extractor(model, "*conv*")
    >>> stats = actgrid.DatasetStats()
    >>> for names, x in batches:
    ...     stats.update(extractor(x), extractor.layers, names)
    >>> stats.layers["block1_conv1"].dead.sum()
    3
    >>> stats.save("stats.npz")
    """

    def __init__(self, top: int = 9) -> None:
        self._top: int = check_option(StatisticsOptions, "top", top)
        self.images = 0
        self._infos: dict[str, LayerInfo] = {}
        self._names: dict[int, str] = {}
        self._most_names = _FEW_NAMES
        self._start({}, [])

    def _start(self, infos: dict[str, LayerInfo], channels: Sequence[int]) -> None:
        """Begin with the layers, whose channels follow each other in every array."""
        stops = list(accumulate(channels, initial=0))
        self._infos = infos
        self._slices = dict(zip(infos, map(slice, stops, stops[1:]), strict=True))
        total = stops[-1]
        self._values = {name: np.full(total, empty) for name, empty in _EMPTY.items()}
        self._maxima = np.full((total, self._top), -np.inf)
        self._indices = np.full((total, self._top), -1, np.int64)
        self._places = np.full((total, self._top, _MOST_AXES), -1, np.int32)

    def __repr__(self) -> str:
        channels = len(self._maxima)
        return (
            f"<DatasetStats {self.images} images, {len(self._infos)} layers, {channels} channels>"
        )

    @property
    def top(self) -> int:
        """How many images are kept for each channel."""
        return self._top

    @property
    def layers(self) -> dict[str, LayerStats]:
        """What is known of each layer, by layer path, in the order in which the layers run."""
        return {path: self._layer(path) for path in self._infos}

    def _layer(self, path: str) -> LayerStats:
        info, part = self._infos[path], self._slices[path]
        values = {name: array[part].copy() for name, array in self._values.items()}
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
            top_max=self._maxima[part].copy(),
            top_index=self._indices[part].copy(),
            top_place=self._places[part, :, : len(info.shape) - 2].copy(),
            _names=self._names,
        )

    def floors(self, index: int = 0) -> dict[str, npt.NDArray[np.float64]]:
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
        least = self._maxima[:, -1]
        every = np.where(self._indices[:, -1] < index, np.nextafter(least, np.inf), least)
        return {path: every[part] for path, part in self._slices.items()}

    def update(
        self,
        activations: Mapping[str, Array],
        layers: Mapping[str, LayerInfo],
        names: Sequence[str] | None = None,
        *,
        start: int | None = None,
        threads: int = 1,
        backend: str = "auto",
    ) -> None:
        """Add the images of a batch.

        Parameters
        ----------
        activations, layers
            By layer path, as an `Extractor` gives them: what it returns, and its `layers`.
        names
            Of the images; None: their indices, ``"000017"``.
        start
            Index of the first of them; None: they follow those that were added.
        threads, backend
            As in `actgrid.render`.

        Raises
        ------
        OptionError, ShapeError
            If there are more or fewer names than images, or the layers are not those of the
            images before. Both are ValueErrors.
        """
        batch = batch_size(activations) if names is None else len(names)
        first = self.images if start is None else integer_option("start", start, 0)
        if names is None:
            names = [f"{first + sample:06}" for sample in range(batch)]
        elif batch != batch_size(activations):
            raise OptionError(f"{batch} names were given for {batch_size(activations)} images")
        floors = self.floors(first)
        found = [
            measure_batch(
                layers[path],
                activation,
                batch=batch,
                floor=floors.get(path),
                threads=threads,
                backend=backend,
            )
            for path, activation in activations.items()
        ]
        for sample, one in enumerate(zip(*found, strict=True)):
            self.add(first + sample, names[sample], one)

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
        if not self._infos:
            self._start({layer.info.path: layer.info for layer in layers}, list(channels.values()))
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
        mine = {path: part.stop - part.start for path, part in self._slices.items()}
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
        mine = self._values
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
        starts = [part.start for part in self._slices.values()]
        channels = np.concatenate([layer.channels for layer in layers])
        channels += np.repeat(starts, [layer.channels.size for layer in layers])
        places = np.concatenate([layer._places for layer in layers])
        maxima = maxima[channels] + 0.0
        others, indices = self._maxima[channels], self._indices[channels]
        ahead = (others > maxima[:, None]) | ((others == maxima[:, None]) & (indices < index))
        rank = ahead.sum(1)
        entering = np.flatnonzero(rank < self._top)
        if not entering.size:
            return
        channels, rank = channels[entering], rank[entering]
        position = np.arange(self._top)
        # What comes after the newcomer moves one place on.
        source = position - (position > rank[:, None])
        for array, new in (
            (self._maxima, maxima[entering]),
            (self._indices, index),
            (self._places, places[entering]),
        ):
            array[channels] = array[channels[:, None], source]
            array[channels, rank] = new
        self._names[index] = name
        self._drop_names()

    def _drop_names(self, keep: int | None = None) -> None:
        """Forget the names of images that are not at any top, now and then."""
        if len(self._names) > (self._most_names if keep is None else keep):
            wanted = np.unique(self._indices)
            self._names = {index: self._names[index] for index in wanted[wanted >= 0].tolist()}
            self._most_names = max(_FEW_NAMES, 2 * len(self._names))

    def merge(self, other: DatasetStats) -> None:
        """Add all images of other statistics, of other images, in place.

        Raises
        ------
        OptionError
            If the other keeps another number of top images.
        ShapeError
            If its layers are others. Both are ValueErrors.
        """
        if self._top != other._top:
            raise OptionError(
                f"statistics with top={self._top} and with top={other._top} cannot be merged"
            )
        if not other._infos:
            return
        channels = {path: part.stop - part.start for path, part in other._slices.items()}
        if not self._infos:
            self._start(dict(other._infos), list(channels.values()))
        self._check_layers(channels)
        self._combine(other._values, other.images)
        maxima = np.concatenate([self._maxima, other._maxima], 1)
        indices = np.concatenate([self._indices, other._indices], 1)
        places = np.concatenate([self._places, other._places], 1)
        order = np.lexsort((indices, -maxima))[:, : self._top]
        self._maxima = np.take_along_axis(maxima, order, 1)
        self._indices = np.take_along_axis(indices, order, 1)
        self._places = np.take_along_axis(places, order[..., None], 1)
        self._names |= other._names
        self._drop_names()

    def summary(self, share: float = NEARLY_DEAD) -> dict[str, Any]:
        """Return what there is to say in short, for JSON.

        Parameters
        ----------
        share
            A channel that less than this share of the images activates is nearly dead.
        """
        layers = []
        for path, layer in self.layers.items():
            dead, nearly = np.flatnonzero(layer.dead), np.flatnonzero(layer.nearly_dead(share))
            layers.append(
                {
                    "path": path,
                    "type": layer.info.type,
                    "channels": layer.count.size,
                    "dead": dead.size,
                    "nearly_dead": nearly.size,
                    "nonfinite": int(layer.nonfinite.sum()),
                    "dead_channels": dead.tolist(),
                    "nearly_dead_channels": nearly.tolist(),
                }
            )
        totals = {
            name: sum(layer[name] for layer in layers)
            for name in ("channels", "dead", "nearly_dead", "nonfinite")
        }
        return {
            "images": self.images,
            "top": self._top,
            "nearly_dead_share": share,
            "totals": {"layers": len(layers)} | totals,
            "layers": layers,
        }

    def save(self, path: str | Path) -> None:
        """Write everything to a file, whole or not at all; equal statistics make equal files.

        The file is NumPy's ``.npz``, which `numpy.load` reads too: `count`, `mean`, `deviation`
        (the sum of squares), `min`, `max`, `zeros`, `nonfinite`, `activated`, `top_max`,
        `top_index` and `top_place` of the channels of all layers one after the other, and `about`,
        the layers and names as JSON.

        Raises
        ------
        OutputError
            If it cannot be written. Also an OSError.
        """
        write_file(path, self.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> DatasetStats:
        """Return statistics that were saved.

        Parameters
        ----------
        path
            The file, or the folder that a run left it in.

        Raises
        ------
        MissingFileError
            If there is no such file. Also a FileNotFoundError.
        FormatError
            If it holds something else. Also a ValueError.
        """
        path = Path(path)
        if path.is_dir():
            path /= STATISTICS
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise MissingFileError(f"there is no file {path}") from None
        except OSError as error:
            raise FormatError(f"cannot read {path}: {error.strerror or error}") from error
        try:
            return cls.from_bytes(data)
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error

    def to_bytes(self) -> bytes:
        """Return the file that `save` writes."""
        self._drop_names(keep=0)
        about = {
            "format": _FORMAT,
            "images": self.images,
            "layers": [asdict(info) for info in self._infos.values()],
            "channels": [part.stop - part.start for part in self._slices.values()],
            "names": sorted(self._names.items()),
        }
        # As ASCII, in which even file names that are no text can be written.
        encoded = np.frombuffer(json.dumps(about).encode("ascii"), np.uint8)
        buffer = io.BytesIO()
        members: dict[str, Any] = {"about": encoded} | self._values | self._tops()
        # Not compressed, which would take longer than a hundred images.
        np.savez(buffer, **members)
        return buffer.getvalue()

    def _tops(self) -> dict[str, Array]:
        return {"top_max": self._maxima, "top_index": self._indices, "top_place": self._places}

    @classmethod
    def from_bytes(cls, data: bytes) -> DatasetStats:
        """Return what `to_bytes` made bytes of.

        Raises
        ------
        FormatError
            If it is none of that. Also a ValueError.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                check_zip(archive, len(data))
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays: dict[str, Array] = dict(file)
            about = json.loads(arrays["about"].tobytes())
            if about["format"] != _FORMAT:
                raise FormatError(f"of the format {about['format']!r}, not {_FORMAT!r}")
            infos = [
                LayerInfo(**{**info, "shape": tuple(info["shape"])}) for info in about["layers"]
            ]
            if sum(about["channels"]) != len(arrays["top_max"]):
                raise FormatError(f"top_max is not of {sum(about['channels'])} channels")
            stats = cls(arrays["top_max"].shape[1])
            stats._start({info.path: info for info in infos}, about["channels"])
            stats.images = about["images"]
            stats._names = dict(about["names"])
            for name, empty in (stats._values | stats._tops()).items():
                if (arrays[name].shape, arrays[name].dtype) != (empty.shape, empty.dtype):
                    raise FormatError(f"{name} is not of {empty.shape} {empty.dtype}")
            stats._values = {name: arrays[name] for name in stats._values}
            stats._maxima = arrays["top_max"]
            stats._indices, stats._places = arrays["top_index"], arrays["top_place"]
        except (
            *(KeyError, TypeError, ValueError, IndexError, AttributeError, EOFError),
            *(OSError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error),
        ) as error:
            reason = f": {error}" if isinstance(error, FormatError) else ""
            raise FormatError(f"these are no statistics that actgrid saved{reason}") from error
        return stats
