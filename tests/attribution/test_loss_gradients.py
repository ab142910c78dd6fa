"""Gradients of a loss, against those that TensorFlow's tape gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

import actgrid
from actgrid import Gradients, gradients
from actgrid.errors import LayerError, ModelError, OptionError, ShapeError

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _same_weights_each_time() -> None:
    keras.utils.set_random_seed(20)


def pixels(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Rescaling(2.0, name="scaled"),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )


def functional() -> Any:
    inputs = keras.Input((6, 6, 3))
    a = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    b = layers.Conv2D(4, 1, name="b")(a)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Add(name="add")([a, b]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))


def nested() -> Any:
    inner = keras.Sequential(
        [layers.Conv2D(4, 3, name="conv"), layers.BatchNormalization(name="bn")], name="inner"
    )
    pool = layers.GlobalMaxPooling2D()
    head = layers.Dense(3, activation="softmax", name="head")
    return keras.Sequential([keras.Input((6, 6, 3)), inner, pool, head])


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(4, 3, name="conv")
        self.head = layers.Dense(3, activation="softmax", name="head")

    def call(self, x: Any) -> Any:
        return self.head(tf.reduce_mean(tf.nn.relu(self.conv(x)), (1, 2)))


@pytest.mark.parametrize("make", [sequential, functional, nested, Subclassed])
def test_gradients_of_weights_are_those_of_a_tape(make: Callable[[], Any]) -> None:
    model, x, y = make(), pixels(5, 6, 6, 3), np.array([0, 2, 1, 1, 0])
    found = gradients(model, x, y, loss="sparse_categorical_crossentropy")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x)))
    truth = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    assert found.loss == pytest.approx(float(loss), rel=1e-5)
    assert len(found.weights) == len(truth)
    for gradient, expected in zip(found.weights.values(), truth, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_gradients_of_activations_are_those_of_a_tape() -> None:
    model, x, y = sequential(), pixels(5, 6, 6, 3), pixels(5, 3)
    found = gradients(model, x, y, loss="mse")
    assert list(found.activations) == ["scaled", "conv", "pool"]
    tensor, truth = tf.constant(x), {}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensor)
        for layer in model.layers:
            tensor = truth[layer.name] = layer(tensor)
        loss = tf.reduce_mean((tensor - y) ** 2)
    for path, gradient in found.activations.items():
        assert gradient.shape[0] == 5
        np.testing.assert_allclose(
            gradient, tape.gradient(loss, truth[path]), rtol=1e-4, atol=1e-7, err_msg=path
        )


def linear() -> Any:
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, name="a"), layers.Dense(1, use_bias=False, name="b")]
    )
    a, bias = np.array([[1.0, 2], [3, 4]]), np.array([0.5, -0.5])
    model.set_weights([a, bias, np.array([[2.0], [-1]])])
    return model


def test_gradients_of_a_linear_model_are_worked_out_by_hand() -> None:
    # h = x a + bias = (4.5, 5.5) and (-1.5, -4.5); the output 2 h0 - h1 = 3.5 and 1.5.
    x, y = np.array([[1.0, 1], [-2, 0]]), np.array([[3.0], [2]])
    found = gradients(linear(), x, y, loss="mean_squared_error", layers=["a", "b"])
    assert found.loss == 0.25
    # The slopes of the mean square are the errors: 0.5 and -0.5.
    np.testing.assert_array_equal(found.activations["b"], [[0.5], [-0.5]])
    np.testing.assert_array_equal(found.activations["a"], [[1, -0.5], [-1, 0.5]])
    np.testing.assert_array_equal(found.weights["b/kernel"], [[3], [5]])
    np.testing.assert_array_equal(found.weights["a/kernel"], [[3, -1.5], [1, -0.5]])
    np.testing.assert_array_equal(found.weights["a/bias"], [0, 0])
    assert repr(found) == "<Gradients of a loss of 0.25: 2 activations, 3 weights>"


def huber(y: Any, output: Any) -> Any:
    return keras.losses.huber(y, output)


@pytest.mark.parametrize(
    "loss",
    ["huber", "Huber", keras.losses.Huber(), keras.losses.Huber, keras.losses.huber, huber],
)
def test_a_loss_may_be_given_in_any_way(loss: Any) -> None:
    x, y = pixels(3, 2), pixels(3, 1)
    found = gradients(linear(), x, y, loss=loss, layers="a")
    assert found.loss == pytest.approx(float(np.mean(keras.losses.huber(y, linear()(x)))))


def test_the_loss_that_the_model_was_compiled_with_is_the_default() -> None:
    x, y = pixels(3, 2), pixels(3, 1)
    model = linear()
    with pytest.raises(OptionError, match="was not compiled with a loss"):
        gradients(model, x, y, layers="a")
    for loss in ("mae", ["mae"], keras.losses.MeanAbsoluteError()):
        model.compile(loss=loss)
        found = gradients(model, x, y, layers="a")
        assert found.loss == pytest.approx(float(np.abs(model(x) - y).mean()))


def test_a_model_of_several_inputs_and_outputs_takes_a_callable() -> None:
    a, b = keras.Input((4, 4, 1), name="a"), keras.Input((2,), name="b")
    image = layers.Conv2D(2, 3, name="conv")(a)
    vector = layers.Dense(2, use_bias=False, name="dense")(b)
    model = keras.Model([a, b], {"image": image, "vector": vector})
    x = [pixels(2, 4, 4, 1), pixels(2, 2)]
    y = {"image": pixels(2, 2, 2, 2), "vector": pixels(2, 2)}

    def both(y: Any, output: Any) -> Any:
        return tf.reduce_sum(y["image"] * output["image"]) + 2 * tf.reduce_sum(output["vector"])

    found = gradients(model, x, y, loss=both)
    np.testing.assert_array_equal(found.activations["conv"], y["image"])
    np.testing.assert_allclose(found.weights["dense/kernel"], 2 * x[1].sum(0)[:, None] * [[1, 1]])
    with pytest.raises(OptionError, match=r"2 outputs, .* callable loss\(y, outputs\)"):
        gradients(model, x, y, loss="mse")
    model.compile(loss={"image": "mse", "vector": "mae"})
    with pytest.raises(OptionError, match="compiled with 2 losses, one for each output"):
        gradients(model, x, y)
    model.compile(loss="mse")
    with pytest.raises(OptionError, match="2 outputs"):
        gradients(model, x, y)


def test_what_the_loss_does_not_depend_on_has_gradients_of_zero() -> None:
    inputs = keras.Input((4, 4, 2))
    used = layers.Conv2D(2, 3, name="used")(inputs)
    unused = layers.Conv2D(2, 3, name="unused")(inputs)
    model = keras.Model(inputs, [used, unused])
    found = gradients(model, pixels(3, 4, 4, 2), 0, loss=lambda y, output: tf.reduce_sum(output[0]))
    np.testing.assert_array_equal(found.activations["unused"], np.zeros((3, 2, 2, 2)))
    np.testing.assert_array_equal(found.weights["unused/kernel"], np.zeros((3, 3, 2, 2)))
    np.testing.assert_array_equal(found.activations["used"], np.ones((3, 2, 2, 2)))


def test_weights_that_are_not_trained_are_left_out() -> None:
    model = nested()
    model.get_layer("inner").get_layer("conv").trainable = False
    found = gradients(model, pixels(2, 6, 6, 3), pixels(2, 3), loss="mse", layers="inner/bn")
    names = [f"inner/bn/{name}" for name in ("gamma", "beta")] + ["head/kernel", "head/bias"]
    assert list(found.weights) == names


def test_running_as_in_training_uses_the_batchs_statistics_and_changes_nothing() -> None:
    model, x, y = nested(), pixels(4, 6, 6, 3), pixels(4, 3)
    before = [weight.copy() for weight in model.get_weights()]
    inference, training = (
        gradients(model, x, y, loss="mse", layers="inner/bn", training=training)
        for training in (False, True)
    )
    assert abs(inference.loss - training.loss) > 1e-3
    with tf.GradientTape():
        truth = tf.reduce_mean((model(x, training=True) - y) ** 2)
    assert training.loss == pytest.approx(float(truth), rel=1e-5)
    model.set_weights(before)
    again = gradients(model, x, y, loss="mse", layers="inner/bn")
    assert again.loss == inference.loss
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_embeddings_have_dense_gradients_and_integers_none() -> None:
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Reshape((3,), name="ids"),
            layers.Embedding(4, 2, name="words"),
        ]
    )
    x = np.array([[0, 1, 1]], np.int32)
    found = gradients(
        model, x, 0, loss=lambda y, output: tf.reduce_sum(output), layers=["ids", "words"]
    )
    assert list(found.activations) == ["words"]
    np.testing.assert_array_equal(
        found.weights["words/embeddings"], [[1, 1], [2, 2], [0, 0], [0, 0]]
    )
    with pytest.raises(LayerError, match="no activations of floating point"):
        gradients(model, x, 0, loss=lambda y, output: tf.reduce_sum(output), layers="ids")


def test_new_weights_are_seen_without_a_new_trace() -> None:
    model, x, y = linear(), pixels(3, 2), pixels(3, 1)
    first = gradients(model, x, y, loss="mse", layers="a")
    model.set_weights([2 * weight for weight in model.get_weights()])
    second = gradients(model, x, y, loss="mse", layers="a")
    assert second.loss == pytest.approx(float(np.mean((model(x) - y) ** 2)), rel=1e-5)
    assert second.loss != first.loss


def test_gradients_are_drawn_like_activations_and_weights() -> None:
    model = sequential()
    found = gradients(model, pixels(2, 6, 6, 3), pixels(2, 3), loss="mse", layers=["conv", "head"])
    grids = found.render_activations(sample=1)
    options: dict[str, Any] = {"normalize": "symmetric", "cmap": "RdBu_r", "background": 128}
    truth = actgrid.render(found.activations["conv"], sample=1, **options)
    np.testing.assert_array_equal(grids["conv"].levels, truth.levels)
    assert grids["conv"].cmap == "RdBu_r"
    assert grids["head"].levels.shape == (2, 2)
    weights = found.render_weights(cmap="gray")
    assert list(weights) == ["conv/kernel", "conv/bias", "head/kernel", "head/bias"]
    truth = actgrid.render(found.weights["conv/kernel"], kind="kernel", **options)
    np.testing.assert_array_equal(weights["conv/kernel"].levels, truth.levels)
    assert weights["conv/kernel"].cmap == "gray"
    assert actgrid.Gradients is Gradients


def test_what_cannot_be_differentiated_is_refused() -> None:
    model, x, y = sequential(), pixels(2, 6, 6, 3), pixels(2, 3)
    with pytest.raises(OptionError, match=r"no 'categorical_crosentropy' .*mean categorical_cross"):
        gradients(model, x, y, loss="categorical_crosentropy")
    with pytest.raises(ShapeError, match="y of None does not fit"):
        gradients(model, x, None, loss="mse")
    with pytest.raises(OptionError, match="loss must return a tensor, not None"):
        gradients(model, x, y, loss=lambda truth, output: None)
    with pytest.raises(OptionError, match="loss must be the name of a Keras loss"):
        gradients(model, x, y, loss=3)
    with pytest.raises(
        ShapeError, match=r"y of \(None, 4\) does not fit the output of \(None, 3\)"
    ):
        gradients(model, x, pixels(2, 4), loss="categorical_crossentropy")
    with pytest.raises(ShapeError, match="add a batch axis"):
        gradients(model, x[0], y, loss="mse")
    with pytest.raises(LayerError, match="did you mean conv"):
        gradients(model, x, y, loss="mse", layers="cnov")
    with pytest.raises(ModelError):
        gradients("no model", x, y, loss="mse")
