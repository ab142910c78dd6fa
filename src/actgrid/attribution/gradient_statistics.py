"""Attribution methods based on squares and variances of the gradient."""

from __future__ import annotations

import numpy as np

from actgrid.attribution.batches import BatchAttribution, ExplainedBatch
from actgrid.attribution.input_gradients import (
    SEED_LIMIT,
    Reduction,
    add_noise,
    compute_gradients,
    reduce_channels,
    sum_gradient_powers,
)
from actgrid.attribution.method import method

__all__ = ["smoothgrad_squared", "square_grad", "vargrad"]


@method(
    "square_grad",
    "Hooker 2019, https://arxiv.org/abs/1806.10758",
    needs=["gradients"],
    explains_several=True,
)
def square_grad(batch: ExplainedBatch, *, reduce: Reduction = "max") -> list[BatchAttribution]:
    """Square the gradient of the score, so that its largest values stand out."""
    gradients, target_scores = compute_gradients(batch)
    squares = [gradient.astype(np.float64) ** 2 for gradient in gradients]
    return reduce_channels(squares, batch, reduce, target_scores, nonnegative=True)


@method(
    "vargrad",
    "Adebayo 2018, https://arxiv.org/abs/1810.03292",
    needs=["gradients"],
    explains_several=True,
)
def vargrad(
    batch: ExplainedBatch,
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    reduce: Reduction = "max",
) -> list[BatchAttribution]:
    """Compute the variance of the gradient over noisy copies of the input."""
    return _summarize_powers(batch, samples, noise, seed, reduce, is_variance=True)


@method(
    "smoothgrad_squared",
    "Hooker 2019, https://arxiv.org/abs/1806.10758",
    needs=["gradients"],
    explains_several=True,
)
def smoothgrad_squared(
    batch: ExplainedBatch,
    *,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    reduce: Reduction = "max",
) -> list[BatchAttribution]:
    """Average the squared gradient over noisy copies of the input."""
    return _summarize_powers(batch, samples, noise, seed, reduce)


def _summarize_powers(
    batch: ExplainedBatch,
    samples: int,
    noise: float,
    seed: int,
    reduce: str,
    is_variance: bool = False,
) -> list[BatchAttribution]:
    """Compute the mean square of the gradient over noisy copies, or its variance."""
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    table = np.array([noise, seed % SEED_LIMIT])
    powers = (2, 1) if is_variance else (2,)
    # Weights of 1, which float32 represents exactly: a variance is a difference of sums.
    sums = sum_gradient_powers(batch, add_noise, np.ones(samples), table, powers)
    values = [total / samples for total in sums[0]]
    if is_variance:
        # Rounding may leave a variance below zero.
        pairs = zip(values, sums[1], strict=True)
        values = [np.maximum(square - (total / samples) ** 2, 0) for square, total in pairs]
    return reduce_channels(values, batch, reduce, target_scores, nonnegative=True)
