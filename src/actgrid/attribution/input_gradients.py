"""Attribution methods based on the gradient with respect to the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import (
    BatchAttribution,
    ExplainedBatch,
    ScoreReader,
    expand_to_rank,
    gather_baseline,
    gather_rows,
)
from actgrid.attribution.guiding import guide_relus
from actgrid.attribution.method import method
from actgrid.attribution.relevance_rules import set_relevance_rules
from actgrid.attribution.scores import TargetScores
from actgrid.errors import ModelError
from actgrid.models.frameworks import tensorflow

__all__ = [
    "SEED_LIMIT",
    "Reduction",
    "Rules",
    "add_noise",
    "attnlrp",
    "compute_gradients",
    "differentiate",
    "gradient_x_input",
    "guided_backprop",
    "integrated_gradients",
    "interpolate",
    "keep_values",
    "multiply_by_values",
    "reduce_channels",
    "saliency",
    "smoothgrad",
    "sum_all_gradients",
    "sum_gradient_powers",
    "sum_gradients",
    "sum_rows",
]

Array = npt.NDArray[Any]

# How the gradients of the channels at one position are combined to one value; "none": not at all.
Reduction = Literal["max", "norm", "sum", "none"]
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "max": lambda values, axis: np.abs(values).max(axis),
    "norm": lambda values, axis: np.linalg.norm(values, axis=axis),
    "sum": lambda values, axis: values.sum(axis),
}

# Seeds are passed in a float32 table, which represents integers exactly up to this value.
SEED_LIMIT = 2**24

# Modification of gradients: "guided": ReLUs propagate only positive gradients; "relevance":
# gradient times input is the relevance of layer-wise relevance propagation.
Rules = Literal["guided", "relevance"] | None

# Function (values, baseline, sample, table, seed) that makes a sample of each row of an explained
# tensor: sample has the sample index of each row, table the parameters of the function, and seed
# differs for each explained tensor.
Sampling = Callable[[Any, Any, Any, Any, int], Any]


def keep_values(values: Any, baseline: Any, sample: Any, table: Any, seed: int) -> Any:
    """Return the values unchanged.

    This is the `Sampling` of methods that use the gradient at the input itself.
    """
    return values


def interpolate(values: Any, baseline: Any, sample: Any, table: Any, seed: int) -> Any:
    """Interpolate between baseline and values by the fractions in `table`, 0 to 1."""
    fraction = expand_to_rank(tensorflow().gather(table, sample), values)
    return baseline + fraction * (values - baseline)


def add_noise(values: Any, baseline: Any, sample: Any, table: Any, seed: int) -> Any:
    """Add Gaussian noise to values.

    `table` has the standard deviation, relative to the range of each row, and a seed.
    """
    tf = tensorflow()
    axes = list(range(1, values.shape.rank))
    span = tf.reduce_max(values, axes, keepdims=True) - tf.reduce_min(values, axes, keepdims=True)
    first_seed = tf.cast(table[1], tf.int32) + seed

    def make_noise(index: Any) -> Any:
        # Seeded by the sample index: the noise is independent of the batch and of other rows.
        return tf.random.stateless_normal(tf.shape(values)[1:], (first_seed, index))

    noise = tf.map_fn(make_noise, sample, fn_output_signature=tf.float32)
    return values + table[0] * span * noise


def differentiate(scores: Any, samples: Sequence[Any]) -> list[Any]:
    """Return the gradient of scores with respect to each of several tensors, or zeros.

    Raises
    ------
    ModelError
        If the scores have no gradient with respect to any of the tensors.
    """
    tf = tensorflow()
    gradients = tf.gradients(scores, samples)
    if all(gradient is None for gradient in gradients):
        raise ModelError(
            "the score has no gradient with respect to the input: an operation between them "
            "is not differentiable; use occlusion, rise or lime, which need no gradient"
        )
    # The score may depend on some of several inputs only.
    return [
        tf.zeros_like(values) if gradient is None else gradient
        for gradient, values in zip(gradients, samples, strict=True)
    ]


@dataclass(frozen=True)
class _GradientFunction:
    """Function that sums the score's gradients over modified samples of each row.

    It returns the weighted sums for each explained tensor, in its shape, and the target scores.

    Attributes
    ----------
    powers
        Powers of the gradients that are summed. Without them, the gradients themselves are summed,
        in float32. With them, the sums are float64, and there is a list of sums for each power.
    """

    reader: ScoreReader
    sampling: Sampling
    rules: Rules = None
    powers: tuple[int, ...] = ()

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        row: Any,
        sample: Any,
        baselines: Any,
        table: Any,
        weights: Any,
    ) -> tuple[list[Any], TargetScores]:
        tf = tensorflow()
        count = tf.shape(target_classes)[0]
        inputs, target_classes = gather_rows((inputs, target_classes), row)
        samples: list[Any] = []
        for index, values in enumerate(self.reader.get_explained(inputs)):
            baseline = tf.broadcast_to(gather_baseline(baselines[index], row), tf.shape(values))
            modified = self.sampling(values, baseline, sample, table, index * SEED_LIMIT)
            samples.append(tf.ensure_shape(modified, values.shape))
        inputs = self.reader.replace_explained(inputs, samples)
        graph = tf.compat.v1.get_default_graph()
        if self.rules == "guided":
            with guide_relus(graph) as guide:
                run = self.reader.run(model, inputs, target_classes)
            guide()
        else:
            run = self.reader.run(model, inputs, target_classes)
        if self.rules == "relevance":
            set_relevance_rules(graph.get_operations(), samples)
        gradients = differentiate(run.target_scores.scores, samples)
        sample_weights = tf.gather(weights, sample)

        def sum_weighted(gradient: Any) -> Any:
            factors = tf.cast(expand_to_rank(sample_weights, gradient), gradient.dtype)
            return tf.math.unsorted_segment_sum(gradient * factors, row, count)

        if not self.powers:
            return [sum_weighted(gradient) for gradient in gradients], run.target_scores
        exact = [tf.cast(gradient, tf.float64) for gradient in gradients]
        sums = [[sum_weighted(gradient**power) for gradient in exact] for power in self.powers]
        return sums, run.target_scores


def sum_gradients(
    batch: ExplainedBatch,
    sampling: Sampling,
    weights: npt.ArrayLike,
    table: npt.ArrayLike = 0.0,
    baseline: Any = None,
) -> Array:
    """Compute the sum of `sum_all_gradients` for the first explained tensor."""
    return sum_all_gradients(
        batch, sampling, weights, table, None if baseline is None else [baseline]
    )[0]


def sum_all_gradients(
    batch: ExplainedBatch,
    sampling: Sampling,
    weights: npt.ArrayLike,
    table: npt.ArrayLike = 0.0,
    baselines: Sequence[Any] | None = None,
) -> list[Array]:
    """Compute a weighted sum of score gradients over modified samples of each row.

    The gradients are those of the target score with respect to the samples. All explained tensors
    are modified together.

    Parameters
    ----------
    batch
        The rows, with fixed target classes.
    sampling
        Function that makes S samples of each row, such as `add_noise`. It must be defined at
        module level, because the cache finds the compiled function by it.
    weights
        (S,) weight of the gradient of each sample.
    table
        Numbers that `sampling` receives, such as the noise level, or a fraction for each sample.
    baselines
        Result of `ExplainedBatch.make_baselines`; None if `sampling` uses no baseline.

    Returns
    -------
    list of ndarray
        Float32 of the shape of each explained tensor.
    """
    tf = tensorflow()
    totals = [tf.zeros_like(values) for values in batch.explained_values]
    sample_weights = tf.constant(weights, tf.float32)
    if baselines is None:
        baselines = [tf.zeros((1,) * len(total.shape)) for total in totals]
    arguments = list(baselines), tf.constant(table, tf.float32), sample_weights
    body = _GradientFunction(batch.reader, sampling)
    for parts, _ in batch.run_samples(body, len(sample_weights), *arguments):
        totals = [total + part for total, part in zip(totals, parts, strict=True)]
    return [np.asarray(total) for total in totals]


def sum_gradient_powers(
    batch: ExplainedBatch,
    sampling: Sampling,
    weights: npt.ArrayLike,
    table: npt.ArrayLike,
    powers: tuple[int, ...],
) -> list[list[Array]]:
    """Compute weighted sums of powers of the gradients that `sum_all_gradients` sums.

    Returns
    -------
    list of list of ndarray
        For each power, float64 arrays of the shape of each explained tensor.
    """
    tf = tensorflow()
    body = _GradientFunction(batch.reader, sampling, powers=powers)
    sample_weights = tf.constant(weights, tf.float32)
    baselines = [tf.zeros((1,) * len(values.shape)) for values in batch.explained_values]
    totals: Any = 0.0
    for parts, _ in batch.run_samples(
        body, len(sample_weights), baselines, tf.constant(table, tf.float32), sample_weights
    ):
        totals = tf.nest.map_structure(tf.add, totals, parts) if totals else parts
    return [[np.asarray(total) for total in sums] for sums in totals]


def reduce_channels(
    arrays: Sequence[Array],
    batch: ExplainedBatch,
    reduce: str,
    target_scores: TargetScores,
    *,
    nonnegative: bool = False,
) -> list[BatchAttribution]:
    """Reduce gradients to one value for each position, for each explained tensor.

    Parameters
    ----------
    arrays
        An array of the shape of each explained tensor.
    reduce
        Value of the option `reduce`.
    nonnegative
        Whether the arrays have no values below zero, as squares, so that no map has a sign.
    """
    attributions = []
    for values, layout in zip(arrays, batch.get_layouts(), strict=True):
        axes = layout.names
        maps = values
        if layout.channel_axis is None:
            # The values of a table have no channels to combine, only a sign.
            maps = values if reduce in ("sum", "none") else np.abs(values)
        elif reduce == "none":
            maps, axes = layout.to_channels_last(values), (*axes, "channel")
        else:
            maps = _REDUCTIONS[reduce](values, axis=layout.channel_axis)
        attributions.append(
            BatchAttribution(
                np.asarray(maps, np.float32),
                target_scores,
                axes,
                signed=reduce in ("sum", "none") and not nonnegative,
            )
        )
    return attributions


def compute_gradients(
    batch: ExplainedBatch, rules: Rules = None
) -> tuple[list[Array], TargetScores]:
    """Compute the gradient of the score at each unmodified sample.

    Return the gradients, in the shapes of the explained tensors, and the target scores.
    """
    tf = tensorflow()
    body = _GradientFunction(batch.reader, keep_values, rules)
    baselines = [tf.zeros((1,) * len(values.shape)) for values in batch.explained_values]
    ((gradients, target_scores),) = batch.run_samples(body, 1, baselines, tf.zeros(1), tf.ones(1))
    return [np.asarray(gradient) for gradient in gradients], batch.check_scores(target_scores)


@method(
    "saliency",
    "Simonyan 2013, https://arxiv.org/abs/1312.6034",
    needs=["gradients"],
    explains_several=True,
)
def saliency(batch: ExplainedBatch, *, reduce: Reduction = "max") -> list[BatchAttribution]:
    """Compute the gradient of the score: its change for a small change of each value."""
    gradients, target_scores = compute_gradients(batch)
    return reduce_channels(gradients, batch, reduce, target_scores)


@method(
    "gradient_x_input",
    "Shrikumar 2016, https://arxiv.org/abs/1605.01713",
    needs=["gradients"],
    explains_several=True,
)
def gradient_x_input(batch: ExplainedBatch, *, reduce: Reduction = "sum") -> list[BatchAttribution]:
    """Multiply the gradient by the input; exact contributions for a linear model."""
    gradients, target_scores = compute_gradients(batch)
    return reduce_channels(multiply_by_values(gradients, batch), batch, reduce, target_scores)


def multiply_by_values(gradients: Sequence[Array], batch: ExplainedBatch) -> list[Array]:
    """Return the gradients of the explained tensors times the values of these tensors."""
    return [
        gradient * np.asarray(values)
        for gradient, values in zip(gradients, batch.explained_values, strict=True)
    ]


Quadrature = Literal["gauss-legendre", "trapezoid"]
QUADRATURES = get_args(Quadrature)


@method(
    "integrated_gradients",
    "Sundararajan 2017, https://arxiv.org/abs/1703.01365",
    needs=["gradients"],
    explains_several=True,
)
def integrated_gradients(
    batch: ExplainedBatch,
    *,
    steps: int = 50,
    baseline: Any = 0.0,
    quadrature: Quadrature = "gauss-legendre",
    complete: bool = True,
    reduce: Reduction = "sum",
) -> list[BatchAttribution]:
    """Integrate the gradient from a baseline to the input; sums to the score change."""
    if quadrature == "trapezoid":
        fractions = np.linspace(0, 1, steps)
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
    else:
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        fractions, weights = (nodes + 1) / 2, weights / 2
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    starts = batch.make_baselines(baseline)
    values = batch.explained_values
    integrals = sum_all_gradients(batch, interpolate, weights, fractions, starts)
    contributions = [
        integral * np.asarray(value - start)
        for integral, value, start in zip(integrals, values, starts, strict=True)
    ]
    zeros_like = tensorflow().zeros_like
    baselines = [zeros_like(value) + start for value, start in zip(values, starts, strict=True)]
    baseline_scores = batch.with_values(*baselines).compute_scores().scores
    convergence_delta = target_scores.scores - baseline_scores - sum_rows(contributions)
    if complete:
        # Gradients of deep networks vary so much along the path that few steps leave a large delta.
        magnitudes = [np.abs(contribution) for contribution in contributions]
        total = sum_rows(magnitudes)
        ratio = np.divide(convergence_delta, total, np.zeros_like(total), where=total > 0)
        contributions = [
            contribution + ratio.reshape(-1, *(1,) * (magnitude.ndim - 1)) * magnitude
            for contribution, magnitude in zip(contributions, magnitudes, strict=True)
        ]
    details = {"baseline_score": baseline_scores, "convergence_delta": convergence_delta}
    return [
        attribution._replace(details=details)
        for attribution in reduce_channels(contributions, batch, reduce, target_scores)
    ]


def sum_rows(arrays: Sequence[Array]) -> Array:
    """Return the sum of all values of each row over several arrays, (N,)."""
    total: Array = sum(array.reshape(len(array), -1).sum(1) for array in arrays)
    return total


@method(
    "smoothgrad",
    "Smilkov 2017, https://arxiv.org/abs/1706.03825",
    needs=["gradients"],
    explains_several=True,
)
def smoothgrad(
    batch: ExplainedBatch,
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    reduce: Reduction = "max",
) -> list[BatchAttribution]:
    """Average the gradient over noisy copies of the input."""
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    weights = np.full(samples, 1 / samples)
    table = np.array([noise, seed % SEED_LIMIT])
    averages = sum_all_gradients(batch, add_noise, weights, table)
    return reduce_channels(averages, batch, reduce, target_scores)


@method(
    "guided_backprop",
    "Springenberg 2014, https://arxiv.org/abs/1412.6806",
    needs=["gradients"],
    explains_several=True,
)
def guided_backprop(batch: ExplainedBatch, *, reduce: Reduction = "max") -> list[BatchAttribution]:
    """Compute the gradient of the score; ReLUs propagate only its positive values."""
    gradients, target_scores = compute_gradients(batch, "guided")
    return reduce_channels(gradients, batch, reduce, target_scores)


@method(
    "attnlrp",
    "Achtibat 2024, https://arxiv.org/abs/2402.05602",
    needs=["gradients"],
    explains_several=True,
)
def attnlrp(batch: ExplainedBatch, *, reduce: Reduction = "sum") -> list[BatchAttribution]:
    """Propagate the score back by layer-wise relevance rules, also through attention."""
    gradients, target_scores = compute_gradients(batch, "relevance")
    return reduce_channels(multiply_by_values(gradients, batch), batch, reduce, target_scores)
