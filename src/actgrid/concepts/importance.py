"""Importance of concepts for a class: total Sobol indices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch, ScoreReader, gather_rows
from actgrid.concepts.layer_outputs import import_package, replace_output
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import LayerInfo

__all__ = ["compute_total_indices", "make_masks", "measure_importance"]

Array = npt.NDArray[Any]


def make_masks(concepts: int, samples: int) -> npt.NDArray[np.float32]:
    """Return masks of concepts from which `compute_total_indices` estimates Sobol indices.

    Parameters
    ----------
    concepts
        Number of concepts, K.
    samples
        Number of points of each of two independent sets, A and B.

    Returns
    -------
    numpy.ndarray
        ((K + 2) * samples, K) float32 from 0 to 1: the points of A, of B, and for each concept k
        the points of A with the value of concept k from B.
    """
    sampler = import_package("scipy.stats").qmc.Sobol(2 * concepts, scramble=False)
    sampler.fast_forward(1)  # the first point of the sequence is 0 for all concepts
    points = sampler.random(samples).astype(np.float32)
    first, second = points[:, :concepts], points[:, concepts:]
    mixed = np.repeat(first[None], concepts, axis=0)
    concept = np.arange(concepts)
    mixed[concept, :, concept] = second.T
    return np.concatenate([first, second, *mixed])


def compute_total_indices(scores: Array, concepts: int) -> npt.NDArray[np.float64]:
    """Estimate total Sobol indices from the scores of masked concepts (Jansen, 1999).

    Parameters
    ----------
    scores
        (N, (K + 2) * samples): scores of N images for the masks of `make_masks`.
    concepts
        Number of concepts, K.

    Returns
    -------
    numpy.ndarray
        (N, K) float64: fraction of the variance of the score that each concept takes part in. 0
        for an image whose score does not vary.
    """
    parts = np.reshape(scores.astype(np.float64), (len(scores), concepts + 2, -1))
    variance = parts[:, :2].reshape(len(scores), -1).var(axis=1, keepdims=True)
    squares: Array = ((parts[:, 2:] - parts[:, :1]) ** 2).mean(axis=2) / 2
    has_variance = np.broadcast_to(variance > 1e-12, squares.shape)
    return np.where(has_variance, squares / np.where(has_variance, variance, 1), 0)


@dataclass(frozen=True)
class _MaskedScores:
    """Function that computes scores from a layer's output rebuilt from masked concepts.

    The explained tensor of the batch holds the coefficients of the concepts, (N, h, w, K).
    """

    reader: ScoreReader
    concepts: int
    channels: int

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        image: Any,
        sample: Any,
        bank: Any,
        masks: Any,
    ) -> Any:
        tf = tensorflow()
        rows = gather_rows(inputs, image)
        (coefficients,) = self.reader.get_explained(rows)
        masks = tf.ensure_shape(masks, [None, self.concepts])
        coefficients *= tf.gather(masks, sample)[:, None, None]
        bank = tf.ensure_shape(bank, [self.concepts, self.channels])
        output = tf.tensordot(coefficients, bank, 1)
        if self.reader.explained[0].channels_first:
            output = tf.transpose(output, (0, 3, 1, 2))
        rows = self.reader.replace_explained(rows, [output])
        classes = tf.gather(target_classes, image)
        return self.reader.run(model, rows, classes).target_scores.scores


def measure_importance(
    batch: ExplainedBatch,
    info: LayerInfo,
    coefficients: npt.NDArray[np.float32],
    bank: npt.NDArray[np.float32],
    samples: int,
) -> npt.NDArray[np.float64]:
    """Measure the total Sobol index of each concept for the score of each image.

    The concepts are masked, the output of the layer is rebuilt from them, and the rest of the model
    computes the score.

    Parameters
    ----------
    batch
        N images with their classes.
    info
        The layer.
    coefficients
        (N, h, w, K): coefficients of the concepts at each position of the layer.
    bank
        (K, C): activation of each concept.
    samples
        Number of points of each set of masks, see `make_masks`.

    Returns
    -------
    numpy.ndarray
        (N, K) float64.
    """
    tf = tensorflow()
    masks = make_masks(len(bank), samples)
    replaced = replace_output(batch, info, tf.constant(coefficients))
    body = _MaskedScores(replaced.reader, len(bank), bank.shape[1])
    scores = [
        rows.numpy()
        for rows in replaced.run_samples(body, len(masks), tf.constant(bank), tf.constant(masks))
    ]
    return compute_total_indices(np.concatenate(scores).reshape(len(batch), -1), len(bank))
