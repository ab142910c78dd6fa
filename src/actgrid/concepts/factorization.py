"""Nonnegative matrix factorization of activations."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.concepts.layer_outputs import import_package
from actgrid.errors import ShapeError

__all__ = ["check_activations", "factorize", "find_coefficients"]

Array = npt.NDArray[Any]

# Largest fraction of negative activations, by their absolute sum, that are set to zero.
_MAX_NEGATIVE_FRACTION = 0.1
_MAX_ITERATIONS = 1000


def check_activations(activations: Array, layer: str) -> npt.NDArray[np.float32]:
    """Return activations with negative values set to zero.

    Raises
    ------
    ShapeError
        If too many activations are negative, or all are zero.
    """
    positive = np.maximum(activations, 0).astype(np.float32)
    total = float(np.abs(activations).sum())
    negative = total - float(positive.sum())
    if negative > _MAX_NEGATIVE_FRACTION * total:
        raise ShapeError(
            f"layer {layer} has negative activations: {negative / total:.0%} of their absolute "
            "sum; expected the output of a ReLU or of a similar activation"
        )
    if not positive.any():
        raise ShapeError(f"layer {layer} has no activation above zero for these images")
    return positive


def factorize(
    activations: npt.NDArray[np.float32], concepts: int, seed: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Factorize activations (M, C) into coefficients (M, K) times a concept bank (K, C)."""
    decomposition = import_package("sklearn.decomposition")
    initialization = "nndsvda" if concepts <= min(activations.shape) else "random"
    factorization = decomposition.NMF(
        concepts, init=initialization, random_state=seed, max_iter=_MAX_ITERATIONS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about convergence, which changes the concepts little
        coefficients = factorization.fit_transform(activations)
    return coefficients.astype(np.float32), factorization.components_.astype(np.float32)


def find_coefficients(
    activations: npt.NDArray[np.float32], bank: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Fit nonnegative coefficients (..., K) of a fixed bank to activations (..., C).

    The fit minimizes the squared error.
    """
    decomposition = import_package("sklearn.decomposition")
    rows = activations.reshape(-1, activations.shape[-1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coefficients, _, _ = decomposition.non_negative_factorization(
            rows,
            H=bank,
            n_components=len(bank),
            init="custom",
            update_H=False,
            max_iter=_MAX_ITERATIONS,
        )
    return np.reshape(coefficients, (*activations.shape[:-1], len(bank))).astype(np.float32)
