"""Measure the channels of a layer for each image: statistics, positions of maxima."""

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
from actgrid.rendering.stats import list_stat_arrays, make_stats, reshape_stats
from actgrid.rendering.tiles import as_array

__all__ = ["MAX_AXES", "MeasuredLayer", "measure_batch", "measure_image_stats", "measure_sample"]

Array = npt.NDArray[Any]

# Maximum number of spatial axes of an activation: three for a volume.
MAX_AXES = 3
# Number of values compared at once in the search for maxima; they fit in the cache.
_BLOCK_SIZE = 1 << 16


@dataclass(frozen=True, eq=False)
class MeasuredLayer:
    """Record of the channel statistics of a layer for one image.

    Parameters
    ----------
    info
        The layer.
    shape
        Shape of the activation of one image, without the batch axis.
    channels
        Sorted indices of the channels for which the image may be a new top image: their maximum is
        at least the smallest maximum of their current top images.
    """

    info: LayerInfo
    shape: tuple[int, ...]
    channels: npt.NDArray[np.intp]
    # All statistics stacked in one array, and positions with the maximum number of axes, so that
    # the arrays of all layers can be concatenated at once.
    _values: npt.NDArray[np.float64]
    _size: int
    _positions: npt.NDArray[np.int32]

    @property
    def stats(self) -> ChannelStats:
        """`ChannelStats` of the layer for the image, with arrays of shape (channels,)."""
        *values, nonfinite = self._values
        return make_stats([*values, nonfinite.astype(np.int64)], self._size)

    @property
    def positions(self) -> npt.NDArray[np.int32]:
        """Positions of the maxima of `channels`, (len(channels), spatial axes).

        Each is (y, x) for an image, (z, y, x) for a volume, (t,) for a sequence, () for a dense
        layer. Of equal maxima, the first in C order counts.
        """
        return self._positions[:, : len(self.shape) - 1]


def measure_batch(
    info: LayerInfo,
    activation: Array,
    *,
    batch: int,
    threshold: npt.NDArray[np.float64] | None = None,
    threads: int = 1,
    backend: str = "auto",
) -> list[MeasuredLayer]:
    """Measure the activation of a layer for each image of a batch.

    Parameters
    ----------
    info
        The layer.
    activation
        Output of the layer for a batch, from an extractor.
    batch
        Number of images in the batch. If the layer has a single output for the whole batch, it
        counts for each image.
    threshold
        (channels,): smallest maxima whose position is needed, see `Accumulator.thresholds`; None:
        the positions of all maxima are found.
    threads, backend
        See `actgrid.render`.

    Returns
    -------
    list of MeasuredLayer
        One for each image.

    Raises
    ------
    ShapeError
        If the activation is empty, or its length is not that of the batch.
    """
    values = _check_batch(info, activation, batch)
    stats = _measure_images(info, values, threads, backend)
    measured = _locate_maxima(info, values, stats, threshold)
    return measured if len(measured) == batch else measured * batch


def measure_image_stats(
    info: LayerInfo, activation: Array, *, batch: int, threads: int = 1, backend: str = "auto"
) -> ChannelStats:
    """Measure the statistics of each channel of a layer in each image of a batch.

    A layer with a single output for the whole batch has one column. For parameters and errors, see
    `measure_batch`.

    Returns
    -------
    ChannelStats
        Statistics with arrays (channels, images).
    """
    return _measure_images(info, _check_batch(info, activation, batch), threads, backend)


def measure_sample(
    info: LayerInfo,
    activation: Array,
    sample: int,
    stats: ChannelStats,
    threshold: npt.NDArray[np.float64] | None = None,
) -> MeasuredLayer:
    """Measure one image of a batch, whose channel statistics are known from its grid.

    Parameters
    ----------
    info
        The layer.
    activation
        Output of the layer for a batch.
    sample
        Position of the image in the batch.
    stats
        Statistics of the grid of this image.
    threshold
        See `measure_batch`.

    Returns
    -------
    MeasuredLayer
        Statistics and positions of maxima of the layer for the image.
    """
    values = as_array(activation)
    values = values[sample if len(values) > 1 else 0][None]
    if info.kind == "dense":  # the grid has statistics of all channels together
        stats = _single_values(values.T)
    elif stats.size * len(stats.mean) != values.size:  # of the patches, without a class token
        stats = _measure_images(info, values, 1, "auto")
    (measured,) = _locate_maxima(info, values, reshape_stats(stats, -1, 1), threshold)
    return measured


