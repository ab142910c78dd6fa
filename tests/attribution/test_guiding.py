"""Tests of guided backpropagation through variants of ReLU, computed by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid import explain
from actgrid.errors import ModelError

Array = npt.NDArray[Any]


def make_normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def assert_close(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_guided_backprop_by_hand() -> None:
    # Two pixels and three hidden units, which are 3, 0.5 and -2 before the ReLU. The weights of the
    # output are 2, -3 and 5.
    model = keras.Sequential(
        [keras.Input((1, 2, 1)), layers.Flatten(), layers.Dense(3, "relu"), layers.Dense(1)]
    )
    hidden = np.array([[1.0, -1.0, -1.0], [2.0, 1.0, -1.0]])
    model.layers[1].set_weights([hidden, np.array([0.0, 0.5, 0.0])])
    model.layers[2].set_weights([np.array([[2.0], [-3.0], [5.0]]), np.zeros(1)])
    x = np.ones((1, 1, 2, 1), np.float32)
    # The third unit is inactive. The second has a negative gradient, which guiding removes.
    assert_close(explain(model, x, "saliency", reduce="sum").values[0], [[1 * 2 + 3, 2 * 2 - 3]])
    guided = explain(model, x, "guided_backprop", reduce="sum")
    assert_close(guided.values[0], [[1 * 2, 2 * 2]])


def test_guided_backprop_is_zero_above_relu6_maximum() -> None:
    steps = [layers.Conv2D(1, 1, use_bias=False), layers.ReLU(6), layers.Flatten()]
    model = keras.Sequential([keras.Input((1, 2, 1)), *steps, layers.Dense(1)])
    model.layers[0].set_weights([np.ones((1, 1, 1, 1))])
    model.layers[-1].set_weights([np.array([[2.0], [2.0]]), np.zeros(1)])
    x = np.array([5.0, 7.0], np.float32).reshape(1, 1, 2, 1)
    assert_close(explain(model, x, "guided_backprop").values[0], [[2, 0]])


def test_model_without_relus_is_rejected(make_linear: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="guided_backprop needs ReLUs, and the model has none"):
        explain(make_linear(make_normal(2, 2, 1, 2)), make_normal(1, 2, 2, 1), "guided_backprop")


# Seven pixels, one for each piece of the functions below, and their weights in the score.
PIXELS = np.array([-9.0, -1.0, -0.25, 0.5, 1.5, 3.0, 7.0], np.float32)
WEIGHTS = np.array([2.0, -3.0, 5.0, -11.0, 7.0, 13.0, 17.0], np.float32)


class Function(layers.Layer):  # type: ignore[misc]
    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def call(self, x: Any) -> Any:
        return self.function(x)


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self, function: Callable[[Any], Any], head: Any) -> None:
        super().__init__()
        self.function, self.flat, self.head = function, layers.Flatten(), head

    def call(self, x: Any) -> Any:
        return self.head(self.flat(self.function(x)))


def make_models(function: Callable[[Any], Any]) -> dict[str, Any]:
    """Return models whose score is the weighted sum of a function of the image."""

    def make_head() -> Any:
        kernel = WEIGHTS[:, None]
        return layers.Dense(1, kernel_initializer=lambda shape, dtype: tf.constant(kernel))

    image = keras.Input((1, 7, 1))
    models = {"subclassed": Subclassed(function, make_head())}
    layer = function if isinstance(function, layers.Layer) else Function(function)
    models["sequential"] = keras.Sequential([image, layer, layers.Flatten(), make_head()])
    return models


def compute_guided_gradient(function: Callable[[Any], Any]) -> Array:
    """Return the positive upstream gradient times the function's derivative."""
    x = tf.constant(PIXELS.reshape(1, 1, 7, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = function(x)
    upstream = np.maximum(WEIGHTS, 0).reshape(1, 1, 7, 1)
    return np.ravel(tape.gradient(result, x, upstream))


PRELU = layers.PReLU(alpha_initializer=keras.initializers.Constant(0.3))
RELUS: dict[str, Callable[[Any], Any]] = {
    "ReLU": layers.ReLU(),
    "ReLU 6": layers.ReLU(6),
    "ReLU 2": layers.ReLU(2),
    "slope": layers.ReLU(negative_slope=0.2),
    "slope and 6": layers.ReLU(6, negative_slope=0.2),
    "slope and 2": layers.ReLU(2, negative_slope=0.2),
    "threshold": layers.ReLU(threshold=1),
    "threshold and 2": layers.ReLU(2, threshold=1),
    "threshold and slope": layers.ReLU(negative_slope=0.2, threshold=1),
    "all": layers.ReLU(max_value=2, negative_slope=0.2, threshold=1),
    "LeakyReLU": layers.LeakyReLU(0.1),
    "PReLU": PRELU,
    "negative PReLU": layers.PReLU(alpha_initializer=keras.initializers.Constant(-0.3)),
    "activation": layers.Activation("relu"),
    "leaky activation": layers.Activation("leaky_relu"),
    "activations.relu": keras.activations.relu,
    "activations.relu6": keras.activations.relu6,
    "activations.leaky_relu": keras.activations.leaky_relu,
    "activations.relu all": lambda x: keras.activations.relu(
        x, negative_slope=0.2, max_value=2, threshold=1
    ),
    "ops.relu": keras.ops.relu,
    "ops.relu6": keras.ops.relu6,
    "ops.leaky_relu": keras.ops.leaky_relu,
    "ops.maximum": lambda x: keras.ops.maximum(x, 0),
    "ops.threshold": lambda x: keras.ops.threshold(x, 1.0, 0.0),
    "tf.nn.relu": tf.nn.relu,
    "tf.nn.relu6": tf.nn.relu6,
    "tf.nn.leaky_relu": tf.nn.leaky_relu,
    "tf.maximum": lambda x: tf.maximum(x, 0.0),
    "zero first": lambda x: tf.maximum(0.0, x),
    "leaky maximum": lambda x: tf.maximum(0.1 * x, x),
    "tf.where": lambda x: tf.where(x > 0, x, 0.1 * x),
    "zeros": lambda x: tf.where(x > 0, x, tf.zeros_like(x)),
    "product": lambda x: x * tf.cast(x > 0, x.dtype),
    "product last": lambda x: keras.ops.cast(keras.ops.greater_equal(x, 0), "float32") * x,
    "product of a comparison from below": lambda x: x * tf.cast(0.0 < x, x.dtype),  # noqa: SIM300
    "threshold by a product": lambda x: x * tf.cast(x > 1, x.dtype),
    "where below": lambda x: keras.ops.where(x < 0, 0.0, x),
    "where at most": lambda x: tf.where(x <= 0, tf.zeros_like(x), x),
    "leaky where below": lambda x: tf.where(x < 0, 0.1 * x, x),
    "where zero is less": lambda x: tf.where(tf.less(0.0, x), x, 0.0),
    "relu6 of a sum": lambda x: tf.nn.relu6(x + 3),
    "relu6 of another sum": lambda x: tf.nn.relu6(x + 2) / 6,
}


@pytest.mark.parametrize("name", RELUS)
def test_every_relu_variant_is_guided(name: str) -> None:
    function = RELUS[name]
    x = PIXELS.reshape(1, 1, 7, 1)
    for model in make_models(function).values():
        heatmap = explain(model, x, "guided_backprop", reduce="sum")
        expected = compute_guided_gradient(function)
        assert_close(np.ravel(heatmap.values), expected)
        assert (expected[WEIGHTS < 0] == 0).all()
        # The patches of Keras are undone.
        saliency = explain(model, x, "saliency", reduce="sum")
        assert np.ravel(saliency.values)[3] <= 0


OTHER_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "hard_silu": keras.activations.hard_silu,
    "hard_sigmoid": keras.activations.hard_sigmoid,
    "ops.hard_silu": keras.ops.hard_silu,
    "layer": layers.Activation("hard_silu"),
    "MobileNetV3": lambda x: x * layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0),
    "tf": lambda x: x * (tf.nn.relu6(x + 3) / 6),
    "maximum": lambda x: tf.maximum(x, 1.0),
    "steep": lambda x: tf.maximum(x, 3 * x),
    "negative part": lambda x: tf.where(x < 0, x, 0.0),
    "negative product": lambda x: x * tf.cast(x < 0, x.dtype),
    "other gate": lambda x: x * tf.cast(tf.abs(x) > 1, x.dtype),
    "silu": keras.activations.silu,
    "elu": keras.activations.elu,
}


