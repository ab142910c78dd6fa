"""Attribution methods that hide parts of the input and observe the score."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import (
    BatchAttribution,
    ExplainedBatch,
    ScoreReader,
    gather_baseline,
    gather_rows,
)
from actgrid.attribution.method import method
from actgrid.errors import OptionError
from actgrid.models.frameworks import tensorflow

__all__ = [
    "CONSTANT_SCORE",
    "FillFunction",
    "MaskFunction",
    "blend",
    "mask_patch",
    "occlusion",
    "rise",
    "score_masked_images",
]

# Reason for which a map is zero everywhere.
CONSTANT_SCORE = "the score does not change where the input is hidden"

# Number of patches of the default size side by side, by the number of axes: more axes need more
# runs of the model for each position along an axis.
_DEFAULT_PATCHES = {1: 25, 2: 7, 3: 4}

# Function (image, sample, sides, *tables) that returns masks, (rows, *sides): the fraction of each
# position that is kept. image and sample, (rows,), are the image and sample index of each row;
# sides are (H, W) for images, (T,) for sequences, (D, H, W) for volumes and (C,) for tables.
MaskFunction = Callable[..., Any]

# Function (values, mask, baseline, sample) that returns values, (rows, *sides, C) or (rows, C), in
# which the positions of mask 0 are hidden. mask has one channel, or none for a table.
FillFunction = Callable[[Any, Any, Any, Any], Any]


def blend(values: Any, mask: Any, baseline: Any, sample: Any) -> Any:
    """Replace hidden positions by the baseline, in proportion to the mask."""
    return baseline + mask * (values - baseline)


@dataclass(frozen=True)
class _MaskedScoreFunction:
    """Function that returns the scores of masked inputs."""

    reader: ScoreReader
    make_masks: MaskFunction
    probability: bool
    fill: FillFunction = blend

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        image: Any,
        sample: Any,
        baseline: Any,
        *tables: Any,
    ) -> Any:
        tf = tensorflow()
        baseline = gather_baseline(baseline, image)
        rows, target_classes = gather_rows((inputs, target_classes), image)
        values, *others = self.reader.get_explained(rows)
        layout = self.reader.get_layouts(rows)[0]
        mask = self.make_masks(image, sample, tf.shape(values)[layout.spatial_slice], *tables)
        if layout.channel_axis is not None:
            mask = tf.expand_dims(mask, layout.channel_axis)
        filled = self.fill(values, mask, baseline, sample)
        masked = tf.ensure_shape(filled, values.shape)
        target_scores = self.reader.run(
            model, self.reader.replace_explained(rows, [masked, *others]), target_classes
        ).target_scores
        return target_scores.probabilities if self.probability else target_scores.scores


def score_masked_images(
    batch: ExplainedBatch,
    make_masks: MaskFunction,
    samples: int,
    baseline: Any,
    *tables: Any,
    probability: bool = False,
    fill: FillFunction = blend,
) -> npt.NDArray[np.float32]:
    """Compute the score of every sample under every mask.

    Parameters
    ----------
    batch
        The samples, with fixed target classes.
    make_masks
        A module-level function: compiled functions are cached by it.
    samples
        Number of masks for each sample.
    baseline
        Value of hidden positions, see `ExplainedBatch.make_baseline`.
    tables
        Tensors that are passed to `make_masks`.
    probability
        Whether to return probabilities instead of logits.
    fill
        A hashable function that replaces hidden positions.

    Returns
    -------
    ndarray
        (N, samples) float32.
    """
    body = _MaskedScoreFunction(batch.reader, make_masks, probability, fill)
    start = batch.make_baseline(baseline)
    parts = [np.asarray(scores) for scores in batch.run_samples(body, samples, start, *tables)]
    return np.concatenate(parts).reshape(len(batch), samples)


def mask_patch(image: Any, sample: Any, sides: Any, corners: Any, patch: Any) -> Any:
    """Return masks, (rows, *sides), that are 0 in a box and 1 elsewhere.

    Parameters
    ----------
    corners
        (S, axes) int32: the first position of the box of each sample along each axis.
    patch
        Length of the box along each axis.
    """
    tf = tensorflow()
    corner = tf.gather(corners, sample)
    axes = sides.shape[0]
    hidden = tf.constant(True)
    for axis in range(axes):
        offset = tf.range(sides[axis])[None] - corner[:, axis, None]
        inside = (offset >= 0) & (offset < patch[axis])
        shape = [-1, *(sides[axis] if other == axis else 1 for other in range(axes))]
        hidden = hidden & tf.reshape(inside, shape)
    return 1.0 - tf.cast(hidden, tf.float32)


@method("occlusion", "Zeiler 2013, https://arxiv.org/abs/1311.2901")
def occlusion(
    batch: ExplainedBatch,
    *,
    patch: int | tuple[int, ...] | None = None,
    stride: int | tuple[int, ...] | None = None,
    baseline: Any = "mean",
) -> BatchAttribution:
    """Hide one patch after another; map the mean decrease of the score at each position."""
    sides = batch.sides
    if patch is None:
        # Values of a table have no neighbours.
        is_table = batch.layout.channel_axis is None
        patch = 1 if is_table else max(1, min(sides) // _DEFAULT_PATCHES[len(sides)])
    lengths = _expand_lengths("patch", patch, sides)
    steps = (
        tuple(-(-length // 2) for length in lengths)
        if stride is None
        else _expand_lengths("stride", stride, sides)
    )
    if any(step > length for step, length in zip(steps, lengths, strict=True)):
        raise OptionError(
            "stride must not exceed patch, or some positions are never hidden: got stride "
            f"{steps}, patch {lengths}"
        )
    # A patch larger than the input hides the whole input.
    lengths = tuple(map(min, lengths, sides))
    tf = tensorflow()
    starts = map(_place_patches, sides, lengths, steps)
    corners = np.array(list(itertools.product(*starts)), np.int32)
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    tables = tf.constant(corners), tf.constant(lengths)
    scores = score_masked_images(batch, mask_patch, len(corners), baseline, *tables)
    decreases = target_scores.scores[:, None] - scores
    # Mean over the patches that hide a position.
    total = np.zeros((len(batch), *sides))
    count = np.zeros(sides)
    for corner, decrease in zip(corners, decreases.T, strict=True):
        hidden = tuple(
            slice(start, start + length) for start, length in zip(corner, lengths, strict=True)
        )
        total[(slice(None), *hidden)] += decrease.reshape(-1, *(1,) * len(sides))
        count[hidden] += 1
    reasons = (CONSTANT_SCORE,) * len(batch)
    values = (total / count).astype(np.float32)
    return BatchAttribution(values, target_scores, signed=True, zero_reasons=reasons)


def _expand_lengths(
    name: str, value: int | tuple[int, ...], sides: tuple[int, ...]
) -> tuple[int, ...]:
    """Return a length for each axis from the option `patch` or `stride`."""
    lengths = value if isinstance(value, tuple) else (value,) * len(sides)
    if len(lengths) != len(sides):
        raise OptionError(
            f"{name} must be one length, or one for each axis of the input, {sides}: got {lengths}"
        )
    return lengths


def _place_patches(side: int, patch: int, stride: int) -> list[int]:
    """Return the start indices of patches along an axis, symmetric to its centre.

    Neighbouring patches are at most `stride` pixels apart, and their number is minimal.
    """
    last_start = side - patch
    gaps = -(-last_start // stride)
    if gaps % 2 == 0 and last_start % 2 == 1:
        gaps += 1  # an odd range has no pixel in its middle
    first_half = [-(-last_start * index // gaps) for index in range(gaps // 2 + 1)] if gaps else [0]
    return sorted({*first_half, *(last_start - start for start in first_half)})


def _make_random_masks(image: Any, sample: Any, sides: Any, grids: Any, shifts: Any) -> Any:
    """Return random masks, (rows, *sides) with values from 0 to 1.

    Each mask is a coarse random grid, enlarged linearly along each axis and shifted.
    """
    tf = tensorflow()
    corners = tf.shape(grids)[1]
    cells = corners - 2  # across the input; the shift needs one more cell

    def compute_weights(axis: int) -> Any:
        # Linear weights of the grid's corners along an axis for each position.
        step = sides[axis] / cells
        shift = tf.gather(shifts[:, axis], sample)
        scaled = tf.range(sides[axis], dtype=tf.float32) / tf.cast(step, tf.float32)
        position = scaled[None] + shift[:, None]
        return tf.nn.relu(1 - tf.abs(position[:, :, None] - tf.range(corners, dtype=tf.float32)))

    masks = tf.gather(grids, sample)
    axes = grids.shape.rank - 1
    for axis in range(axes):
        # The first axis is enlarged and becomes the last, so that the axes return to their order.
        shape = tf.shape(masks)
        flat = tf.reshape(masks, tf.stack([shape[0], corners, -1]))
        enlarged = tf.matmul(flat, compute_weights(axis), transpose_a=True, transpose_b=True)
        masks = tf.reshape(enlarged, tf.concat([shape[:1], shape[2:], [sides[axis]]], 0))
    return masks


def _gather_masks(image: Any, sample: Any, sides: Any, masks: Any) -> Any:
    """Return the masks (rows, C) of a table, in which each feature is hidden independently."""
    return tensorflow().gather(masks, sample)


@method("rise", "Petsiuk 2018, https://arxiv.org/abs/1806.07421")
def rise(
    batch: ExplainedBatch,
    *,
    samples: int = 2000,
    grid_size: int = 7,
    keep_probability: float = 0.5,
    baseline: Any = "mean",
    seed: int = 0,
) -> BatchAttribution:
    """Hide random parts; map the mean score of the masks that keep a position."""
    tf = tensorflow()
    random = np.random.default_rng(seed)
    sides = batch.sides
    make_masks: MaskFunction = _make_random_masks
    tables: tuple[Any, ...]
    if batch.layout.channel_axis is None:
        make_masks = _gather_masks
        tables = (random.random((samples, *sides)) < keep_probability,)
    else:
        corners = (samples, *(grid_size + 2,) * len(sides))
        tables = random.random(corners) < keep_probability, random.random((samples, len(sides)))
    tables = tuple(tf.constant(table, tf.float32) for table in tables)
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    scores = score_masked_images(batch, make_masks, samples, baseline, *tables)
    total = np.zeros((len(batch), *sides))
    mask_sum = np.zeros(sides)
    for start in range(0, samples, batch.batch_size):
        batch.report(samples, samples)
        part = np.arange(start, min(start + batch.batch_size, samples))
        masks = make_masks(None, part, tf.constant(sides), *tables)
        total += np.tensordot(scores[:, part], masks, 1)
        mask_sum += np.sum(masks, 0)
    # Positions that no mask keeps get the mean score of all masks.
    mean = np.broadcast_to(scores.mean(1).reshape(-1, *(1,) * len(sides)), total.shape)
    values = np.divide(total, mask_sum, mean.copy(), where=mask_sum > 0).astype(np.float32)
    return BatchAttribution(
        values,
        target_scores,
        zero_reasons=("the score of every masked input is zero",) * len(values),
    )
