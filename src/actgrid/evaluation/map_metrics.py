"""Metrics of attribution maps alone: how concentrated they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from actgrid.evaluation.metric import EvaluatedMaps, MetricResult, metric

__all__ = ["complexity", "sparseness"]


@metric(
    "complexity", "Bhatt 2020, https://arxiv.org/abs/2005.00631", is_higher_better=False, needs=[]
)
def complexity(maps: EvaluatedMaps) -> MetricResult:
    """Entropy in nats of the absolute attributions as fractions of their sum."""
    fractions = _compute_fractions(maps)
    logarithms = np.log(fractions, out=np.zeros_like(fractions), where=fractions > 0)
    return MetricResult(-(fractions * logarithms).sum(1))


@metric(
    "sparseness",
    "Chalasani 2018, https://arxiv.org/abs/1810.06583",
    is_higher_better=True,
    needs=[],
)
def sparseness(maps: EvaluatedMaps) -> MetricResult:
    """Gini index of the absolute attributions: 0 if all are equal, near 1 for a single one."""
    fractions = np.sort(_compute_fractions(maps), 1)
    count = fractions.shape[1]
    ranks = np.arange(1, count + 1)
    return MetricResult((2 * ranks - count - 1) @ fractions.T / count)


def _compute_fractions(maps: EvaluatedMaps) -> npt.NDArray[np.float64]:
    """Return the absolute value of each position as a fraction of their sum, (N, positions).

    NaN for a map that is zero everywhere. The maps have their own size: an enlarged map has the
    same values at more positions.
    """
    magnitudes = np.abs(maps.maps.astype(np.float64)).reshape(len(maps.maps), -1)
    total = magnitudes.sum(1, keepdims=True)
    fractions: npt.NDArray[np.float64] = np.divide(
        magnitudes, total, np.full_like(magnitudes, np.nan), where=total > 0
    )
    return fractions
