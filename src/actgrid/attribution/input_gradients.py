"""Attribution methods based on the gradient with respect to the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import (
    Attribution,
    ExplainedBatch,
    ScoreReader,
    expand_to_rank,
    gather_baseline,
    gather_rows,
)
from actgrid.attribution.guiding import guide_relus
from actgrid.attribution.method import method
from actgrid.attribution.scores import TargetScores
from actgrid.errors import ModelError
from actgrid.models.frameworks import tensorflow

__all__ = [
    "SEED_LIMIT",
    "Reduction",
    "add_noise",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "interpolate",
    "keep_image",
    "saliency",
    "smoothgrad",
    "sum_gradients",
]

Array = npt.NDArray[Any]

# How the gradients of a pixel's channels are combined to one value.
Reduction = Literal["max", "norm", "sum"]
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "max": lambda values, axis: np.abs(values).max(axis),
    "norm": lambda values, axis: np.linalg.norm(values, axis=axis),
    "sum": lambda values, axis: values.sum(axis),
}

# Seeds are passed in a float32 table, which represents integers exactly up to this value.
SEED_LIMIT = 2**24

# Function (image, baseline, sample, table) that makes a sample of each image: sample has the sample
# index of each row, and table the parameters of the function.
Sampling = Callable[[Any, Any, Any, Any], Any]


def keep_image(image: Any, baseline: Any, sample: Any, table: Any) -> Any:
    """Return the images unchanged.

    This is the `Sampling` of methods that use the gradient at the image itself.
    """
    return image


def interpolate(image: Any, baseline: Any, sample: Any, table: Any) -> Any:
    """Interpolate between baseline and image by the fractions in `table`, 0 to 1."""
    fraction = expand_to_rank(tensorflow().gather(table, sample), image)
    return baseline + fraction * (image - baseline)


def add_noise(image: Any, baseline: Any, sample: Any, table: Any) -> Any:
    """Add Gaussian noise to images.

    `table` has the standard deviation, relative to each image's range, and the seed.
    """
    tf = tensorflow()
    axes = list(range(1, image.shape.rank))
    span = tf.reduce_max(image, axes, keepdims=True) - tf.reduce_min(image, axes, keepdims=True)
    seed = tf.cast(table[1], tf.int32)

    def make_noise(index: Any) -> Any:
        # Seeded by the sample index: the noise is independent of the batch and of other images.
        return tf.random.stateless_normal(tf.shape(image)[1:], (seed, index))

    noise = tf.map_fn(make_noise, sample, fn_output_signature=tf.float32)
    return image + table[0] * span * noise


@dataclass(frozen=True)
class _GradientFunction:
    """Function that sums the score's gradients over modified samples of each image.

    It returns the weighted sums, in the shape of the images, and the target scores.
    """

    reader: ScoreReader
    sampling: Sampling
    guided: bool = False

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        image: Any,
        sample: Any,
        baseline: Any,
        table: Any,
        weights: Any,
    ) -> tuple[Any, TargetScores]:
        tf = tensorflow()
        count = tf.shape(self.reader.get_image(inputs))[0]
        inputs, target_classes = gather_rows((inputs, target_classes), image)
        pixels = self.reader.get_image(inputs)
        baseline = tf.broadcast_to(gather_baseline(baseline, image), tf.shape(pixels))
        pixels = tf.ensure_shape(self.sampling(pixels, baseline, sample, table), pixels.shape)
        inputs = self.reader.with_image(inputs, pixels)
        if self.guided:
            with guide_relus(tf.compat.v1.get_default_graph()) as guide:
                run = self.reader.run(model, inputs, target_classes)
            guide()
        else:
            run = self.reader.run(model, inputs, target_classes)
        (gradient,) = tf.gradients(run.target_scores.scores, pixels)
        if gradient is None:
            raise ModelError(
                "the score has no gradient with respect to the image: an operation between them "
                "is not differentiable; use occlusion, rise or lime, which need no gradient"
            )
        weighted = gradient * expand_to_rank(tf.gather(weights, sample), gradient)
        return tf.math.unsorted_segment_sum(weighted, image, count), run.target_scores


def sum_gradients(
    batch: ExplainedBatch,
    sampling: Sampling,
    weights: npt.ArrayLike,
    table: npt.ArrayLike = 0.0,
    baseline: Any = None,
) -> Array:
    """Compute a weighted sum of score gradients over modified samples of each image.

    The gradients are those of the target score with respect to the samples.

    Parameters
    ----------
    batch
        The images, with fixed target classes.
    sampling
        Function that makes S samples of each image, such as `add_noise`. It must be defined at
        module level, because the cache finds the compiled function by it.
    weights
        (S,) weight of the gradient of each sample.
    table
        Numbers that `sampling` receives, such as the noise level, or a fraction for each sample.
    baseline
        Result of `ExplainedBatch.make_baseline`; None if `sampling` uses no baseline.

    Returns
    -------
    ndarray
        Float32 of the shape of the images.
    """
    tf = tensorflow()
    total = tf.zeros_like(batch.image)
    sample_weights = tf.constant(weights, tf.float32)
    arguments = (
        tf.zeros((1,) * len(total.shape)) if baseline is None else baseline,
        tf.constant(table, tf.float32),
        sample_weights,
    )
    body = _GradientFunction(batch.reader, sampling)
    for part, _ in batch.run_samples(body, len(sample_weights), *arguments):
        total += part
    return np.asarray(total)


def _reduce_channels(
    values: Array, batch: ExplainedBatch, reduce: str, target_scores: TargetScores
) -> Attribution:
    """Reduce gradients to one value per pixel, and return them as an `Attribution`."""
    maps = _REDUCTIONS[reduce](values, axis=batch.reader.channel_axis)
    return Attribution(np.asarray(maps, np.float32), target_scores, signed=reduce == "sum")


def _compute_gradients(batch: ExplainedBatch, guided: bool = False) -> tuple[Array, TargetScores]:
    """Compute the gradient of the score at each unmodified image.

    Return the gradients, in the shape of the images, and the target scores.
    """
    tf = tensorflow()
    body = _GradientFunction(batch.reader, keep_image, guided)
    baseline, table, weights = tf.zeros((1,) * len(batch.image.shape)), tf.zeros(1), tf.ones(1)
    ((gradients, target_scores),) = batch.run_samples(body, 1, baseline, table, weights)
    return np.asarray(gradients), batch.check_scores(target_scores)


@method("saliency", "Simonyan 2013, https://arxiv.org/abs/1312.6034", needs=["gradients"])
def saliency(batch: ExplainedBatch, *, reduce: Reduction = "max") -> Attribution:
    """Compute the gradient of the score: its change for a small change of each pixel."""
    gradients, target_scores = _compute_gradients(batch)
    return _reduce_channels(gradients, batch, reduce, target_scores)


@method("gradient_x_input", "Shrikumar 2016, https://arxiv.org/abs/1605.01713", needs=["gradients"])
def gradient_x_input(batch: ExplainedBatch, *, reduce: Reduction = "sum") -> Attribution:
    """Multiply the gradient by the image; exact contributions for a linear model."""
    gradients, target_scores = _compute_gradients(batch)
    return _reduce_channels(gradients * np.asarray(batch.image), batch, reduce, target_scores)


Quadrature = Literal["gauss-legendre", "trapezoid"]
QUADRATURES = get_args(Quadrature)


@method(
    "integrated_gradients",
    "Sundararajan 2017, https://arxiv.org/abs/1703.01365",
    needs=["gradients"],
)
def integrated_gradients(
    batch: ExplainedBatch,
    *,
    steps: int = 50,
    baseline: Any = 0.0,
    quadrature: Quadrature = "gauss-legendre",
    complete: bool = True,
    reduce: Reduction = "sum",
) -> Attribution:
    """Integrate the gradient from a baseline to the image; sums to the score change."""
    if quadrature == "trapezoid":
        fractions = np.linspace(0, 1, steps)
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
    else:
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        fractions, weights = (nodes + 1) / 2, weights / 2
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    start = batch.make_baseline(baseline)
    integral = sum_gradients(batch, interpolate, weights, fractions, start)
    contributions = integral * np.asarray(batch.image - start)
    baseline_images = tensorflow().zeros_like(batch.image) + start
    baseline_scores = batch.with_image(baseline_images).compute_scores().scores
    axes = (1, 2, 3)
    convergence_delta = target_scores.scores - baseline_scores - contributions.sum(axes)
    if complete:
        # Gradients of deep networks vary so much along the path that few steps leave a large delta.
        magnitude = np.abs(contributions)
        total = magnitude.sum(axes)
        ratio = np.divide(convergence_delta, total, np.zeros_like(total), where=total > 0)
        contributions += ratio[:, None, None, None] * magnitude
    attribution = _reduce_channels(contributions, batch, reduce, target_scores)
    return attribution._replace(
        details={"baseline_score": baseline_scores, "convergence_delta": convergence_delta}
    )


@method("smoothgrad", "Smilkov 2017, https://arxiv.org/abs/1706.03825", needs=["gradients"])
def smoothgrad(
    batch: ExplainedBatch,
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    reduce: Reduction = "max",
) -> Attribution:
    """Average the gradient over noisy copies of the image."""
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    weights = np.full(samples, 1 / samples)
    table = np.array([noise, seed % SEED_LIMIT])
    average = sum_gradients(batch, add_noise, weights, table)
    return _reduce_channels(average, batch, reduce, target_scores)


@method(
    "guided_backprop", "Springenberg 2014, https://arxiv.org/abs/1412.6806", needs=["gradients"]
)
def guided_backprop(batch: ExplainedBatch, *, reduce: Reduction = "max") -> Attribution:
    """Compute the gradient of the score; ReLUs propagate only its positive values."""
    gradients, target_scores = _compute_gradients(batch, guided=True)
    return _reduce_channels(gradients, batch, reduce, target_scores)
