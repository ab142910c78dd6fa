"""Correlation of attribution maps and other values by samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["correlate", "correlate_ranks", "rank_values"]

Array = npt.NDArray[Any]


def rank_values(values: Array) -> npt.NDArray[np.float64]:
    """Return the ranks of the values of each row; equal values have their mean rank.

    Parameters
    ----------
    values
        (N, K).

    Returns
    -------
    ndarray
        (N, K), from 0.
    """
    ranks = np.empty(values.shape, np.float64)
    for row, target in zip(values, ranks, strict=True):
        _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        target[:] = (last - (counts + 1) / 2)[inverse.reshape(-1)]
    return ranks


def correlate(first: Array, second: Array) -> npt.NDArray[np.float64]:
    """Return the correlation coefficient (Pearson) of two arrays, row by row.

    Parameters
    ----------
    first, second
        (N, K).

    Returns
    -------
    ndarray
        (N,) from -1 to 1; NaN for a constant row.
    """
    deviations = [
        array - array.mean(1, keepdims=True)
        for array in (first.astype(np.float64), second.astype(np.float64))
    ]
    squares = [(deviation**2).sum(1) for deviation in deviations]
    product: npt.NDArray[np.float64] = (deviations[0] * deviations[1]).sum(1)
    norm = np.sqrt(squares[0] * squares[1])
    quotient = np.divide(product, norm, np.full_like(product, np.nan), where=norm > 0)
    coefficients: npt.NDArray[np.float64] = np.clip(quotient, -1, 1)
    return coefficients


def correlate_ranks(first: Array, second: Array) -> npt.NDArray[np.float64]:
    """Return the rank correlation coefficient (Spearman) of two arrays, row by row.

    See `correlate`.
    """
    return correlate(rank_values(first), rank_values(second))