@pytest.mark.parametrize("name", OTHER_FUNCTIONS)
def test_other_functions_keep_their_gradient(name: str) -> None:
    function = OTHER_FUNCTIONS[name]
    x = PIXELS.reshape(1, 1, 7, 1)
    for model in make_models(function).values():
        with pytest.raises(ModelError, match="guided_backprop needs ReLUs, and the model has none"):
            explain(model, x, "guided_backprop")
    # With a ReLU that is active at all pixels.
    for model in make_models(lambda x: function(tf.nn.relu(x + 10) - 10)).values():
        heatmap = explain(model, x, "guided_backprop", reduce="sum")
        with tf.GradientTape() as tape:
            pixels = tf.constant(x)
            tape.watch(pixels)
            result = function(pixels)
        upstream = np.ravel(tape.gradient(result, pixels, WEIGHTS.reshape(1, 1, 7, 1)))
        assert_close(np.ravel(heatmap.values), np.maximum(upstream, 0), 1e-4)


def test_network_of_mixed_relus() -> None:
    keras.utils.set_random_seed(3)
    first, second = layers.Conv2D(4, 3), layers.Conv2D(5, 3, activation="leaky_relu")
    prelu = layers.PReLU(alpha_initializer=keras.initializers.Constant(0.2))
    capped = layers.ReLU(max_value=1, negative_slope=0.1)
    head = layers.Dense(2)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), first, prelu, second, capped, layers.Flatten(), head]
    )
    x = make_normal(2, 8, 8, 3)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def guide(values: Any) -> Any:
        return values, tf.nn.relu

    with tf.GradientTape() as tape:
        pixels = tf.constant(x)
        tape.watch(pixels)
        values = guide(capped(guide(second(guide(prelu(first(pixels)))))))
        score = head(layers.Flatten()(values))[:, 1]
    expected = tape.gradient(score, pixels).numpy().sum(-1)
    heatmap = explain(model, x, "guided_backprop", 1, reduce="sum")
    assert_close(heatmap.values, expected, 1e-4)
