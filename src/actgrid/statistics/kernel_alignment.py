"""Centered kernel alignment (CKA): similarity of two representations of the same samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_SAMPLES", "compute_alignment", "compute_alignment_terms"]

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

# The unbiased estimate of HSIC is defined from this number of samples on.
MIN_SAMPLES = 4
# Number of values whose products are computed at once; they fit in the cache.
_BLOCK_SIZE = 1 << 16


def compute_alignment_terms(a: Array, b: Array) -> Floats:
    """Compute the terms of the linear CKA of two representations of a batch.

    The terms are unbiased estimates of the Hilbert-Schmidt independence criterion (HSIC). They can
    therefore be averaged over batches of any size.

    Parameters
    ----------
    a, b
        (N, ...) representations of the same N samples, in any number of dimensions.

    Returns
    -------
    numpy.ndarray
        (3,) float64: HSIC of a and b, of a and a, of b and b. NaN for fewer than four samples, or
        if a value is not finite.

    References
    ----------
    Song et al., Feature Selection via Dependence Maximization, 2012 (unbiased HSIC).
    """
    if len(a) < MIN_SAMPLES:
        return np.full(3, np.nan)
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite give NaN
        grams = _compute_gram_matrix(a), _compute_gram_matrix(b)
        pairs = ((0, 1), (0, 0), (1, 1))
        return np.array([_estimate_hsic(grams[first], grams[second]) for first, second in pairs])


def compute_alignment(terms: npt.ArrayLike) -> float:
    """Compute the linear CKA from its terms, averaged over batches.

    Parameters
    ----------
    terms
        (3,) mean of the results of `compute_alignment_terms`.

    Returns
    -------
    float
        1 if the representations are equal up to rotation and scale, about 0 if they are
        independent; NaN if one of them is constant, or if the terms are not known.

    References
    ----------
    Kornblith et al., Similarity of Neural Network Representations Revisited, 2019,
    https://arxiv.org/abs/1905.00414.
    Nguyen et al., Do Wide and Deep Networks Learn the Same Things?, 2021 (minibatch CKA),
    https://arxiv.org/abs/2010.15327.
    """
    both, a, b = np.asarray(terms, np.float64)
    if not (a > 0 and b > 0):
        return float("nan")
    return float(both / np.sqrt(a) / np.sqrt(b))


def _compute_gram_matrix(values: Array) -> Floats:
    """Return the inner products of the samples, (N, N), with zeros on the diagonal."""
    flat = values.reshape(len(values), -1)
    if flat.dtype != np.float64:
        flat = flat.astype(np.float32, copy=False)
    count, size = flat.shape
    width = max(1, _BLOCK_SIZE // count)
    gram: Floats = np.zeros((count, count))
    for start in range(0, size, width):
        block = flat[:, start : start + width]
        # HSIC does not depend on a shift; a large common part would cost precision.
        shifted = block - block[0]
        gram += shifted @ shifted.T
    np.fill_diagonal(gram, 0)
    return gram


def _estimate_hsic(gram_a: Floats, gram_b: Floats) -> float:
    count = len(gram_a)
    sums_a, sums_b = gram_a.sum(0), gram_b.sum(0)
    total = (gram_a * gram_b).sum()
    total += sums_a.sum() * sums_b.sum() / ((count - 1) * (count - 2))
    total -= 2 * (sums_a @ sums_b) / (count - 2)
    return float(total / (count * (count - 3)))
