"""Metrics of the score of the input masked by its attribution map."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.perturbation import score_masked_images
from actgrid.evaluation.metric import EvaluatedMaps, MetricResult, ScoreType, metric
from actgrid.models.frameworks import tensorflow

__all__ = ["average_drop", "average_gain", "average_increase"]

Scores = npt.NDArray[np.float64]


@metric(
    "average_drop", "Chattopadhyay 2017, https://arxiv.org/abs/1710.11063", is_higher_better=False
)
def average_drop(
    maps: EvaluatedMaps, *, baseline: Any = 0.0, score_type: ScoreType = "probability"
) -> MetricResult:
    """Relative decrease of the score if the map masks the input; 0 for an increase."""
    scores, masked = maps.compute_once(_score_masked, baseline, score_type)
    drop = np.maximum(scores - masked, 0)
    return MetricResult(np.divide(drop, scores, np.full_like(drop, np.nan), where=scores > 0))


@metric(
    "average_increase",
    "Chattopadhyay 2017, https://arxiv.org/abs/1710.11063",
    is_higher_better=True,
)
def average_increase(
    maps: EvaluatedMaps, *, baseline: Any = 0.0, score_type: ScoreType = "probability"
) -> MetricResult:
    """1 if the score increases where the map masks the input, else 0."""
    scores, masked = maps.compute_once(_score_masked, baseline, score_type)
    return MetricResult((masked > scores).astype(np.float64))


@metric("average_gain", "Zhang 2023, https://arxiv.org/abs/2301.07002", is_higher_better=True)
def average_gain(maps: EvaluatedMaps, *, baseline: Any = 0.0) -> MetricResult:
    """Increase of the probability relative to its distance from 1; 0 for a decrease."""
    scores, masked = maps.compute_once(_score_masked, baseline, "probability")
    gain = np.maximum(masked - scores, 0)
    is_defined = maps.uses_probabilities("probability") & (scores < 1)
    return MetricResult(np.divide(gain, 1 - scores, np.full_like(gain, np.nan), where=is_defined))


def _score_masked(
    maps: EvaluatedMaps, baseline: Any, score_type: ScoreType
) -> tuple[Scores, Scores]:
    """Return the scores of the samples, and of the samples masked by their maps, (N,) each.

    The absolute values of a map, scaled to the range 0 to 1, are the fraction of each position that
    is kept.
    """
    masks = np.abs(maps.values)
    axes = tuple(range(1, masks.ndim))
    low, high = masks.min(axes, keepdims=True), masks.max(axes, keepdims=True)
    masks = np.divide(masks - low, high - low, np.zeros_like(masks), where=high > low)
    masked = score_masked_images(
        maps.batch,
        _gather_maps,
        1,
        baseline,
        tensorflow().constant(masks),
        probability=maps.uses_probabilities(score_type),
    )
    return maps.get_scores(score_type).astype(np.float64), masked[:, 0].astype(np.float64)


def _gather_maps(image: Any, sample: Any, sides: Any, masks: Any) -> Any:
    """Return the mask of each row's sample, (rows, *sides)."""
    return tensorflow().gather(masks, image)
