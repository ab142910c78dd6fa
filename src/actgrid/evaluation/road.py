"""The metric ROAD: remove and debias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actgrid.attribution.batches import ScoreReader, gather_rows
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
    body = _ImputedScoreFunction(batch.reader, maps.uses_probabilities(score_type))
    tables = tf.constant(ranks), tf.constant(starts), tf.constant(ends), tf.constant(seed)
    parts = [np.asarray(part) for part in batch.run_samples(body, len(starts), *tables)]
    without_first, without_last = np.split(np.concatenate(parts).reshape(len(batch), -1), 2, axis=1)
    difference = (without_last - without_first) / 2
    curve = MetricCurve(
        np.array(fractions, np.float32),
        difference,
        "fraction of positions removed",
        "(least - most) / 2",
    )
    return MetricResult(difference.mean(1).astype(np.float64), curve)


@dataclass(frozen=True)
class _ImputedScoreFunction:
    """Function that returns the scores of inputs with imputed positions."""

    reader: ScoreReader
    probability: bool

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        image: Any,
        sample: Any,
        ranks: Any,
        starts: Any,
        ends: Any,
        seed: Any,
    ) -> Any:
        tf = tensorflow()
        rows, target_classes = gather_rows((inputs, target_classes), image)
        values, *others = self.reader.get_explained(rows)
        channels_first = self.reader.get_layouts(rows)[0].channels_first
        rank = values.shape.rank
        to_last, to_first = (0, *range(2, rank), 1), (0, rank - 1, *range(1, rank - 1))
        arranged = tf.transpose(values, to_last) if channels_first else values
        shape = (-1, *(1,) * (rank - 2))
        first, last = (
            tf.reshape(tf.gather(ends_or_starts, sample), shape)
            for ends_or_starts in (starts, ends)
        )
        row_ranks = tf.gather(ranks, image)
        hidden = tf.cast((row_ranks >= first) & (row_ranks < last), tf.float32)[..., None]
        axes = list(range(1, rank))
        deviation = tf.math.reduce_std(arranged, axes, keepdims=True)

        def make_noise(index: Any) -> Any:
            return tf.random.stateless_normal(tf.shape(arranged)[1:], (seed, index))

        noise = tf.map_fn(make_noise, sample, fn_output_signature=tf.float32)
        imputed = impute(arranged, 1.0 - hidden) + hidden * _NOISE * deviation * noise
        imputed = tf.transpose(imputed, to_first) if channels_first else imputed
        imputed = tf.ensure_shape(imputed, values.shape)
        target_scores = self.reader.run(
            model, self.reader.replace_explained(rows, [imputed, *others]), target_classes
        ).target_scores
        return target_scores.probabilities if self.probability else target_scores.scores
