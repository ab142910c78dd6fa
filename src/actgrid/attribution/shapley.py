"""Kernel SHAP: Shapley values of segments of the input."""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import BatchAttribution, ExplainedBatch
from actgrid.attribution.method import method
from actgrid.attribution.perturbation import CONSTANT_SCORE, score_masked_images
from actgrid.attribution.segmentation import make_segment_masks, segment_batch
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import check_integer

__all__ = ["kernel_shap"]

Array = npt.NDArray[Any]


class _Coalitions(NamedTuple):
    """Record of sets of visible segments, and their weights.

    Attributes
    ----------
    visible
        (samples, segments) float32: 1 for visible segments.
    weights
        (samples,) float64: weight of each set in the regression.
    """

    visible: Array
    weights: Array


@method(
    "kernel_shap",
    "Lundberg 2017, https://arxiv.org/abs/1705.07874",
    packages=["scikit-image"],
)
def kernel_shap(
    batch: ExplainedBatch,
    *,
    samples: int = 1000,
    segments: Any = 64,
    baseline: Any = "mean",
    seed: int = 0,
) -> BatchAttribution:
    """Hide sets of segments; map Shapley values, which sum to the score change."""
    samples = check_integer("samples", samples, 2)
    segment_maps, counts = segment_batch(batch, segments, "kernel_shap")
    coalitions = [_choose_coalitions(count, samples, seed) for count in counts]
    rows = 1 + max(len(coalition.weights) for coalition in coalitions)
    # The first sample hides all segments.
    visible = np.zeros((len(batch), rows, max(counts)), np.float32)
    for image_visible, coalition, count in zip(visible, coalitions, counts, strict=True):
        image_visible[1 : 1 + len(coalition.weights), :count] = coalition.visible
    tf = tensorflow()
    target_scores = batch.compute_scores()
    tables = tf.constant(visible), tf.constant(segment_maps)
    scores = score_masked_images(
        batch.with_classes_of(target_scores), make_segment_masks, rows, baseline, *tables
    )
    values = [
        _solve(coalition, image_scores, float(score), count)
        for coalition, image_scores, score, count in zip(
            coalitions, scores, target_scores.scores, counts, strict=True
        )
    ]
    pairs = zip(values, segment_maps, strict=True)
    # A segment's value is divided over its positions, so that the map has the sum of the values.
    maps = np.stack(
        [(value / np.bincount(part.ravel()))[part] for value, part in pairs], dtype=np.float32
    )
    details: dict[str, Any] = {
        "segments": list(segment_maps),
        "shapley_values": values,
        "baseline_score": scores[:, 0],
    }
    return BatchAttribution(
        maps,
        target_scores,
        signed=True,
        details=details,
        zero_reasons=(CONSTANT_SCORE,) * len(maps),
    )


def _choose_coalitions(segments: int, samples: int, seed: int) -> _Coalitions:
    """Choose sets of visible segments, without the empty and the full set.

    Sets of one size are all used if they fit into the samples: sizes 1 and `segments` - 1 first,
    then 2 and `segments` - 2, and so on. The others are drawn in pairs of a set and its complement,
    and share the weight of the remaining sizes.
    """
    sizes = np.arange(1, segments)
    # Weight of all sets of a size together, by the Shapley kernel.
    size_weights = 1 / (sizes * (segments - sizes)) if segments > 1 else np.zeros(0)
    size_weights = size_weights / max(size_weights.sum(), 1e-300)
    visible: list[Array] = []
    weights: list[float] = []
    left = samples
    complete = 0  # sizes up to this one, and their complements, are used completely
    while 2 * complete + 1 < segments:
        size = complete + 1
        pair = {size, segments - size}
        count = sum(math.comb(segments, each) for each in pair)
        if count > left:
            break
        for each in sorted(pair):
            for members in itertools.combinations(range(segments), each):
                row = np.zeros(segments, np.float32)
                row[list(members)] = 1
                visible.append(row)
                weights.append(size_weights[each - 1] / math.comb(segments, each))
        left -= count
        complete = size
    remaining = sizes[complete : segments - 1 - complete]
    if len(remaining) and left:
        random = np.random.default_rng(seed)
        remaining_weights = size_weights[remaining - 1]
        probabilities = remaining_weights / remaining_weights.sum()
        drawn = random.choice(remaining, (left + 1) // 2, p=probabilities)
        rows = []
        for size in drawn:
            row = np.zeros(segments, np.float32)
            row[random.choice(segments, size, replace=False)] = 1
            rows += [row, 1 - row]
        visible += rows[:left]
        weights += [remaining_weights.sum() / left] * left
    # Without drawn sets, the sets that are used have the whole weight.
    total = sum(weights) or 1.0
    return _Coalitions(np.array(visible).reshape(len(weights), segments), np.array(weights) / total)


def _solve(
    coalitions: _Coalitions, scores: Array, full_score: float, segments: int
) -> npt.NDArray[np.float64]:
    """Fit Shapley values to scores, so that they sum to the change from the first score.

    Parameters
    ----------
    scores
        (1 + samples,): the score with all segments hidden, and that of each set.
    full_score
        Score of the unmodified input.
    """
    empty_score = float(scores[0])
    change = full_score - empty_score
    # The last value follows from the sum, and is replaced in the equations.
    visible = coalitions.visible.astype(np.float64)
    differences = scores[1 : 1 + len(visible)].astype(np.float64) - empty_score
    roots = np.sqrt(coalitions.weights)
    predictors = (visible[:, :-1] - visible[:, -1:]) * roots[:, None]
    responses = (differences - visible[:, -1] * change) * roots
    first = np.linalg.lstsq(predictors, responses, rcond=None)[0]
    return np.append(first, change - first.sum())
