"""What one batch of images makes of a layer's channels: statistics, and where the maxima are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import ShapeError
from actgrid.models import LayerInfo
from actgrid.rendering import ChannelStats
from actgrid.rendering.backends import load_backend
from actgrid.rendering.stats import arrays_of, reshape_stats, stats_of
from actgrid.rendering.tiles import as_array

__all__ = ["MAX_AXES", "MeasuredLayer", "image_stats", "measure_batch", "measure_sample"]

Array = npt.NDArray[Any]

# Spatial axes of an activation: a volume's.
MAX_AXES = 3
# Values compared at once while a maximum is searched for: they are to stay in the cache.
_BLOCK = 1 << 16


@dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """What one image made of a layer. Made by `measure_batch` or `measure_sample`.

    Attributes
    ----------
    info
        The layer.
    shape
        Of the activation of one image, without the batch axis.
    channels
        Those whose maximum reached the threshold, in order: they alone can enter the top.
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
    threshold: npt.NDArray[np.float64] | None = None,
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
    threshold
        (channels,): a maximum below it need not be found again in the activation, see
        `Accumulator.thresholds`; None finds all.
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
    found = _located(info, values, stats, threshold)
    return found if len(found) == batch else found * batch


def image_stats(
    info: LayerInfo, activation: Array, *, batch: int, threads: int = 1, backend: str = "auto"
) -> ChannelStats:
    """Return the statistics of each channel in each image, (channels, images).

    A layer that gives one output for all images has one column. Pooled over axis 1 they are those
    of all images together. Parameters and errors are those of `measure_batch`.
    """
    return _image_stats(info, _of_batch(info, activation, batch), threads, backend)


def measure_sample(
    info: LayerInfo,
    activation: Array,
    sample: int,
    stats: ChannelStats,
    threshold: npt.NDArray[np.float64] | None = None,
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
    (found,) = _located(info, values, reshape_stats(stats, -1, 1), threshold)
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
    info: LayerInfo, values: Array, stats: ChannelStats, threshold: npt.NDArray[np.float64] | None
) -> list[MeasuredLayer]:
    """Return what was measured of each image; `stats` are of (channels, images)."""
    last = np.moveaxis(values, 1, -1) if info.data_format == "channels_first" else values
    batch, *sides, count = last.shape
    joined = np.ascontiguousarray(np.stack(arrays_of(stats)).transpose(2, 0, 1))
    maxima, alive = stats.max.T, ~stats.dead.T
    images, channels = np.nonzero(maxima >= (-np.inf if threshold is None else threshold))
    flat = np.zeros(channels.size, np.intp)
    # The maximum of a constant channel is where it begins. Dead ones may be in every image's top.
    search = np.flatnonzero(alive[images, channels])
    if search.size:
        where = images[search], channels[search]
        flat[search] = _first_places(last.reshape(batch, -1, count), *where, maxima[where])
    places = np.full((channels.size, MAX_AXES), -1, np.int32)
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
