"""Divide inputs into segments: superpixels, intervals, blocks, grid cells or features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch, gather_baseline
from actgrid.attribution.packages import import_optional
from actgrid.errors import ShapeError
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import check_integer

__all__ = ["average_segments", "divide_into_cells", "make_segment_masks", "segment_batch"]

Array = npt.NDArray[Any]


def segment_batch(
    batch: ExplainedBatch, segments: Any, method: str
) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Divide the samples of a batch into segments.

    Parameters
    ----------
    segments
        Value of the option `segments`. If it is a number, each feature of a table is a segment.
    method
        Name of the method, for errors.

    Returns
    -------
    segment_maps : ndarray
        (N, *sides) int32: the segment of each position, from 0 without gaps.
    counts : list of int
        Number of segments of each sample.
    """
    values = batch.layout.to_channels_last(np.asarray(batch.values))
    if batch.layout.channel_axis is None and np.ndim(segments) == 0 and not callable(segments):
        segments = np.tile(np.arange(values.shape[1]), (len(values), 1))
    segment_maps = _segment(values, segments, method)
    return segment_maps, [int(segment_map.max()) + 1 for segment_map in segment_maps]


def divide_into_cells(batch: ExplainedBatch, grid_size: int) -> npt.NDArray[np.int32]:
    """Divide the positions of a batch into a grid of cells of nearly equal sides.

    Parameters
    ----------
    grid_size
        Number of cells along each axis. An axis with fewer positions has a cell for each position,
        and each feature of a table is a cell.

    Returns
    -------
    ndarray
        (1, *sides) int32: the cell of each position.
    """
    sides = batch.sides
    if batch.layout.channel_axis is None:
        return np.arange(sides[0], dtype=np.int32)[None]
    return _index_blocks(sides, [min(side, grid_size) for side in sides])[None].astype(np.int32)


def make_segment_masks(image: Any, sample: Any, sides: Any, visible: Any, segment_maps: Any) -> Any:
    """Return masks (rows, *sides) with the value of each position's segment.

    This is a `MaskFunction`.

    Parameters
    ----------
    visible
        (N, samples, segments) float32: the fraction of each segment that is kept in each sample of
        each image. With one row instead of N, all images have the same values.
    segment_maps
        (N, *sides) int32: the segment of each position; or one row for all images.
    """
    tf = tensorflow()
    flat = tf.reshape(gather_baseline(segment_maps, image), (-1, tf.reduce_prod(sides)))
    row = tf.minimum(image, tf.shape(visible)[0] - 1)
    sample_visible = tf.gather_nd(visible, tf.stack([row, sample], 1))
    masks = tf.gather(sample_visible, flat, batch_dims=1)
    return tf.reshape(masks, tf.concat([[-1], sides], 0))


def _segment(values: Array, segments: Any, method: str) -> npt.NDArray[np.int32]:
    """Return the segment index of each position, (N, *sides), without gaps from 0.

    Parameters
    ----------
    values
        (N, *sides, C).
    segments
        Value of the option: a number, a function of one sample, or segment indices.
    method
        Name of the method, for errors.
    """
    sides = values.shape[1:-1]
    if callable(segments):
        segment_maps = np.stack([np.asarray(segments(sample)) for sample in values])
    elif np.ndim(segments):
        segment_maps = np.asarray(segments)
        if segment_maps.ndim == len(sides):
            segment_maps = np.stack([segment_maps] * len(values))
    else:
        count = check_integer("segments", segments, 2)
        if len(sides) == 2:
            segment_maps = np.stack([_run_slic(image, count, method) for image in values])
        else:
            segment_maps = np.stack([_divide_into_blocks(sides, count)] * len(values))
    if segment_maps.shape != values.shape[:-1] or segment_maps.dtype.kind not in "iu":
        raise ShapeError(
            f"segments must be the segment of each position, {values.shape[:-1]} integers: "
            f"got {segment_maps.shape} of {segment_maps.dtype}"
        )
    return np.stack(
        [
            np.unique(segment_map, return_inverse=True)[1].reshape(segment_map.shape)
            for segment_map in segment_maps
        ]
    ).astype(np.int32)


def _divide_into_blocks(sides: tuple[int, ...], count: int) -> Array:
    """Divide positions into about `count` blocks of nearly equal sides; return their indices.

    A sequence is divided into `count` parts, or into its positions if these are fewer.
    """
    length = (np.prod(sides) / count) ** (1 / len(sides))
    return _index_blocks(sides, [min(side, max(1, round(side / length))) for side in sides])


def _index_blocks(sides: tuple[int, ...], block_counts: list[int]) -> Array:
    """Divide positions into blocks, given their number along each axis; return their indices."""
    indices = [
        np.arange(side) * blocks // side for side, blocks in zip(sides, block_counts, strict=True)
    ]
    grid = np.meshgrid(*indices, indexing="ij")
    blocks: Array = np.ravel_multi_index(grid, block_counts)
    return blocks


def _run_slic(pixels: Array, count: int, method: str) -> Array:
    """Divide an image (H, W, C) into superpixels by SLIC; return their indices, (H, W)."""
    segmentation = import_optional("skimage.segmentation", "scikit-image", method)
    span = float(np.ptp(pixels)) or 1.0
    is_colour = pixels.shape[-1] == 3
    segment_map: Array = segmentation.slic(
        (pixels - pixels.min()) / span,
        n_segments=count,
        compactness=10 if is_colour else 0.1,  # L in Lab reaches 100, gray values 1
        convert2lab=is_colour,
        channel_axis=-1,
        start_label=0,
    )
    return segment_map


def average_segments(values: Array, segment_map: Array) -> Array:
    """Return a sample, (*sides, C), in which each segment has its mean values."""
    flat = segment_map.ravel()
    sums = [np.bincount(flat, values[..., c].ravel()) for c in range(values.shape[-1])]
    means = np.stack(sums, -1) / np.bincount(flat)[:, None]
    averages: Array = means.astype(np.float32)[segment_map]
    return averages
