"""Squares and variances of gradients, and expected gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid import explain
from actgrid.errors import OptionError, ShapeError

Array = npt.NDArray[Any]


def make_normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def compute_gradients(model: Any, x: Array, target: int) -> Array:
    """Compute gradients of logits by a tape."""
    with tf.GradientTape() as tape:
        values = tf.constant(x)
        tape.watch(values)
        scores = model(values)[:, target]
    gradients: Array = tape.gradient(scores, values).numpy()
    return gradients


def compute_noisy_gradients(
    model: Any, x: Array, target: int, samples: int, noise: float, seed: int
) -> Array:
    """Compute the gradients at noisy copies of images, (samples, N, H, W, C) float64."""
    spans = np.ptp(x, axis=(1, 2, 3))[:, None, None, None]
    gradients = []
    for sample in range(samples):
        noisy = x + noise * spans * tf.random.stateless_normal(x.shape[1:], (seed, sample))
        gradients.append(compute_gradients(model, noisy.numpy(), target).astype(np.float64))
    return np.array(gradients)


def test_vargrad_and_smoothgrad_squared_summarize_noisy_gradients(
    cnn: tuple[Any, Any], cnn_logits: Any
) -> None:
    model, x = cnn
    options: dict[str, Any] = {"samples": 5, "noise": 0.2, "seed": 3}
    gradients = compute_noisy_gradients(cnn_logits, x, 1, **options)
    for method, expected in (
        ("vargrad", gradients.var(0)),
        ("smoothgrad_squared", (gradients**2).mean(0)),
    ):
        heatmap = explain(model, x, method, 1, reduce="none", batch_size=7, **options)
        np.testing.assert_allclose(heatmap.values, expected, rtol=1e-3, atol=1e-9)
        assert not heatmap.signed
        largest = explain(model, x, method, 1, **options)
        np.testing.assert_allclose(largest.values, expected.max(-1), rtol=1e-3, atol=1e-9)


def test_vargrad_of_linear_model_is_zero_without_cancellation() -> None:
    # Large equal gradients: the difference of two means of squares would be noise in float32.
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.layers[0].set_weights([np.full((4, 1), 1e4), np.zeros(1)])
    with pytest.warns(UserWarning, match="maps are zero everywhere"):
        result = explain(model, make_normal(2, 4), "vargrad", lambda y: y[:, 0])
    assert not result.values.any()


def test_square_grad_is_the_squared_gradient(cnn: tuple[Any, Any], cnn_logits: Any) -> None:
    model, x = cnn
    expected = compute_gradients(cnn_logits, x, 2) ** 2
    heatmap = explain(model, x, "square_grad", 2, reduce="sum")
    np.testing.assert_allclose(heatmap.values, expected.sum(-1), rtol=1e-4, atol=1e-9)
    assert not heatmap.signed
    table = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    result = explain(table, make_normal(2, 4), "square_grad", 1)
    np.testing.assert_allclose(result.values[0], table.get_weights()[0][:, 1] ** 2, rtol=1e-5)


@pytest.mark.parametrize("method", ["gradient_shap", "expected_gradients"])
def test_expected_gradients_of_linear_model_are_exact(
    make_linear: Callable[..., Any], method: str
) -> None:
    weights, x = make_normal(4, 5, 3, 2), make_normal(3, 4, 5, 3, seed=1)
    model = make_linear(weights)
    background = make_normal(6, 4, 5, 3, seed=2)
    # Each background sample is used twice.
    result = explain(model, x, method, 1, background=background, samples=12, batch_size=5)
    expected = (weights[..., 1] * (x - background.mean(0))).sum(-1)
    np.testing.assert_allclose(result.values, expected, rtol=1e-3, atol=1e-4)
    assert result.signed
    # By default, the paths start from zeros.
    result = explain(model, x, method, 1, samples=3)
    np.testing.assert_allclose(result.values, (weights[..., 1] * x).sum(-1), rtol=1e-3, atol=1e-4)
    single = explain(model, x, method, 1, background=background[0], samples=2)
    expected = (weights[..., 1] * (x - background[0])).sum(-1)
    np.testing.assert_allclose(single.values, expected, rtol=1e-3, atol=1e-4)


def make_smooth_model() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(8, "tanh"), layers.Dense(2)]
    )


def test_expected_gradients_match_their_random_points() -> None:
    model, x, background = make_smooth_model(), make_normal(3, 6), make_normal(4, 6, seed=1)
    samples, seed, noise = 6, 5, 0.3
    random = np.random.default_rng(seed)
    fractions = (np.arange(samples) + random.random(samples)) / samples
    order = random.permutation(4)
    choices = random.permutation(order[np.arange(samples) % 4])
    for method, deviation in (("expected_gradients", 0.0), ("gradient_shap", noise)):
        expected = np.zeros_like(x)
        for sample in range(samples):
            spans = np.ptp(x, axis=1)[:, None]
            end = x + deviation * spans * tf.random.stateless_normal((6,), (seed, sample)).numpy()
            start = background[choices[sample]]
            point = (start + fractions[sample] * (end - start)).astype(np.float32)
            expected += compute_gradients(model, point, 0) * (x - start) / samples
        options: dict[str, Any] = {"noise": noise} if deviation else {}
        result = explain(
            model, x, method, 0, background=background, samples=samples, seed=seed, **options
        )
        np.testing.assert_allclose(result.values, expected, rtol=1e-3, atol=1e-5)


def test_expected_gradients_approach_the_change_of_the_score() -> None:
    model, x, background = make_smooth_model(), make_normal(3, 6), make_normal(4, 6, seed=1)
    result = explain(model, x, "expected_gradients", 0, background=background, samples=4000)
    change = model(x)[:, 0] - np.mean(model(background)[:, 0])
    np.testing.assert_allclose(result.values.sum(1), change, atol=0.02)


def test_background_of_several_inputs(tmp_path: Path) -> None:
    inputs = [keras.Input((3,), name="first"), keras.Input((2,), name="second")]
    outputs = layers.Dense(1, use_bias=False)(layers.Concatenate()(inputs))
    model = keras.Model(inputs, outputs)
    weights = model.get_weights()[0][:, 0]
    x = {"first": make_normal(2, 3), "second": make_normal(2, 2)}
    background = {"first": make_normal(3, 3, seed=1), "second": make_normal(3, 2, seed=2)}

    def explain_all(background: Any) -> Any:
        return explain(
            model,
            [x["first"], x["second"]],
            "expected_gradients",
            lambda y: y[:, 0],
            inputs="all",
            samples=3,
            background=background,
        )

    result = explain_all(background)
    for name, part in (("first", weights[:3]), ("second", weights[3:])):
        expected = (x[name] - background[name].mean(0)) * part
        np.testing.assert_allclose(result[name].values, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(OptionError, match="background must have an entry for each explained input"):
        explain_all({"first": background["first"]})
    with pytest.raises(OptionError, match=r"background must be a dict .* first, second"):
        explain_all(background["first"])
    with pytest.raises(ShapeError, match="one number of samples for all inputs: got 3, 1"):
        explain_all({"first": background["first"], "second": background["second"][:1]})


def test_background_of_a_file_and_invalid_backgrounds(cnn: tuple[Any, Any], tmp_path: Path) -> None:
    model, x = cnn
    path = tmp_path / "background.npy"
    np.save(path, x[:2])
    options: dict[str, Any] = {"samples": 2}
    expected = explain(model, x, "expected_gradients", background=x[:2], **options)
    result = explain(model, x, "expected_gradients", background=str(path), **options)
    np.testing.assert_array_equal(result.values, expected.values)
    with pytest.raises(ShapeError, match=r"samples of shape \(12, 12, 3\).*got \(4, 4, 3\)"):
        explain(model, x, "expected_gradients", background=np.zeros((4, 4, 3)))
    for background in (np.full((12, 12, 3), np.nan), object()):
        with pytest.raises(OptionError, match="background must be finite numbers"):
            explain(model, x, "expected_gradients", background=background)
