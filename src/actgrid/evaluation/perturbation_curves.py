"""Metrics of the score while the most important parts of the input are hidden or shown."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.perturbation import score_masked_images
from actgrid.evaluation.metric import (
    EvaluatedMaps,
    MetricCurve,
    MetricResult,
    ScoreType,
    metric,
)
from actgrid.models.frameworks import tensorflow

__all__ = ["compute_area", "deletion", "insertion", "rank_positions"]


@metric("deletion", "Petsiuk 2018, https://arxiv.org/abs/1806.07421", is_higher_better=False)
def deletion(
    maps: EvaluatedMaps,
    *,
    steps: int = 50,
    baseline: Any = "mean",
    score_type: ScoreType = "probability",
) -> MetricResult:
    """Area under the score while the most important positions are replaced by the baseline."""
    return _compute_curve(maps, steps, baseline, score_type, is_insertion=False)


@metric("insertion", "Petsiuk 2018, https://arxiv.org/abs/1806.07421", is_higher_better=True)
def insertion(
    maps: EvaluatedMaps,
    *,
    steps: int = 50,
    baseline: Any = "mean",
    score_type: ScoreType = "probability",
) -> MetricResult:
    """Area under the score while the most important positions appear on the baseline."""
    return _compute_curve(maps, steps, baseline, score_type, is_insertion=True)


def _compute_curve(
    maps: EvaluatedMaps, steps: int, baseline: Any, score_type: ScoreType, *, is_insertion: bool
) -> MetricResult:
    tf = tensorflow()
    ranks = rank_positions(maps.values)
    positions = int(np.prod(ranks.shape[1:]))
    counts = np.linspace(0, positions, steps + 1).astype(np.int32)
    scores = score_masked_images(
        maps.batch,
        _show_first if is_insertion else _hide_first,
        len(counts),
        baseline,
        tf.constant(ranks),
        tf.constant(counts),
        probability=maps.uses_probabilities(score_type),
    )
    curve = MetricCurve(
        (counts / positions).astype(np.float32),
        scores,
        f"fraction of positions {'shown' if is_insertion else 'hidden'}",
        "probability" if maps.uses_probabilities(score_type) else "score",
    )
    return MetricResult(compute_area(curve.x, scores), curve)


def rank_positions(values: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    """Return the rank of each position in its map, 0 for the largest value.

    Equal values are ranked in the order of their positions.

    Parameters
    ----------
    values
        (N, *sides).

    Returns
    -------
    ndarray
        (N, *sides) int32.
    """
    flat = values.reshape(len(values), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    ranks = np.empty(order.shape, np.int32)
    np.put_along_axis(ranks, order, np.arange(order.shape[1], dtype=np.int32)[None], 1)
    return ranks.reshape(values.shape)


def compute_area(
    x: npt.NDArray[np.float32], values: npt.NDArray[np.float32]
) -> npt.NDArray[np.float64]:
    """Return the area under each curve by the trapezoidal rule, divided by its length."""
    ordinates = values.astype(np.float64)
    widths = np.diff(x.astype(np.float64))
    areas: npt.NDArray[np.float64] = (ordinates[..., 1:] + ordinates[..., :-1]) / 2 @ widths
    areas /= widths.sum()
    return areas


def _hide_first(image: Any, sample: Any, sides: Any, ranks: Any, counts: Any) -> Any:
    """Return masks, (rows, *sides), that are 0 at the positions of the first ranks."""
    return 1.0 - _show_first(image, sample, sides, ranks, counts)


def _show_first(image: Any, sample: Any, sides: Any, ranks: Any, counts: Any) -> Any:
    """Return masks, (rows, *sides), that are 1 at the positions of the first ranks.

    Parameters
    ----------
    ranks
        (N, *sides) int32: rank of each position.
    counts
        (S,) int32: number of positions of each sample.
    """
    tf = tensorflow()
    count = tf.reshape(tf.gather(counts, sample), (-1, *(1,) * (ranks.shape.rank - 1)))
    return tf.cast(tf.gather(ranks, image) < count, tf.float32)
