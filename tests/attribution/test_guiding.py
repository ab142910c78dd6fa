"""Guided backpropagation through all kinds of ReLUs, against gradients by hand."""

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


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_guided_backprop_by_hand() -> None:
    # Two pixels, three hidden units. Before the ReLU they are 3, 0.5 and -2; the output weighs
    # them by 2, -3 and 5.
    model = keras.Sequential(
        [keras.Input((1, 2, 1)), layers.Flatten(), layers.Dense(3, "relu"), layers.Dense(1)]
    )
    hidden = np.array([[1.0, -1.0, -1.0], [2.0, 1.0, -1.0]])
    model.layers[1].set_weights([hidden, np.array([0.0, 0.5, 0.0])])
    model.layers[2].set_weights([np.array([[2.0], [-3.0], [5.0]]), np.zeros(1)])
    x = np.ones((1, 1, 2, 1), np.float32)
    # The third unit is off; the second speaks against the output: guided, it is not passed.
    close(explain(model, x, "saliency", reduce="sum").values[0], [[1 * 2 + 3, 2 * 2 - 3]])
    guided = explain(model, x, "guided_backprop", reduce="sum")
    close(guided.values[0], [[1 * 2, 2 * 2]])


def test_guided_backprop_stops_where_relu6_is_full() -> None:
    steps = [layers.Conv2D(1, 1, use_bias=False), layers.ReLU(6), layers.Flatten()]
    model = keras.Sequential([keras.Input((1, 2, 1)), *steps, layers.Dense(1)])
    model.layers[0].set_weights([np.ones((1, 1, 1, 1))])
    model.layers[-1].set_weights([np.array([[2.0], [2.0]]), np.zeros(1)])
    x = np.array([5.0, 7.0], np.float32).reshape(1, 1, 2, 1)
    close(explain(model, x, "guided_backprop").values[0], [[2, 0]])


def test_guiding_needs_relus(linear: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="guides ReLUs, and the model has none"):
        explain(linear(normal(2, 2, 1, 2)), normal(1, 2, 2, 1), "guided_backprop")


# Seven pixels, one for each part of the functions below, and what each counts for in the score.
PIXELS = np.array([-9.0, -1.0, -0.25, 0.5, 1.5, 3.0, 7.0], np.float32)
COUNTS = np.array([2.0, -3.0, 5.0, -11.0, 7.0, 13.0, 17.0], np.float32)


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


def models(function: Callable[[Any], Any]) -> dict[str, Any]:
    """Models that apply a function to the image and count its values."""

    def head() -> Any:
        kernel = COUNTS[:, None]
        return layers.Dense(1, kernel_initializer=lambda shape, dtype: tf.constant(kernel))

    image = keras.Input((1, 7, 1))
    made = {"subclassed": Subclassed(function, head())}
    layer = function if isinstance(function, layers.Layer) else Function(function)
    made["sequential"] = keras.Sequential([image, layer, layers.Flatten(), head()])
    return made


def guided_by_hand(function: Callable[[Any], Any]) -> Array:
    """Return the positive part of what comes from the score, times the function's derivative."""
    x = tf.constant(PIXELS.reshape(1, 1, 7, 1))
    with tf.GradientTape() as tape:
        tape.watch(x)
        result = function(x)
    upstream = np.maximum(COUNTS, 0).reshape(1, 1, 7, 1)
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


@pytest.mark.parametrize("kind", RELUS)
def test_every_kind_of_relu_is_guided(kind: str) -> None:
    function = RELUS[kind]
    x = PIXELS.reshape(1, 1, 7, 1)
    for model in models(function).values():
        found = explain(model, x, "guided_backprop", reduce="sum")
        expected = guided_by_hand(function)
        close(np.ravel(found.values), expected)
        assert (expected[COUNTS < 0] == 0).all()
        # Keras is as it was before.
        plain = explain(model, x, "saliency", reduce="sum")
        assert np.ravel(plain.values)[3] <= 0


NO_RELUS: dict[str, Callable[[Any], Any]] = {
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


@pytest.mark.parametrize("kind", NO_RELUS)
def test_what_is_no_relu_keeps_its_gradient(kind: str) -> None:
    function = NO_RELUS[kind]
    x = PIXELS.reshape(1, 1, 7, 1)
    for model in models(function).values():
        with pytest.raises(ModelError, match="guides ReLUs, and the model has none"):
            explain(model, x, "guided_backprop")
    # Beside a ReLU that lets all pass.
    for model in models(lambda x: function(tf.nn.relu(x + 10) - 10)).values():
        found = explain(model, x, "guided_backprop", reduce="sum")
        with tf.GradientTape() as tape:
            pixels = tf.constant(x)
            tape.watch(pixels)
            result = function(pixels)
        upstream = np.ravel(tape.gradient(result, pixels, COUNTS.reshape(1, 1, 7, 1)))
        close(np.ravel(found.values), np.maximum(upstream, 0), 1e-4)


def test_guiding_goes_through_a_network_of_mixed_relus() -> None:
    keras.utils.set_random_seed(3)
    first, second = layers.Conv2D(4, 3), layers.Conv2D(5, 3, activation="leaky_relu")
    prelu = layers.PReLU(alpha_initializer=keras.initializers.Constant(0.2))
    capped = layers.ReLU(max_value=1, negative_slope=0.1)
    head = layers.Dense(2)
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), first, prelu, second, capped, layers.Flatten(), head]
    )
    x = normal(2, 8, 8, 3)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def guide(values: Any) -> Any:
        return values, tf.nn.relu

    with tf.GradientTape() as tape:
        pixels = tf.constant(x)
        tape.watch(pixels)
        values = guide(capped(guide(second(guide(prelu(first(pixels)))))))
        score = head(layers.Flatten()(values))[:, 1]
    expected = tape.gradient(score, pixels).numpy().sum(-1)
    found = explain(model, x, "guided_backprop", 1, reduce="sum")
    close(found.values, expected, 1e-4)
