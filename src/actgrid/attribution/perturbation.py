"""Attribution methods that hide parts of the image and observe the score."""

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
    gather_baseline,
    gather_rows,
)
from actgrid.attribution.method import method
from actgrid.errors import OptionError
from actgrid.models.frameworks import tensorflow

__all__ = [
    "CONSTANT_SCORE",
    "MaskFunction",
    "mask_patch",
    "occlusion",
    "rise",
    "score_masked_images",
]

# Reason for which a map is zero everywhere.
CONSTANT_SCORE = "the score does not change where the image is hidden"

# Function (image, sample, sides, *tables) that returns masks, (rows, *sides): the fraction of each
# pixel that is kept. image and sample, (rows,), are the image and sample index of each row; sides
# are (H, W) for images.
MaskFunction = Callable[..., Any]


@dataclass(frozen=True)
class _MaskedScoreFunction:
    """Function that returns the scores of masked images."""

    reader: ScoreReader
    make_masks: MaskFunction
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
        baseline = gather_baseline(baseline, image)
        rows, target_classes = gather_rows((inputs, target_classes), image)
        pixels = self.reader.get_image(rows)
        sides = tf.shape(pixels)[self.reader.spatial_slice]
        mask = self.make_masks(image, sample, sides, *tables)
        mask = tf.expand_dims(mask, self.reader.channel_axis)
        masked = tf.ensure_shape(baseline + mask * (pixels - baseline), pixels.shape)
        target_scores = self.reader.run(
            model, self.reader.with_image(rows, masked), target_classes
        ).target_scores
        return target_scores.probabilities if self.probability else target_scores.scores


def score_masked_images(
    batch: ExplainedBatch,
    make_masks: MaskFunction,
    samples: int,
    baseline: Any,
    *tables: Any,
    probability: bool = False,
) -> npt.NDArray[np.float32]:
    """Compute the score of every image under every mask.

    Parameters
    ----------
    batch
        The images, with fixed target classes.
    make_masks
        A module-level function: compiled functions are cached by it.
    samples
        Number of masks for each image.
    baseline
        Value of hidden pixels, see `ExplainedBatch.make_baseline`.
    tables
        Tensors that are passed to `make_masks`.
    probability
        Whether to return probabilities instead of logits.

    Returns
    -------
    ndarray
        (N, samples) float32.
    """
    body = _MaskedScoreFunction(batch.reader, make_masks, probability)
    start = batch.make_baseline(baseline)
    parts = [np.asarray(scores) for scores in batch.run_samples(body, samples, start, *tables)]
    return np.concatenate(parts).reshape(len(batch), samples)


def mask_patch(image: Any, sample: Any, sides: Any, corners: Any, patch: Any) -> Any:
    """Return masks, (rows, H, W), that are 0 in a rectangular patch and 1 elsewhere.

    Parameters
    ----------
    corners
        (S, 2) int32: top and left of the patch of each sample.
    patch
        Height and width of the patch.
    """
    tf = tensorflow()
    corner = tf.gather(corners, sample)

    def inside(axis: int) -> Any:
        offset = tf.range(sides[axis])[None] - corner[:, axis, None]
        return (offset >= 0) & (offset < patch[axis])

    return 1.0 - tf.cast(inside(0)[:, :, None] & inside(1)[:, None, :], tf.float32)


@method("occlusion", "Zeiler 2013, https://arxiv.org/abs/1311.2901")
def occlusion(
    batch: ExplainedBatch,
    *,
    patch: tuple[int, int] | None = None,
    stride: tuple[int, int] | None = None,
    baseline: Any = "mean",
) -> Attribution:
    """Hide one patch after another; map the mean decrease of the score at each pixel."""
    height, width = batch.sides
    side = max(1, min(height, width) // 7)
    sides = (side, side) if patch is None else patch
    steps = tuple(-(-side // 2) for side in sides) if stride is None else stride
    if steps[0] > sides[0] or steps[1] > sides[1]:
        raise OptionError(
            f"stride must not exceed patch, or some pixels are never hidden: got stride {steps}, "
            f"patch {sides}"
        )
    # A patch larger than the image hides the whole image.
    sides = min(sides[0], height), min(sides[1], width)
    tf = tensorflow()
    tops = _place_patches(height, sides[0], steps[0])
    lefts = _place_patches(width, sides[1], steps[1])
    corners = np.array([(top, left) for top in tops for left in lefts], np.int32)
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    tables = tf.constant(corners), tf.constant(sides)
    scores = score_masked_images(batch, mask_patch, len(corners), baseline, *tables)
    decreases = target_scores.scores[:, None] - scores
    # Mean over the patches that hide a pixel.
    total = np.zeros((len(batch), height, width))
    count = np.zeros((height, width))
    for (top, left), decrease in zip(corners, decreases.T, strict=True):
        hidden = np.s_[..., top : top + sides[0], left : left + sides[1]]
        total[hidden] += decrease[:, None, None]
        count[hidden] += 1
    reasons = (CONSTANT_SCORE,) * len(batch)
    values = (total / count).astype(np.float32)
    return Attribution(values, target_scores, signed=True, zero_reasons=reasons)


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
    """Return random masks, (rows, H, W) with values from 0 to 1.

    Each mask is a coarse random grid, enlarged bilinearly and shifted.
    """
    tf = tensorflow()
    corners = tf.shape(grids)[1]
    cells = corners - 2  # across the image; the shift needs one more cell

    def compute_weights(axis: int) -> Any:
        # Bilinear weights of the grid's rows (or columns) for each row (or column) of pixels.
        step = sides[axis] / cells
        shift = tf.gather(shifts[:, axis], sample)
        scaled = tf.range(sides[axis], dtype=tf.float32) / tf.cast(step, tf.float32)
        position = scaled[None] + shift[:, None]
        return tf.nn.relu(1 - tf.abs(position[:, :, None] - tf.range(corners, dtype=tf.float32)))

    grid = tf.gather(grids, sample)
    return tf.matmul(tf.matmul(compute_weights(0), grid), compute_weights(1), transpose_b=True)


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
    """Hide random parts; map the mean score of the masks that keep a pixel."""
    tf = tensorflow()
    random = np.random.default_rng(seed)
    corners = (samples, grid_size + 2, grid_size + 2)
    grids = tf.constant(random.random(corners) < keep_probability, tf.float32)
    shifts = tf.constant(random.random((samples, 2)), tf.float32)
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    scores = score_masked_images(batch, _make_random_masks, samples, baseline, grids, shifts)
    total = np.zeros((len(batch), *batch.sides))
    mask_sum = np.zeros(batch.sides)
    for start in range(0, samples, batch.batch_size):
        batch.report(samples, samples)
        part = np.arange(start, min(start + batch.batch_size, samples))
        masks = _make_random_masks(None, part, tf.constant(batch.sides), grids, shifts)
        total += np.tensordot(scores[:, part], masks, 1)
        mask_sum += np.sum(masks, 0)
    # Pixels that no mask keeps get the mean score of all masks.
    mean = np.broadcast_to(scores.mean(1)[:, None, None], total.shape)
    values = np.divide(total, mask_sum, mean.copy(), where=mask_sum > 0).astype(np.float32)
    return Attribution(
        values,
        target_scores,
        zero_reasons=("the score of every masked image is zero",) * len(values),
    )
