"""What the score becomes when parts of the image are hidden."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import (
    Attribution,
    ExplainedBatch,
    ScoreReader,
    baseline_rows,
    image_rows,
)
from actgrid.attribution.method import method
from actgrid.errors import OptionError
from actgrid.models.frameworks import tensorflow

__all__ = ["UNCHANGED", "Masks", "masked_scores", "occlusion", "outside_patch", "rise"]

# Why a map is zero everywhere.
UNCHANGED = "the score does not change where the image is hidden"

# From (image, sample, sides, *tables), one of each for each row, to masks (rows, *sides), the sides
# being (H, W) for images: what share of each pixel is left.
Masks = Callable[..., Any]


@dataclass(frozen=True)
class _MaskedScores:
    """Scores of images behind masks."""

    reader: ScoreReader
    masks: Masks
    probability: bool

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
        baseline = baseline_rows(baseline, image)
        rows, target_classes = image_rows((inputs, target_classes), image)
        pixels = self.reader.image_of(rows)
        sides = tf.shape(pixels)[self.reader.spatial]
        mask = self.masks(image, sample, sides, *tables)
        mask = tf.expand_dims(mask, self.reader.channel_axis)
        masked = tf.ensure_shape(baseline + mask * (pixels - baseline), pixels.shape)
        target_scores = self.reader.run(
            model, self.reader.with_image(rows, masked), target_classes
        ).target_scores
        return target_scores.probabilities if self.probability else target_scores.scores


def masked_scores(
    batch: ExplainedBatch,
    masks: Masks,
    samples: int,
    baseline: Any,
    *tables: Any,
    probability: bool = False,
) -> npt.NDArray[np.float32]:
    """Return the scores of every image behind every mask, (N, samples).

    Parameters
    ----------
    batch
        The images, whose target classes are fixed.
    masks
        A function of a module, as the compiled function is kept by it.
    baseline
        What is where the image is hidden, see `ExplainedBatch.baseline`.
    tables
        Tensors for `masks`.
    probability
        Whether to return the probability of the class and not its logit.
    """
    body = _MaskedScores(batch.reader, masks, probability)
    start = batch.baseline(baseline)
    parts = [np.asarray(scores) for scores in batch.run_samples(body, samples, start, *tables)]
    return np.concatenate(parts).reshape(len(batch), samples)


def outside_patch(image: Any, sample: Any, sides: Any, corners: Any, patch: Any) -> Any:
    """Return masks that hide a patch, (height, width), whose corner is that of the sample."""
    tf = tensorflow()
    corner = tf.gather(corners, sample)

    def inside(axis: int) -> Any:
        along = tf.range(sides[axis])[None] - corner[:, axis, None]
        return (along >= 0) & (along < patch[axis])

    return 1.0 - tf.cast(inside(0)[:, :, None] & inside(1)[:, None, :], tf.float32)


@method("occlusion", "Zeiler 2013, https://arxiv.org/abs/1311.2901")
def occlusion(
    batch: ExplainedBatch,
    *,
    patch: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    baseline: Any = "mean",
) -> Attribution:
    """Hide one patch after the other: how much the score falls without each pixel."""
    height, width = batch.sides
    side = max(1, min(height, width) // 7)
    sides = (side, side) if patch is None else patch
    steps = tuple(-(-side // 2) for side in sides) if stride is None else stride
    if steps[0] > sides[0] or steps[1] > sides[1]:
        raise OptionError(f"stride {steps} is larger than patch {sides}: some pixels stay unseen")
    # A patch that is larger than the image hides all of it.
    sides = min(sides[0], height), min(sides[1], width)
    tf = tensorflow()
    tops = _starts(height, sides[0], steps[0])
    lefts = _starts(width, sides[1], steps[1])
    corners = np.array([(top, left) for top in tops for left in lefts], np.int32)
    target_scores = batch.read()
    batch = batch.with_classes_of(target_scores)
    tables = tf.constant(corners), tf.constant(sides)
    scores = masked_scores(batch, outside_patch, len(corners), baseline, *tables)
    falls = target_scores.scores[:, None] - scores
    # Each pixel's mean over the patches that hide it.
    total = np.zeros((len(batch), height, width))
    count = np.zeros((height, width))
    for (top, left), fall in zip(corners, falls.T, strict=True):
        hidden = np.s_[..., top : top + sides[0], left : left + sides[1]]
        total[hidden] += fall[:, None, None]
        count[hidden] += 1
    reasons = (UNCHANGED,) * len(batch)
    return Attribution(np.float32(total / count), target_scores, signed=True, zero_reasons=reasons)


def _starts(side: int, patch: int, stride: int) -> list[int]:
    """Return where whole patches begin, symmetric from border to border.

    They are at most a stride apart, and as few as possible.
    """
    room = side - patch
    gaps = -(-room // stride)
    if gaps % 2 == 0 and room % 2 == 1:
        gaps += 1  # no pixel is in the middle
    before = [-(-room * index // gaps) for index in range(gaps // 2 + 1)] if gaps else [0]
    return sorted({*before, *(room - start for start in before)})


def _random_masks(image: Any, sample: Any, sides: Any, grids: Any, shifts: Any) -> Any:
    """Coarse grids, enlarged bilinearly and shifted."""
    tf = tensorflow()
    corners = tf.shape(grids)[1]
    cells = corners - 2  # across the image; the shift needs one more

    def weights(axis: int) -> Any:
        # How much of each row (or column) of the grid a pixel's row (or column) takes.
        step = sides[axis] / cells
        shift = tf.gather(shifts[:, axis], sample)
        along = tf.range(sides[axis], dtype=tf.float32) / tf.cast(step, tf.float32)
        place = along[None] + shift[:, None]
        return tf.nn.relu(1 - tf.abs(place[:, :, None] - tf.range(corners, dtype=tf.float32)))

    grid = tf.gather(grids, sample)
    return tf.matmul(tf.matmul(weights(0), grid), weights(1), transpose_b=True)


@method("rise", "Petsiuk 2018, https://arxiv.org/abs/1806.07421")
def rise(
    batch: ExplainedBatch,
    *,
    samples: int = 2000,
    grid_size: int = 7,
    keep_probability: float = 0.5,
    baseline: Any = "mean",
    seed: int = 0,
) -> Attribution:
    """Hide random parts: the mean score where a pixel is seen."""
    tf = tensorflow()
    random = np.random.default_rng(seed)
    corners = (samples, grid_size + 2, grid_size + 2)
    grids = tf.constant(random.random(corners) < keep_probability, tf.float32)
    shifts = tf.constant(random.random((samples, 2)), tf.float32)
    target_scores = batch.read()
    batch = batch.with_classes_of(target_scores)
    scores = masked_scores(batch, _random_masks, samples, baseline, grids, shifts)
    total = np.zeros((len(batch), *batch.sides))
    seen = np.zeros(batch.sides)
    for start in range(0, samples, batch.batch_size):
        batch.report(samples, samples)
        part = np.arange(start, min(start + batch.batch_size, samples))
        masks = _random_masks(None, part, tf.constant(batch.sides), grids, shifts)
        total += np.tensordot(scores[:, part], masks, 1)
        seen += np.sum(masks, 0)
    # What is never seen is as good as the rest.
    mean = np.broadcast_to(scores.mean(1)[:, None, None], total.shape)
    values = np.divide(total, seen, mean.copy(), where=seen > 0).astype(np.float32)
    return Attribution(
        values,
        target_scores,
        zero_reasons=("the score of every masked image is zero",) * len(values),
    )
