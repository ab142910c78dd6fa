"""Attribution methods that use the gradient with respect to the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from actgrid import explain
from actgrid.errors import ModelError, OptionError, ShapeError

Array = npt.NDArray[Any]


def make_normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("activation", [None, "softmax"])
@pytest.mark.parametrize("method", ["saliency", "smoothgrad"])
def test_saliency_of_linear_model_is_its_weights(
    make_linear: Callable[..., Any], method: str, activation: str | None
) -> None:
    weights, x = make_normal(4, 5, 3, 2), make_normal(3, 4, 5, 3, seed=1)
    model = make_linear(weights, activation)
    heatmap = explain(model, x, method, target=1, reduce="sum")
    assert_close(heatmap.values, np.broadcast_to(weights[..., 1].sum(-1), (3, 4, 5)))
    assert heatmap.signed
    assert heatmap.is_logit == (activation == "softmax")
    largest = explain(model, x, method, target=1)
    assert_close(largest.values[0], np.abs(weights[..., 1]).max(-1))
    assert not largest.signed
    norm = explain(model, x, method, target=1, reduce="norm")
    assert_close(norm.values[0], np.sqrt((weights[..., 1] ** 2).sum(-1)))


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_gradient_x_input_of_linear_model_is_exact_contribution(
    make_linear: Callable[..., Any], activation: str | None
) -> None:
    weights, x = make_normal(4, 5, 3, 2), make_normal(3, 4, 5, 3, seed=1)
    heatmap = explain(make_linear(weights, activation), x, "gradient_x_input", target=[0, 1, 0])
    for value, pixels, target in zip(heatmap.values, x, [0, 1, 0], strict=True):
        assert_close(value, (weights[..., target] * pixels).sum(-1))
    # The bias is attributed to no pixel.
    assert_close(heatmap.values.sum((1, 2)) + np.array([0, 0.25, 0]), heatmap.score)


@pytest.mark.parametrize("quadrature", ["gauss-legendre", "trapezoid"])
@pytest.mark.parametrize("baseline", [0.0, 2.5, [1.0, 2.0, 3.0], "mean", "image"])
def test_integrated_gradients_of_linear_model(
    make_linear: Callable[..., Any], quadrature: str, baseline: Any
) -> None:
    weights, x = make_normal(4, 5, 3, 2), make_normal(3, 4, 5, 3, seed=1)
    start = {"mean": x.mean((1, 2), keepdims=True), "image": make_normal(4, 5, 3, seed=2)}.get(
        str(baseline), baseline
    )
    options = {"baseline": start if baseline == "image" else baseline, "complete": False}
    model = make_linear(weights)
    heatmap = explain(
        model, x, "integrated_gradients", 1, quadrature=quadrature, steps=7, **options
    )
    assert_close(heatmap.values, (weights[..., 1] * (x - start)).sum(-1), 1e-4)
    rise = heatmap.score - np.array(heatmap.details["baseline_score"])
    assert_close(heatmap.values.sum((1, 2)), rise, 1e-4)
    assert_close(np.array(heatmap.details["convergence_delta"]), 0, 1e-4)


def make_smooth_model() -> Any:
    keras.utils.set_random_seed(1)
    hidden = [layers.Conv2D(8, 3, activation="tanh"), layers.Conv2D(8, 3, activation="gelu")]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]
    return keras.Sequential([keras.Input((9, 9, 3)), *hidden, *head])


@pytest.mark.parametrize("quadrature", ["gauss-legendre", "trapezoid"])
def test_integrated_gradients_of_smooth_model_are_complete(quadrature: str) -> None:
    x = make_normal(4, 9, 9, 3) * 3
    heatmap = explain(
        make_smooth_model(), x, "integrated_gradients", quadrature=quadrature, complete=False
    )
    rise = heatmap.score - np.array(heatmap.details["baseline_score"])
    assert np.abs(rise).min() > 0.01
    assert_close(heatmap.values.sum((1, 2)) / rise, 1, 0.01)


def test_complete_distributes_the_convergence_delta(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    # Three steps leave a large convergence delta, which is distributed over the pixels.
    options: dict[str, Any] = {"steps": 3, "baseline": [1.0, -2.0, 3.0]}
    heatmap = explain(model, x, "integrated_gradients", **options)
    incomplete = explain(model, x, "integrated_gradients", complete=False, **options)
    rise = heatmap.score - np.array(heatmap.details["baseline_score"])
    assert_close(heatmap.values.sum((1, 2)), rise, 1e-4)
    convergence_delta = np.array(heatmap.details["convergence_delta"])
    assert np.abs(convergence_delta).max() > 1e-3
    assert_close(incomplete.values.sum((1, 2)) + convergence_delta, rise, 1e-4)


def test_integrated_gradients_of_squares_are_exact() -> None:
    # The integral of 2 t x times x, over t from 0 to 1, is x squared.
    inputs = keras.Input((2, 3, 1))
    model = keras.Model(inputs, layers.Activation("linear")(inputs))

    def squares(outputs: Any) -> Any:
        return tf.reduce_sum(outputs**2, (1, 2, 3))

    x = make_normal(2, 2, 3, 1)
    heatmap = explain(model, x, "integrated_gradients", squares, steps=2, complete=False)
    assert_close(heatmap.values, x[..., 0] ** 2)
    assert heatmap.target is None
    assert_close(heatmap.score, (x**2).sum((1, 2, 3)))
    assert_close(explain(model, x, "saliency", squares, reduce="sum").values, 2 * x[..., 0])


@settings(max_examples=15)
@given(
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([1, 3]),
    st.integers(1, 7),
)
def test_integrated_gradients_of_any_shape_and_batch_size(
    images: int, height: int, width: int, channels: int, batch_size: int
) -> None:
    weights = make_normal(height, width, channels, 2)
    flat = layers.Flatten()
    model = keras.Sequential([keras.Input((height, width, channels)), flat, layers.Dense(2)])
    model.layers[-1].set_weights([weights.reshape(-1, 2), np.zeros(2)])
    x = make_normal(images, height, width, channels, seed=1)
    heatmap = explain(
        model, x, "integrated_gradients", 0, batch_size=batch_size, steps=3, baseline=1.0
    )
    assert_close(heatmap.values, (weights[..., 0] * (x - 1)).sum(-1), 1e-4)


def test_saliency_matches_tape_on_every_model_type(any_model: tuple[Any, Any]) -> None:
    model, x = any_model
    image = x["image"] if isinstance(x, dict) else x

    def second(outputs: Any) -> Any:
        return outputs[:, 1]

    with tf.GradientTape() as tape:
        pixels = tf.constant(image)
        tape.watch(pixels)
        inputs = {"vector": tf.constant(x["vector"]), "image": pixels} if image is not x else pixels
        score = model(inputs)[:, 1]
    expected = tape.gradient(score, pixels).numpy()
    heatmap = explain(model, x, "saliency", second, reduce="sum")
    assert_close(heatmap.values, expected.sum(-1))
    assert_close(heatmap.score, score)


def test_smoothgrad_averages_over_noisy_copies(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    silent = explain(model, x, "smoothgrad", noise=0, samples=3, reduce="sum")
    assert_close(silent.values, explain(model, x, "saliency", reduce="sum").values)
    first = explain(model, x, "smoothgrad", samples=4, seed=1)
    repeated = explain(model, x, "smoothgrad", samples=4, seed=1, batch_size=3)
    assert_close(repeated.values, first.values)
    other = explain(model, x, "smoothgrad", samples=4, seed=2)
    assert not np.allclose(other.values, first.values, atol=1e-4)
    # A single sample, against TensorFlow's random numbers.
    single = explain(model, x[:1], "smoothgrad", samples=1, seed=7, noise=0.3, target=0)
    noise = tf.random.stateless_normal(x.shape[1:], (7, 0)) * (0.3 * np.ptp(x[0]))
    assert_close(single.values, explain(model, x[:1] + noise[None], "saliency", target=0).values)


def test_smoothgrad_distinguishes_large_seeds(cnn: tuple[Any, Any]) -> None:
    model, x = cnn
    first, second = (
        explain(model, x[:1], "smoothgrad", samples=2, seed=2**31 - seed).values for seed in (1, 2)
    )
    assert not np.allclose(first, second)


def test_model_without_gradient_is_rejected() -> None:
    inputs = keras.Input((4, 4, 3))
    counted = layers.Lambda(lambda x: tf.cast(tf.cast(x, tf.int32), tf.float32))(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(counted)))
    with pytest.raises(ModelError, match=r"no gradient with respect to the input.*occlusion"):
        explain(model, make_normal(1, 4, 4, 3), "saliency")
    assert explain(model, 9 * make_normal(1, 4, 4, 3), "occlusion", patch=1).values.any()


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("saliency", {"reduce": "mean"}, "reduce must be one of max, norm, sum, none, not 'mean'"),
        ("integrated_gradients", {"steps": 1}, "steps must be at least 2"),
        ("integrated_gradients", {"steps": 2.5}, "steps must be an integer"),
        ("integrated_gradients", {"steps": 10**9}, "steps must be at most 1,024"),
        ("saliency", {"reduce": ["max"]}, "reduce must be one of"),
        ("integrated_gradients", {"baseline": None}, "and finite, not None"),
        ("integrated_gradients", {"baseline": [0, 0, np.nan]}, "and finite"),
        (
            "integrated_gradients",
            {"baseline": object()},
            "baseline must be a number, one number for each",
        ),
        ("integrated_gradients", {"quadrature": "simpson"}, "gauss-legendre, trapezoid"),
        (
            "integrated_gradients",
            {"baseline": "black"},
            "baseline must be mean, a number, a number for each channel",
        ),
        ("smoothgrad", {"noise": -1}, "noise must be a number of at least 0, not -1"),
        ("smoothgrad", {"noise": float("nan")}, "noise must be a number"),
        ("smoothgrad", {"noise": None}, "noise must be a number"),
        ("smoothgrad", {"noise": "0.1"}, "noise must be a number"),
        ("smoothgrad", {"samples": 0}, "samples must be at least 1"),
        ("smoothgrad", {"seed": -1}, "seed must be at least 0"),
    ],
)
def test_invalid_options_are_rejected(
    cnn: tuple[Any, Any], method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        explain(*cnn, method, **options)


@pytest.mark.parametrize("baseline", [np.zeros((7, 7, 3)), [1.0, 2.0], np.zeros((2, 12, 12, 3))])
def test_baseline_of_wrong_shape_is_rejected(cnn: tuple[Any, Any], baseline: Any) -> None:
    with pytest.raises(
        ShapeError, match=r"baseline of shape .* does not broadcast to inputs of \(5, 12"
    ):
        explain(*cnn, "integrated_gradients", baseline=baseline)
