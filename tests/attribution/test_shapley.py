"""Kernel SHAP, against Shapley values by enumeration of all orders."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from keras import layers

from actgrid import explain
from actgrid.attribution.shapley import _choose_coalitions, _solve
from actgrid.errors import MissingDependencyError, OptionError

Array = npt.NDArray[Any]


def compute_shapley_values(score: Any, count: int) -> Array:
    """Compute Shapley values from the scores of all sets, a function of visible segments."""
    values = np.zeros(count)
    for segment in range(count):
        others = [other for other in range(count) if other != segment]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - 1 - size)
            for members in itertools.combinations(others, size):
                gain = score({*members, segment}) - score(set(members))
                values[segment] += weight / math.factorial(count) * gain
    return values


def make_image_case() -> tuple[Any, Array, Array]:
    """Return a network, two images and the segments of their pixels."""
    keras.utils.set_random_seed(3)
    features = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten()]
    model = keras.Sequential([keras.Input((6, 6, 2)), *features, layers.Dense(3)])
    random = np.random.default_rng(0)
    x = random.normal(size=(2, 6, 6, 2)).astype(np.float32)
    rows, columns = np.indices((6, 6))
    return model, x, (rows // 3) * 3 + columns // 2


def test_kernel_shap_of_few_segments_is_exact() -> None:
    model, x, segments = make_image_case()
    result = explain(model, x, "kernel_shap", 1, segments=segments, samples=62, baseline=0.5)
    assert result.signed
    for index, image in enumerate(x):

        def score(visible: set[int], image: Array = image) -> float:
            mask = np.isin(segments, list(visible))[..., None]
            return float(model(np.where(mask, image, 0.5)[None])[0, 1])

        expected = compute_shapley_values(score, 6)
        values = result.details["shapley_values"][index]
        np.testing.assert_allclose(values, expected, atol=1e-5)
        np.testing.assert_allclose(result.values[index], (expected / 6)[segments], atol=1e-5)
        np.testing.assert_allclose(result.details["baseline_score"][index], score(set()), atol=1e-5)
    change = result.score - np.array(result.details["baseline_score"])
    np.testing.assert_allclose(result.values.sum((1, 2)), change, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8), st.integers(0, 99))
def test_all_coalitions_give_exact_shapley_values(count: int, seed: int) -> None:
    scores = np.random.default_rng(seed).normal(size=2**count)

    def score(visible: set[int]) -> float:
        return float(scores[sum(2**segment for segment in visible)])

    coalitions = _choose_coalitions(count, max(2**count, 2), seed)
    assert len(coalitions.weights) == 2**count - 2
    rows = [score(set(np.flatnonzero(row).tolist())) for row in coalitions.visible]
    values = _solve(coalitions, np.array([score(set()), *rows]), score(set(range(count))), count)
    np.testing.assert_allclose(values, compute_shapley_values(score, count), atol=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(2, 300), st.integers(0, 9))
@example(36, 72, 0)  # the sets of one size use up the samples
def test_drawn_coalitions_are_balanced(count: int, samples: int, seed: int) -> None:
    visible, weights = _choose_coalitions(count, samples, seed)
    assert len(visible) == len(weights) <= samples
    np.testing.assert_allclose(weights.sum(), 1)
    sizes = visible.sum(1)
    assert sizes.min() >= 1
    assert sizes.max() <= count - 1
    if len(visible) % 2 == 0:
        # Each set has its complement, so that each segment is visible in half of the samples.
        np.testing.assert_allclose(visible.mean(0), 0.5)


def test_kernel_shap_of_linear_model_is_exact_from_few_samples() -> None:
    weights = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    model = keras.Sequential([keras.Input((20,)), layers.Dense(2)])
    model.layers[0].set_weights([weights, np.ones(2)])
    x = np.random.default_rng(1).normal(size=(3, 20)).astype(np.float32)
    result = explain(model, x, "kernel_shap", 1, samples=60, baseline=0.25)
    np.testing.assert_allclose(result.values, (x - 0.25) * weights[:, 1], rtol=1e-3, atol=1e-4)


def test_more_samples_approach_the_exact_values() -> None:
    model, x, _ = make_image_case()
    segments = np.indices((6, 6))[0] * 2 + np.indices((6, 6))[1] // 3
    exact, *others = (
        explain(model, x, "kernel_shap", 0, segments=segments, samples=samples, baseline=0)
        for samples in (2**12, 1500, 60)
    )
    errors = [np.abs(other.values - exact.values).max() for other in others]
    assert errors[0] < errors[1]
    assert errors[0] < 0.1 * np.abs(exact.values).max()


def test_segments_of_sequences_and_of_each_image() -> None:
    model = keras.Sequential([keras.Input((12, 2)), layers.GlobalAveragePooling1D()])
    x = np.random.default_rng(1).normal(size=(2, 12, 2)).astype(np.float32)
    result = explain(
        model, x, "kernel_shap", lambda y: tf.reduce_sum(y, 1), segments=4, samples=20, baseline=0
    )
    parts = x.sum(2).reshape(2, 4, 3).sum(2) / 12
    np.testing.assert_allclose(np.stack(result.details["shapley_values"]), parts, atol=1e-5)
    labels = np.array([[0] * 12, [0] * 4 + [1] * 8])  # another number for each sample
    result = explain(
        model, x, "kernel_shap", lambda y: tf.reduce_sum(y, 1), segments=labels, baseline=0
    )
    assert [len(values) for values in result.details["shapley_values"]] == [1, 2]
    np.testing.assert_allclose(result.values.sum(1), x.sum((1, 2)) / 12, atol=1e-5)


def test_missing_package_names_the_extra(
    cnn: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MissingDependencyError, match=r"kernel_shap needs scikit-image.*explain\]"):
        explain(*cnn, "kernel_shap")
    with pytest.raises(OptionError, match="samples must be at least 2"):
        explain(*cnn, "kernel_shap", samples=1)
