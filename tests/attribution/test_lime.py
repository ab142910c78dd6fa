"""LIME, against linear functions of superpixels."""

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

# Four superpixels of a 6 x 6 image, numbered with gaps, and the contribution of each to the score.
SEGMENTS = np.array([10, 20, 30, 77]).reshape(2, 2).repeat(3, 0).repeat(3, 1)
WEIGHTS = np.array([3.0, -2.0, 0.5, 0.0])


def make_superpixel_model(make_linear: Callable[..., Any]) -> Any:
    weights = np.zeros((6, 6, 1, 2), np.float32)
    for index, weight in zip(np.unique(SEGMENTS), WEIGHTS, strict=True):
        weights[index == SEGMENTS, 0, 1] = weight / 9
    return make_linear(weights)


def test_lime_recovers_linear_function_of_superpixels(make_linear: Callable[..., Any]) -> None:
    x = np.ones((2, 6, 6, 1), np.float32)
    heatmap = explain(
        make_superpixel_model(make_linear),
        x,
        "lime",
        1,
        segments=np.stack([SEGMENTS, SEGMENTS.T]),
        samples=200,
        ridge=1e-6,
        baseline=0.0,
        features=1,
    )
    weights, other = heatmap.details["weights"]
    np.testing.assert_allclose(weights, WEIGHTS, atol=1e-3)
    # The transposed superpixels swap two weights.
    np.testing.assert_allclose(other, WEIGHTS[[0, 2, 1, 3]], atol=1e-3)
    assert heatmap.details["intercept"][0] == pytest.approx(0.25, abs=1e-3)
    assert heatmap.details["r_squared"][0] == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(heatmap.details["mask"][0], SEGMENTS == 10)
    np.testing.assert_array_equal(
        heatmap.details["segments"][0], np.searchsorted([10, 20, 30, 77], SEGMENTS)
    )
    np.testing.assert_allclose(heatmap.values[0], weights[heatmap.details["segments"][0]])
    assert heatmap.signed


def test_mask_has_only_positive_superpixels(make_linear: Callable[..., Any]) -> None:
    x = np.ones((1, 6, 6, 1), np.float32)
    options: dict[str, Any] = {"segments": SEGMENTS, "samples": 200, "baseline": 0.0}
    heatmap = explain(
        make_superpixel_model(make_linear), x, "lime", 1, ridge=1e-6, features=3, **options
    )
    assert not heatmap.details["mask"][0][SEGMENTS == 20].any()
    assert heatmap.details["mask"][0][SEGMENTS == 30].all()
    # A stronger ridge makes weights smaller.
    strong = explain(make_superpixel_model(make_linear), x, "lime", 1, ridge=1e3, **options)
    assert np.abs(strong.details["weights"][0]).max() < 1


def test_default_baseline_is_mean_colour_of_superpixel(make_linear: Callable[..., Any]) -> None:
    # The score depends only on the means of the superpixels, so hiding one does not change it.
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 1)).astype(np.float32)
    heatmap = explain(
        make_superpixel_model(make_linear), x, "lime", 1, segments=SEGMENTS, samples=50
    )
    np.testing.assert_allclose(heatmap.details["weights"][0], 0, atol=1e-5)


@pytest.fixture
def cnn_and_smooth_images(cnn: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return a network and cnn_and_smooth_images images, which SLIC can segment."""
    y, x = np.indices((12, 12)) / 12
    image = np.stack([x, y, np.sin(6 * x)], -1)
    images = np.stack([image, 1 - image, image**2, image[::-1], image[:, ::-1]])
    return cnn[0], images.astype(np.float32)


def test_segments_as_number_and_function(cnn_and_smooth_images: tuple[Any, Any]) -> None:
    model, x = cnn_and_smooth_images
    heatmap = explain(model, x, "lime", segments=9, samples=20)
    assert all(4 <= len(weights) <= 20 for weights in heatmap.details["weights"])
    gray = keras.Sequential([keras.Input((12, 12, 1)), layers.Flatten(), layers.Dense(2)])
    heatmap = explain(gray, x[..., :1], "lime", segments=9, samples=20)
    assert all(4 <= len(weights) <= 20 for weights in heatmap.details["weights"])
    segmented_images = []

    def segment_halves(image: Any) -> Any:
        segmented_images.append(image)
        return np.arange(12)[:, None].repeat(12, 1) // 6

    by_function = explain(model, x, "lime", segments=segment_halves, samples=20)
    np.testing.assert_array_equal(np.stack(segmented_images), x)
    assert [len(weights) for weights in by_function.details["weights"]] == [2] * 5


def test_result_depends_on_seed_but_not_on_batch_size(
    cnn_and_smooth_images: tuple[Any, Any],
) -> None:
    model, x = cnn_and_smooth_images
    first = explain(model, x, "lime", segments=9, samples=40, seed=1)
    repeated = explain(model, x, "lime", segments=9, samples=40, seed=1, batch_size=3)
    np.testing.assert_allclose(repeated.values, first.values, rtol=1e-3, atol=1e-5)
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
def test_invalid_options_are_rejected(
    cnn: tuple[Any, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        explain(*cnn, "lime", **options)


@pytest.mark.parametrize("segments", [np.zeros((5, 5), int), np.zeros((5, 12, 12))])
def test_invalid_segments_are_rejected(cnn: tuple[Any, Any], segments: Any) -> None:
    with pytest.raises(ShapeError, match=r"segments must be .* \(5, 12, 12\) integers"):
        explain(*cnn, "lime", segments=segments)


def test_missing_package_names_the_extra(
    cnn: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(MissingDependencyError, match=r"scikit-learn.*'actgrid\[explain\]'"):
        explain(*cnn, "lime")
