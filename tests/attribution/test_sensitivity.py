"""Sobol indices and HSIC of masks, against analytic values and direct formulas."""

from __future__ import annotations

import sys
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from tests.attribution.packages import skip_without_packages

from actgrid import explain
from actgrid.attribution.methods import get_methods
from actgrid.attribution.packages import check_packages
from actgrid.errors import MissingDependencyError

Array = npt.NDArray[Any]
METHODS = ["sobol", "hsic"]


def make_linear_model(weights: Array) -> Any:
    """Return a model whose output is the sum of the input times weights."""
    model = keras.Sequential([keras.Input(weights.shape), layers.Flatten(), layers.Dense(1)])
    model.layers[-1].set_weights([weights.reshape(-1, 1), np.zeros(1)])
    return model


def first_output(outputs: Any) -> Any:
    return outputs[:, 0]


def test_sobol_indices_of_additive_function_are_analytic() -> None:
    skip_without_packages("sobol")
    # The variance of a sum of uniform variables is the sum of squared coefficients, over 12.
    weights = np.array([[1.0, -2.0], [0.0, 3.0]], np.float32).repeat(2, 0).repeat(2, 1)[..., None]
    x = np.full((1, 4, 4, 1), 0.5, np.float32)
    result = explain(
        make_linear_model(weights), x, "sobol", first_output, samples=1024, grid_size=2, baseline=0
    )
    squares = np.array([[1, 4], [0, 9]]) / 14
    np.testing.assert_allclose(result.values[0], squares.repeat(2, 0).repeat(2, 1), atol=0.01)
    assert not result.signed


def test_total_sobol_indices_include_interactions() -> None:
    skip_without_packages("sobol")
    inputs = keras.Input((3,))
    outputs = inputs[:, :1] * inputs[:, 1:2] + 0 * inputs[:, 2:]
    result = explain(
        keras.Model(inputs, outputs),
        np.ones((1, 3), np.float32),
        "sobol",
        first_output,
        samples=2048,
        baseline=0,
    )
    # Var(xy) = 1/9 - 1/16; the part that does not vary with y is Var(x/2) = 1/48.
    total = 1 - (1 / 48) / (1 / 9 - 1 / 16)
    np.testing.assert_allclose(result.values[0], [total, total, 0], atol=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(12, 12, 3), (20, 2), (8, 8, 8, 1), (6,)])
def test_only_relevant_cell_is_first(method: str, shape: tuple[int, ...]) -> None:
    skip_without_packages(method)
    weights = np.zeros(shape, np.float32)
    weights[tuple(side // 2 for side in (shape[:-1] or shape))] = 1
    x = np.ones((2, *shape), np.float32)
    options: Any = {"samples": 32, "grid_size": 4, "baseline": 0}
    result = explain(make_linear_model(weights), x, method, first_output, **options)
    axes = shape[:-1] or shape
    assert result.values.shape == (2, *axes)
    for values in result.values:
        is_largest = values == values.max()
        assert is_largest[tuple(side // 2 for side in axes)]
        cells = 6 if len(shape) == 1 else 4 ** len(axes)
        assert is_largest.sum() == np.prod(axes) / cells
        assert values.max() > 2 * np.median(values)


@pytest.mark.parametrize("method", METHODS)
def test_a_grid_larger_than_the_input_has_a_cell_for_each_position(method: str) -> None:
    skip_without_packages(method)
    weights = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    x = np.ones((1, 2, 3, 1), np.float32)
    result = explain(
        make_linear_model(weights), x, method, first_output, samples=64, grid_size=9, baseline=0
    )
    assert len(np.unique(result.values)) == 6


def test_hsic_matches_its_definition() -> None:
    samples, seed = 40, 3
    weights = np.array([3.0, -1.0, 0.0, 0.5], np.float32)
    x = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    result = explain(
        make_linear_model(weights), x, "hsic", first_output, samples=samples, seed=seed, baseline=0
    )
    halves = np.tile(np.arange(samples) % 2, (4, 1))
    masks = np.random.default_rng(seed).permuted(halves, axis=1).T
    scores = masks * x @ weights
    distances = np.abs(scores[:, None] - scores)
    pairs = distances[np.triu_indices(samples, 1)]
    output_kernel = np.exp(-((distances / np.median(pairs)) ** 2) / 2)
    centring = np.eye(samples) - 1 / samples
    expected = []
    for column in masks.T:
        input_kernel = 0.5 - (column[:, None] - column) ** 2
        product = input_kernel @ centring @ output_kernel @ centring
        expected.append(np.trace(product) / (samples - 1) ** 2)
    np.testing.assert_allclose(result.values[0], expected, rtol=1e-4, atol=1e-7)


def test_missing_package_names_the_extra(
    cnn: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(MissingDependencyError, match=r"sobol needs scipy.*'actgrid\[explain\]'"):
        explain(*cnn, "sobol")
    monkeypatch.setattr("actgrid.attribution.packages.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"sobol needs scipy.*'actgrid\[explain\]'"):
        check_packages(get_methods()["sobol"])
    check_packages(get_methods()["hsic"])
