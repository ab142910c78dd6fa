"""Global sensitivity analysis: dependence of the score on the cells of a grid of masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import BatchAttribution, ExplainedBatch
from actgrid.attribution.method import method
from actgrid.attribution.packages import import_optional
from actgrid.attribution.perturbation import CONSTANT_SCORE, score_masked_images
from actgrid.attribution.segmentation import divide_into_cells, make_segment_masks
from actgrid.models.frameworks import tensorflow
from actgrid.option_checks import check_integer

__all__ = ["hsic", "sobol"]

Array = npt.NDArray[Any]


@method("sobol", "Fel 2021, https://arxiv.org/abs/2111.04138", packages=["scipy"])
def sobol(
    batch: ExplainedBatch,
    *,
    samples: int = 32,
    grid_size: int = 8,
    baseline: Any = "mean",
    seed: int = 0,
) -> BatchAttribution:
    """Fade cells of a grid; map the share of the score's variance that each causes."""
    samples = check_integer("samples", samples, 2)
    cell_map = divide_into_cells(batch, grid_size)
    cells = int(cell_map.max()) + 1
    first, second = _draw_sobol_points(samples, cells, seed)
    # Masks of the first points with one cell each from the second points.
    exchanged = np.repeat(first[None], cells, 0)
    exchanged[np.arange(cells), :, np.arange(cells)] = second.T
    masks = np.concatenate([first, second, exchanged.reshape(-1, cells)])
    scores, target_scores = _score_masks(batch, masks, cell_map, baseline)
    pair, others = scores[:, : 2 * samples], scores[:, 2 * samples :]
    variance = pair.var(1, keepdims=True)
    # Jansen's estimator of the total-order indices.
    differences = others.reshape(len(batch), cells, samples) - scores[:, None, :samples]
    effects = (differences**2).mean(2) / 2
    indices = np.divide(effects, variance, np.zeros_like(effects), where=variance > 0)
    return _make_attribution(indices, cell_map, target_scores)


@method("hsic", "Novello 2022, https://arxiv.org/abs/2206.06219")
def hsic(
    batch: ExplainedBatch,
    *,
    samples: int = 500,
    grid_size: int = 8,
    baseline: Any = "mean",
    seed: int = 0,
) -> BatchAttribution:
    """Hide random cells of a grid; map the dependence (HSIC) of the score on each."""
    samples = check_integer("samples", samples, 2)
    cell_map = divide_into_cells(batch, grid_size)
    cells = int(cell_map.max()) + 1
    # As in a Latin hypercube, each cell is visible in half of the masks.
    halves = np.tile(np.arange(samples) % 2, (cells, 1))
    masks = np.random.default_rng(seed).permuted(halves, axis=1).T.astype(np.float32)
    scores, target_scores = _score_masks(batch, masks, cell_map, baseline)
    # The kernel of a cell is 1/2 for equal values and -1/2 for others: a product of signs.
    signs = (2 * masks - 1).astype(np.float64)
    signs -= signs.mean(0)
    dependences = []
    for image_scores in scores:
        distances = np.abs(image_scores[:, None] - image_scores)
        bandwidth = np.median(distances[np.triu_indices(samples, 1)]) or distances.max() or 1.0
        kernel = np.exp(-((distances / bandwidth) ** 2) / 2)
        dependences.append(np.sum(signs * (kernel @ signs), 0) / 2 / (samples - 1) ** 2)
    # Without noise, the estimate is not below zero; rounding may be.
    values = np.maximum(dependences, 0)
    is_constant = np.ptp(scores, axis=1) == 0
    values[is_constant] = 0
    return _make_attribution(values, cell_map, target_scores)


def _draw_sobol_points(samples: int, cells: int, seed: int) -> tuple[Array, Array]:
    """Draw two sets of points of a scrambled Sobol sequence, (samples, cells) float32 each."""
    quasi_random = import_optional("scipy.stats", "scipy", "sobol").qmc
    sequence = quasi_random.Sobol(2 * cells, scramble=True, seed=np.random.default_rng(seed))
    # The sequence is balanced for powers of two.
    points = sequence.random_base2(math.ceil(math.log2(samples)))[:samples].astype(np.float32)
    return points[:, :cells], points[:, cells:]


def _score_masks(
    batch: ExplainedBatch, masks: Array, cell_map: Array, baseline: Any
) -> tuple[Array, Any]:
    """Return the scores, (N, masks) float64, of inputs with masked cells, and target scores."""
    tf = tensorflow()
    target_scores = batch.compute_scores()
    tables = tf.constant(masks[None], tf.float32), tf.constant(cell_map)
    scores = score_masked_images(
        batch.with_classes_of(target_scores), make_segment_masks, len(masks), baseline, *tables
    )
    return scores.astype(np.float64), target_scores


def _make_attribution(values: Array, cell_map: Array, target_scores: Any) -> BatchAttribution:
    """Return the values of cells, (N, cells), as maps."""
    maps = values.astype(np.float32)[:, cell_map[0]]
    return BatchAttribution(maps, target_scores, zero_reasons=(CONSTANT_SCORE,) * len(maps))
