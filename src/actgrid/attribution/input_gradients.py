"""Gradients of the score with respect to the image."""

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
    baseline_rows,
    image_rows,
    row_numbers,
)
from actgrid.attribution.guiding import guided
from actgrid.attribution.method import method
from actgrid.attribution.scores import TargetScores
from actgrid.errors import ModelError
from actgrid.models.frameworks import tensorflow

__all__ = [
    "SEEDS",
    "Reduction",
    "as_it_is",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "noisy",
    "on_the_way",
    "saliency",
    "smoothgrad",
    "summed_gradients",
]

Array = npt.NDArray[Any]

# How the channels of the image become one value.
Reduction = Literal["max", "norm", "sum"]
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "max": lambda values, axis: np.abs(values).max(axis),
    "norm": lambda values, axis: np.linalg.norm(values, axis=axis),
    "sum": lambda values, axis: values.sum(axis),
}

# As many are whole numbers in float32 too.
SEEDS = 2**24

# From images, baselines, which sample of each to take, and a table of numbers, to that sample.
Sampling = Callable[[Any, Any, Any, Any], Any]


def as_it_is(image: Any, baseline: Any, sample: Any, table: Any) -> Any:
    """Return the image itself."""
    return image


def on_the_way(image: Any, baseline: Any, sample: Any, table: Any) -> Any:
    """Between the baseline and the image; the table says how far."""
    share = row_numbers(tensorflow().gather(table, sample), image)
    return baseline + share * (image - baseline)


def noisy(image: Any, baseline: Any, sample: Any, table: Any) -> Any:
    """With noise; the table has its share of each image's range, and the seed."""
    tf = tensorflow()
    axes = list(range(1, image.shape.rank))
    span = tf.reduce_max(image, axes, keepdims=True) - tf.reduce_min(image, axes, keepdims=True)
    seed = tf.cast(table[1], tf.int32)

    def noise(one: Any) -> Any:
        # By the sample alone: neither batches nor other images change it.
        return tf.random.stateless_normal(tf.shape(image)[1:], (seed, one))

    drawn = tf.map_fn(noise, sample, fn_output_signature=tf.float32)
    return image + table[0] * span * drawn


@dataclass(frozen=True)
class _Gradients:
    """Sums over each image's samples of their gradients, by weights."""

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
        count = tf.shape(self.reader.image_of(inputs))[0]
        inputs, target_classes = image_rows((inputs, target_classes), image)
        pixels = self.reader.image_of(inputs)
        baseline = tf.broadcast_to(baseline_rows(baseline, image), tf.shape(pixels))
        pixels = tf.ensure_shape(self.sampling(pixels, baseline, sample, table), pixels.shape)
        inputs = self.reader.with_image(inputs, pixels)
        if self.guided:
            with guided(tf.compat.v1.get_default_graph()) as guide:
                run = self.reader.run(model, inputs, target_classes)
            guide()
        else:
            run = self.reader.run(model, inputs, target_classes)
        (gradient,) = tf.gradients(run.target_scores.scores, pixels)
        if gradient is None:
            raise ModelError(
                "the score has no gradient with respect to the image: something between them is "
                "not differentiable; occlusion, rise and lime need none"
            )
        weighed = gradient * row_numbers(tf.gather(weights, sample), gradient)
        return tf.math.unsorted_segment_sum(weighed, image, count), run.target_scores


def summed_gradients(
    batch: ExplainedBatch,
    sampling: Sampling,
    weights: npt.ArrayLike,
    table: npt.ArrayLike = 0.0,
    baseline: Any = None,
) -> Array:
    """Return for each image the weighed sum of its samples' gradients, of the image's shape.

    Parameters
    ----------
    batch
        The images, whose target classes are fixed.
    sampling
        A function of a module, as the compiled function is kept by it: such as `noisy`.
    weights
        One for each sample.
    table
        Numbers for `sampling`.
    baseline
        See `ExplainedBatch.baseline`; None where `sampling` needs none.
    """
    tf = tensorflow()
    total = tf.zeros_like(batch.image)
    scale = tf.constant(weights, tf.float32)
    arguments = (
        tf.zeros((1,) * len(total.shape)) if baseline is None else baseline,
        tf.constant(table, tf.float32),
        scale,
    )
    body = _Gradients(batch.reader, sampling)
    for part, _ in batch.run_samples(body, len(scale), *arguments):
        total += part
    return np.asarray(total)


