"""Tests of centered kernel alignment against other formulas."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actgrid.statistics.kernel_alignment import compute_alignment, compute_alignment_terms

Array = npt.NDArray[Any]


def count_hsic(a: Array, b: Array) -> float:
    """Compute the unbiased HSIC by its definition: sums over tuples of distinct samples."""
    gram_a, gram_b = a @ a.T, b @ b.T
    indices = range(len(a))
    pairs = [gram_a[i, j] * gram_b[i, j] for i, j in itertools.permutations(indices, 2)]
    triples = [gram_a[i, j] * gram_b[i, q] for i, j, q in itertools.permutations(indices, 3)]
    quadruples = [gram_a[i, j] * gram_b[q, r] for i, j, q, r in itertools.permutations(indices, 4)]
    return float(np.mean(pairs) - 2 * np.mean(triples) + np.mean(quadruples))


@given(count=st.integers(4, 7), seed=st.integers(0, 99))
def test_terms_are_unbiased_estimates(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(count, 3)), rng.normal(size=(count, 2, 5)) + 10
    flat = b.reshape(count, -1)
    expected = [count_hsic(a, flat), count_hsic(a, a), count_hsic(flat, flat)]
    np.testing.assert_allclose(compute_alignment_terms(a, b), expected, rtol=1e-6, atol=1e-8)


def test_invariant_to_rotation_scale_and_shift() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20, 6)).astype(np.float32)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    b = (a @ rotation * 7 + 1000).astype(np.float32)
    assert compute_alignment(compute_alignment_terms(a, b)) == pytest.approx(1, abs=1e-5)
    assert compute_alignment(compute_alignment_terms(a, a)) == pytest.approx(1, abs=1e-12)


def test_independent_representations() -> None:
    rng = np.random.default_rng(0)
    batches = [
        compute_alignment_terms(rng.normal(size=(8, 50)), rng.normal(size=(8, 60)))
        for _ in range(300)
    ]
    assert abs(compute_alignment(np.mean(batches, 0))) < 0.05
    # Large batches of a common signal agree with the CKA of Kornblith (2019), which is biased.
    signal = rng.normal(size=(500, 4))
    a = np.concatenate([signal, rng.normal(size=(500, 4))], 1)
    b = signal @ rng.normal(size=(4, 3))
    centered = a - a.mean(0), b - b.mean(0)
    biased = np.linalg.norm(centered[0].T @ centered[1]) ** 2 / (
        np.linalg.norm(centered[0].T @ centered[0]) * np.linalg.norm(centered[1].T @ centered[1])
    )
    assert compute_alignment(compute_alignment_terms(a, b)) == pytest.approx(biased, abs=0.01)


def test_unknown_values() -> None:
    a = np.random.default_rng(0).normal(size=(4, 3))
    assert np.isnan(compute_alignment_terms(a[:3], a[:3])).all()
    assert np.isnan(compute_alignment(compute_alignment_terms(a[:3], a[:3])))
    assert np.isnan(compute_alignment(compute_alignment_terms(a, np.ones((4, 2)))))
    assert np.isnan(compute_alignment(compute_alignment_terms(a, np.full((4, 2), np.nan))))