def _check_batch(info: LayerInfo, activation: Array, batch: int) -> Array:
    """Return the activation of the images of a batch, without further rows.

    Returns
    -------
    numpy.ndarray
        The first `batch` images. An activation with a single image, which is the same for all
        images, is returned unchanged.

    Raises
    ------
    ShapeError
        If the activation is empty, or has more than one but fewer than `batch` images.
    """
    values = as_array(activation)
    if 0 in values.shape:
        raise ShapeError(f"layer {info.path}: activation of shape {values.shape} is empty")
    if len(values) < batch and len(values) != 1:
        raise ShapeError(
            f"layer {info.path}: activation of shape {values.shape} does not contain {batch} images"
        )
    return values[:batch]


def _measure_images(info: LayerInfo, values: Array, threads: int, backend: str) -> ChannelStats:
    if info.kind == "dense":
        return _single_values(values.T)
    return load_backend(backend).measure(_to_tiles(values, info), threads)


def _to_tiles(values: Array, info: LayerInfo) -> Array:
    """Return a view of an activation batch as tiles (channels, images, height, width)."""
    tiles = np.moveaxis(values, info.channel_axis, 0)
    channels, batch, *sides = tiles.shape
    if len(sides) == 1:
        return tiles[..., None]
    return tiles.reshape(channels, batch, -1, sides[-1])  # stacks the slices of a volume


def _single_values(values: Array) -> ChannelStats:
    """Return the statistics of channels that have a single value in each image."""
    single = values.astype(np.float64)
    finite = np.isfinite(single)
    single[~finite] = np.nan
    zero_fraction = np.where(finite, single == 0, np.nan)
    std = np.where(finite, 0.0, np.nan)
    nonfinite = (~finite).astype(np.int64)
    return ChannelStats(single, std, single, single, zero_fraction, nonfinite, 1)


def _locate_maxima(
    info: LayerInfo, values: Array, stats: ChannelStats, threshold: npt.NDArray[np.float64] | None
) -> list[MeasuredLayer]:
    """Find the positions of the channel maxima of a layer in each image.

    Parameters
    ----------
    info
        Description of the layer output.
    values
        Activation of a batch.
    stats
        Statistics, arrays (channels, images).
    threshold
        Maximum that a channel must reach to be located, (channels,). None: all.

    Returns
    -------
    list of MeasuredLayer
        One for each image.
    """
    channels_last = np.moveaxis(values, info.channel_axis, -1)
    batch, *sides, count = channels_last.shape
    stacked = np.ascontiguousarray(np.stack(list_stat_arrays(stats)).transpose(2, 0, 1))
    maxima, is_alive = stats.max.T, ~stats.dead.T
    images, channels = np.nonzero(maxima >= (-np.inf if threshold is None else threshold))
    flat_positions = np.zeros(channels.size, np.intp)
    # The maximum of a constant channel is its first value; dead channels need no search.
    search = np.flatnonzero(is_alive[images, channels])
    if search.size:
        pairs = images[search], channels[search]
        flat_positions[search] = _find_first(
            channels_last.reshape(batch, -1, count), *pairs, maxima[pairs]
        )
    positions = np.full((channels.size, MAX_AXES), -1, np.int32)
    for axis, indices in enumerate(np.unravel_index(flat_positions, sides) if sides else ()):
        positions[:, axis] = indices
    ends = np.searchsorted(images, np.arange(batch + 1))
    return [
        MeasuredLayer(
            info,
            values.shape[1:],
            channels[start:stop],
            stacked[image],
            stats.size,
            positions[start:stop],
        )
        for image, (start, stop) in enumerate(pairwise(ends.tolist()))
    ]


def _find_first(
    values: Array,
    images: npt.NDArray[np.intp],
    channels: npt.NDArray[np.intp],
    maxima: npt.NDArray[np.float64],
) -> npt.NDArray[np.intp]:
    """Return the first position at which each channel maximum occurs.

    Parameters
    ----------
    values
        (images, positions, channels).
    images, channels
        Image and channel of each maximum.
    maxima
        The maxima.

    Returns
    -------
    numpy.ndarray
        Index of the position of each maximum.
    """
    positions = np.zeros(channels.size, np.intp)
    if values.dtype.kind not in "iu":
        maxima = maxima.astype(values.dtype)  # the dtype of the maxima before measuring
    remaining = np.arange(channels.size)
    start = 0
    while remaining.size and start < values.shape[1]:
        # A block of positions stays in the cache for neighbouring channels.
        stop = start + max(1, _BLOCK_SIZE // remaining.size)
        block = values[images[remaining], start:stop, channels[remaining]]
        hits = block == maxima[remaining, None]
        has_hit = hits.any(1)
        positions[remaining[has_hit]] = start + hits[has_hit].argmax(1)
        remaining = remaining[~has_hit]
        start = stop
    return positions