def _attribution(
    values: Array, batch: ExplainedBatch, reduce: str, target_scores: TargetScores
) -> Attribution:
    """Return one value for each pixel of values for each of its channels."""
    flat = _REDUCTIONS[reduce](values, axis=batch.reader.channel_axis)
    return Attribution(np.asarray(flat, np.float32), target_scores, signed=reduce == "sum")


def _gradients(batch: ExplainedBatch, guided: bool = False) -> tuple[Array, TargetScores]:
    """Return the gradients at the images, and what the model says of these."""
    tf = tensorflow()
    body = _Gradients(batch.reader, as_it_is, guided)
    nothing = tf.zeros((1,) * len(batch.image.shape)), tf.zeros(1), tf.ones(1)
    ((gradients, target_scores),) = batch.run_samples(body, 1, *nothing)
    return np.asarray(gradients), batch.check_scores(target_scores)


@method("saliency", "Simonyan 2013, https://arxiv.org/abs/1312.6034", needs=["gradients"])
def saliency(batch: ExplainedBatch, *, reduce: Reduction = "max") -> Attribution:
    """Take the gradient of the score: what a small change of each pixel would do to it."""
    gradients, target_scores = _gradients(batch)
    return _attribution(gradients, batch, reduce, target_scores)


@method("gradient_x_input", "Shrikumar 2016, https://arxiv.org/abs/1605.01713", needs=["gradients"])
def gradient_x_input(batch: ExplainedBatch, *, reduce: Reduction = "sum") -> Attribution:
    """Multiply the gradient by the image: for a linear model each pixel's share of the score."""
    gradients, target_scores = _gradients(batch)
    return _attribution(gradients * np.asarray(batch.image), batch, reduce, target_scores)


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
    """Integrate the gradient from a baseline to the image: the shares sum to the score's rise."""
    if quadrature == "trapezoid":
        shares = np.linspace(0, 1, steps)
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
    else:
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        shares, weights = (nodes + 1) / 2, weights / 2
    target_scores = batch.read()
    batch = batch.with_classes_of(target_scores)
    start = batch.baseline(baseline)
    integral = summed_gradients(batch, on_the_way, weights, shares, start)
    shares_of_rise = integral * np.asarray(batch.image - start)
    before = batch.with_image(tensorflow().zeros_like(batch.image) + start).read()
    axes = (1, 2, 3)
    convergence_delta = target_scores.scores - before.scores - shares_of_rise.sum(axes)
    if complete:
        # Gradients of deep networks jump about so much on the way that no few steps catch all.
        size = np.abs(shares_of_rise)
        total = size.sum(axes)
        ratio = np.divide(convergence_delta, total, np.zeros_like(total), where=total > 0)
        shares_of_rise += ratio[:, None, None, None] * size
    found = _attribution(shares_of_rise, batch, reduce, target_scores)
    return found._replace(
        details={"baseline_score": before.scores, "convergence_delta": convergence_delta}
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
    target_scores = batch.read()
    batch = batch.with_classes_of(target_scores)
    weights = np.full(samples, 1 / samples)
    table = np.array([noise, seed % SEEDS])
    average = summed_gradients(batch, noisy, weights, table)
    return _attribution(average, batch, reduce, target_scores)


@method(
    "guided_backprop", "Springenberg 2014, https://arxiv.org/abs/1412.6806", needs=["gradients"]
)
def guided_backprop(batch: ExplainedBatch, *, reduce: Reduction = "max") -> Attribution:
    """Take the gradient that ReLUs pass back only where it is positive."""
    gradients, target_scores = _gradients(batch, guided=True)
    return _attribution(gradients, batch, reduce, target_scores)
