"""Metrics that compare attributions with the effect of hiding random parts of the input."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.perturbation import score_masked_images
from actgrid.evaluation.correlation import correlate_ranks
from actgrid.evaluation.metric import EvaluatedMaps, MetricResult, ScoreType, metric
from actgrid.models.frameworks import tensorflow

__all__ = ["infidelity", "mu_fidelity"]

Array = npt.NDArray[Any]


@metric("mu_fidelity", "Bhatt 2020, https://arxiv.org/abs/2005.00631", is_higher_better=True)
def mu_fidelity(
    maps: EvaluatedMaps,
    *,
    samples: int = 200,
    grid_size: int = 9,
    hidden_fraction: float = 0.2,
    baseline: Any = "mean",
    score_type: ScoreType = "logit",
    seed: int = 0,
) -> MetricResult:
    """Rank correlation of the attributions of random parts with the score's decrease."""
    attributions, decreases = maps.compute_once(
        _hide_random_cells, samples, grid_size, hidden_fraction, baseline, score_type, seed
    )
    # A constant map or score says nothing about the order of the other.
    return MetricResult(np.nan_to_num(correlate_ranks(attributions, decreases)))


@metric("infidelity", "Yeh 2019, https://arxiv.org/abs/1901.09392", is_higher_better=False)
def infidelity(
    maps: EvaluatedMaps,
    *,
    samples: int = 200,
    grid_size: int = 9,
    hidden_fraction: float = 0.2,
    baseline: Any = "mean",
    score_type: ScoreType = "logit",
    seed: int = 0,
) -> MetricResult:
    """Mean squared error of the attributions of random parts as the score's decrease."""
    attributions, decreases = maps.compute_once(
        _hide_random_cells, samples, grid_size, hidden_fraction, baseline, score_type, seed
    )
    # The attributions are scaled by least squares, since the unit of a map is arbitrary.
    squares = (attributions**2).sum(1)
    products = (attributions * decreases).sum(1)
    scale = np.divide(products, squares, np.zeros_like(squares), where=squares > 0)
    return MetricResult(((scale[:, None] * attributions - decreases) ** 2).mean(1))


def _hide_random_cells(
    maps: EvaluatedMaps,
    samples: int,
    grid_size: int,
    hidden_fraction: float,
    baseline: Any,
    score_type: ScoreType,
    seed: int,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Hide random cells of a grid; return their attributions and the score's decrease.

    Parameters
    ----------
    samples
        Number of random sets of cells, which are the same for all maps.
    grid_size
        Number of cells along each axis. A table has a cell for each feature.
    hidden_fraction
        Fraction of the cells that are hidden. The number of hidden cells is the same in all sets:
        otherwise both quantities would grow with it, and any positive map would correlate.

    Returns
    -------
    tuple of ndarray
        Sum of the attributions of the hidden positions, and score without hiding minus score,
        (N, samples) each.
    """
    tf = tensorflow()
    sides = maps.values.shape[1:]
    is_table = maps.batch.layout.channel_axis is None
    counts = sides if is_table else tuple(min(grid_size, side) for side in sides)
    random = np.random.default_rng(seed)
    cells = int(np.prod(counts))
    hidden_count = min(max(1, round(hidden_fraction * cells)), max(1, cells - 1))
    order = random.permuted(np.tile(np.arange(cells), (samples, 1)), axis=1)
    hidden = (order < hidden_count).reshape(samples, *counts)
    scores = score_masked_images(
        maps.batch,
        _make_grid_masks,
        samples,
        baseline,
        tf.constant(~hidden, tf.float32),
        probability=maps.uses_probabilities(score_type),
    )
    decreases = maps.get_scores(score_type)[:, None].astype(np.float64) - scores
    cell_sums = maps.values.astype(np.float64)
    for axis, (count, side) in enumerate(zip(counts, sides, strict=True), 1):
        starts = -(-np.arange(count) * side // count)  # first position of each cell
        cell_sums = np.add.reduceat(cell_sums, starts, axis=axis)
    attributions = cell_sums.reshape(len(cell_sums), -1) @ hidden.reshape(samples, -1).T
    return attributions, decreases


def _make_grid_masks(image: Any, sample: Any, sides: Any, grids: Any) -> Any:
    """Return masks, (rows, *sides), from grids whose cells are enlarged without interpolation.

    Parameters
    ----------
    grids
        (S, *counts) float32: value of each cell.
    """
    tf = tensorflow()
    masks = tf.gather(grids, sample)
    for axis in range(1, grids.shape.rank):
        count, side = tf.shape(grids)[axis], sides[axis - 1]
        masks = tf.gather(masks, tf.range(side) * count // side, axis=axis)
    return masks
