from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from actgrid import explain
from actgrid.errors import MissingDependencyError, OptionError, ShapeError

pytest.importorskip("sklearn")
pytest.importorskip("skimage")

# Four superpixels of a 6 x 6 image, their numbers with gaps, and what each adds to the score.
SEGMENTS = np.array([10, 20, 30, 77]).reshape(2, 2).repeat(3, 0).repeat(3, 1)
WEIGHTS = np.array([3.0, -2.0, 0.5, 0.0])


def of_superpixels(linear: Callable[..., Any]) -> Any:
    weights = np.zeros((6, 6, 1, 2), np.float32)
    for number, weight in zip(np.unique(SEGMENTS), WEIGHTS, strict=True):
        weights[number == SEGMENTS, 0, 1] = weight / 9
    return linear(weights)


def test_lime_recovers_a_linear_function_of_superpixels(linear: Callable[..., Any]) -> None:
    x = np.ones((2, 6, 6, 1), np.float32)
    found = explain(
        of_superpixels(linear),
        x,
        "lime",
        1,
        segments=np.stack([SEGMENTS, SEGMENTS.T]),
        samples=200,
        ridge=1e-6,
        baseline=0.0,
        features=1,
    )
    weights, other = found.details["weights"]
    np.testing.assert_allclose(weights, WEIGHTS, atol=1e-3)
    # Of superpixels that are not those of the function the weights are other ones.
    np.testing.assert_allclose(other, WEIGHTS[[0, 2, 1, 3]], atol=1e-3)
    assert found.details["intercept"][0] == pytest.approx(0.25, abs=1e-3)
    assert found.details["r_squared"][0] == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(found.details["mask"][0], SEGMENTS == 10)
    np.testing.assert_array_equal(
        found.details["segments"][0], np.searchsorted([10, 20, 30, 77], SEGMENTS)
    )
    np.testing.assert_allclose(found.values[0], weights[found.details["segments"][0]])
    assert found.signed


def test_only_what_speaks_for_the_target_is_in_the_mask(linear: Callable[..., Any]) -> None:
    x = np.ones((1, 6, 6, 1), np.float32)
    options: dict[str, Any] = {"segments": SEGMENTS, "samples": 200, "baseline": 0.0}
    found = explain(of_superpixels(linear), x, "lime", 1, ridge=1e-6, features=3, **options)
    assert not found.details["mask"][0][SEGMENTS == 20].any()
    assert found.details["mask"][0][SEGMENTS == 30].all()
    # A stronger ridge makes weights smaller.
    strong = explain(of_superpixels(linear), x, "lime", 1, ridge=1e3, **options)
    assert np.abs(strong.details["weights"][0]).max() < 1


def test_what_is_hidden_has_its_mean_colour(linear: Callable[..., Any]) -> None:
    # No superpixel then changes a score that depends on means alone.
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 1)).astype(np.float32)
    found = explain(of_superpixels(linear), x, "lime", 1, segments=SEGMENTS, samples=50)
    np.testing.assert_allclose(found.details["weights"][0], 0, atol=1e-5)


@pytest.fixture
def smooth(cnn: tuple[Any, Any]) -> tuple[Any, Any]:
    """A network, and images that are no noise."""
    y, x = np.indices((12, 12)) / 12
    image = np.stack([x, y, np.sin(6 * x)], -1)
    images = np.stack([image, 1 - image, image**2, image[::-1], image[:, ::-1]])
    return cnn[0], images.astype(np.float32)


def test_superpixels_by_number_and_by_function(smooth: tuple[Any, Any]) -> None:
    model, x = smooth
    found = explain(model, x, "lime", segments=9, samples=20)
    assert all(4 <= len(weights) <= 20 for weights in found.details["weights"])
    gray = keras.Sequential([keras.Input((12, 12, 1)), layers.Flatten(), layers.Dense(2)])
    found = explain(gray, x[..., :1], "lime", segments=9, samples=20)
    assert all(4 <= len(weights) <= 20 for weights in found.details["weights"])
    seen = []

    def halves(image: Any) -> Any:
        seen.append(image)
        return np.arange(12)[:, None].repeat(12, 1) // 6

    by_function = explain(model, x, "lime", segments=halves, samples=20)
    np.testing.assert_array_equal(np.stack(seen), x)
    assert [len(weights) for weights in by_function.details["weights"]] == [2] * 5


def test_the_seed_decides_and_batches_do_not(smooth: tuple[Any, Any]) -> None:
    model, x = smooth
    first = explain(model, x, "lime", segments=9, samples=40, seed=1)
    again = explain(model, x, "lime", segments=9, samples=40, seed=1, batch_size=3)
    np.testing.assert_allclose(again.values, first.values, rtol=1e-3, atol=1e-5)
    other = explain(model, x, "lime", segments=9, samples=40, seed=2)
    assert not np.allclose(other.values, first.values, rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples must be at least 2"),
        ({"features": 0}, "features must be at least 1"),
        ({"kernel_width": 0}, "kernel_width must be a number greater than 0, not 0"),
        ({"ridge": -1}, "ridge must be a number of at least 0"),
        ({"ridge": "1"}, "ridge must be a number"),
        ({"kernel_width": None}, "kernel_width must be a number"),
        ({"segments": 1}, "segments must be at least 2"),
        ({"segments": "slic"}, "segments must be an integer"),
    ],
)
def test_options_that_cannot_be(
    cnn: tuple[Any, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        explain(*cnn, "lime", **options)


@pytest.mark.parametrize("segments", [np.zeros((5, 5), int), np.zeros((5, 12, 12))])
def test_superpixels_of_another_shape_or_type(cnn: tuple[Any, Any], segments: Any) -> None:
    with pytest.raises(ShapeError, match=r"segments must be .* \(5, 12, 12\) integers"):
        explain(*cnn, "lime", segments=segments)


def test_what_to_install(cnn: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingDependencyError, match=r"scikit-learn.*'actgrid\[explain\]'"):
        explain(*cnn, "lime")
