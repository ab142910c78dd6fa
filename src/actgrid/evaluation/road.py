"""The metric ROAD: remove and debias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actgrid.attribution.perturbation import score_masked_images
from actgrid.errors import ShapeError
from actgrid.evaluation.imputation import impute
from actgrid.evaluation.metric import (
    EvaluatedMaps,
    MetricCurve,
    MetricResult,
    ScoreType,
    metric,
)
from actgrid.evaluation.perturbation_curves import rank_positions
from actgrid.models.frameworks import tensorflow

__all__ = ["road"]

# Standard deviation of the noise, relative to that of the sample's values: without noise, the model
# could recognize imputed positions, which are smooth.
_NOISE = 0.01


@metric("road", "Rong 2022, https://arxiv.org/abs/2202.00449", is_higher_better=True)
def road(
    maps: EvaluatedMaps,
    *,
    fractions: Sequence[float] = (0.2, 0.4, 0.6, 0.8),
    score_type: ScoreType = "probability",
    seed: int = 0,
) -> MetricResult:
    """Half the score without the least important minus without the most important parts."""
    batch = maps.batch
    if batch.layout.channel_axis is None:
        raise ShapeError(
            "road needs an input with positions, such as (N, H, W, C), whose neighbours replace "
            f"hidden values, not {tuple(batch.values.shape)}"
        )
    tf = tensorflow()
    ranks = rank_positions(maps.values)
    positions = int(np.prod(ranks.shape[1:]))
    counts = np.rint(np.array(fractions) * positions).astype(np.int32)
    # Most important first, then least important first: positions from `start` to `end` are hidden.
    starts = np.concatenate([np.zeros_like(counts), positions - counts])
    ends = np.concatenate([counts, np.full_like(counts, positions)])
    scores = score_masked_images(
        batch,
        _hide_ranks,
        len(starts),
        0.0,
        tf.constant(ranks),
        tf.constant(starts),
        tf.constant(ends),
        probability=maps.uses_probabilities(score_type),
        fill=_Imputation(batch.layout.channels_first, seed),
    )
    without_first, without_last = np.split(scores, 2, axis=1)
    difference = (without_last - without_first) / 2
    curve = MetricCurve(
        np.array(fractions, np.float32),
        difference.astype(np.float32),
        "fraction of positions removed",
        "(least - most) / 2",
    )
    return MetricResult(difference.mean(1).astype(np.float64), curve)


def _hide_ranks(image: Any, sample: Any, sides: Any, ranks: Any, starts: Any, ends: Any) -> Any:
    """Return masks, (rows, *sides), that are 0 at the positions of a range of ranks.

    Parameters
    ----------
    ranks
        (N, *sides) int32: rank of each position.
    starts, ends
        (S,) int32: first rank of each sample's range, and the rank after its last.
    """
    tf = tensorflow()
    shape = (-1, *(1,) * (ranks.shape.rank - 1))
    start, end = (tf.reshape(tf.gather(table, sample), shape) for table in (starts, ends))
    row_ranks = tf.gather(ranks, image)
    return tf.cast((row_ranks < start) | (row_ranks >= end), tf.float32)


@dataclass(frozen=True)
class _Imputation:
    """Function that imputes hidden positions from their neighbours, and adds noise to them."""

    channels_first: bool
    seed: int

    def __call__(self, values: Any, mask: Any, baseline: Any, sample: Any) -> Any:
        tf = tensorflow()
        rank = values.shape.rank
        to_last, to_first = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
        if self.channels_first:
            values, mask = tf.transpose(values, to_last), tf.transpose(mask, to_last)

        def make_noise(index: Any) -> Any:
            return tf.random.stateless_normal(tf.shape(values)[1:], (self.seed, index))

        noise = tf.map_fn(make_noise, sample, fn_output_signature=tf.float32)
        deviation = tf.math.reduce_std(values, list(range(1, rank)), keepdims=True)
        imputed = impute(values, mask) + (1.0 - mask) * _NOISE * deviation * noise
        return tf.transpose(imputed, to_first) if self.channels_first else imputed
