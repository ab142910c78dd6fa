"""Gradients of a loss, against `tf.GradientTape`."""

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
def _set_seed() -> None:
    keras.utils.set_random_seed(20)


def make_normal(*shape: int) -> Array:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def make_sequential() -> Any:
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


def make_functional() -> Any:
    inputs = keras.Input((6, 6, 3))
    a = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    b = layers.Conv2D(4, 1, name="b")(a)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Add(name="add")([a, b]))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))


def make_nested() -> Any:
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


@pytest.mark.parametrize("make_model", [make_sequential, make_functional, make_nested, Subclassed])
def test_weight_gradients_match_tape(make_model: Callable[[], Any]) -> None:
    model, x, y = make_model(), make_normal(5, 6, 6, 3), np.array([0, 2, 1, 1, 0])
    result = gradients(model, x, y, loss="sparse_categorical_crossentropy")
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x)))
    expected_gradients = tape.gradient(
        loss, [variable.value for variable in model.trainable_variables]
    )
    assert result.loss == pytest.approx(float(loss), rel=1e-5)
    assert len(result.weights) == len(expected_gradients)
    for gradient, expected in zip(result.weights.values(), expected_gradients, strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_activation_gradients_match_tape() -> None:
    model, x, y = make_sequential(), make_normal(5, 6, 6, 3), make_normal(5, 3)
    result = gradients(model, x, y, loss="mse")
    assert list(result.activations) == ["scaled", "conv", "pool"]
    tensor, activations = tf.constant(x), {}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(tensor)
        for layer in model.layers:
            tensor = activations[layer.name] = layer(tensor)
        loss = tf.reduce_mean((tensor - y) ** 2)
    for path, gradient in result.activations.items():
        assert gradient.shape[0] == 5
        np.testing.assert_allclose(
            gradient, tape.gradient(loss, activations[path]), rtol=1e-4, atol=1e-7, err_msg=path
        )


def make_linear() -> Any:
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, name="a"), layers.Dense(1, use_bias=False, name="b")]
    )
    a, bias = np.array([[1.0, 2], [3, 4]]), np.array([0.5, -0.5])
    model.set_weights([a, bias, np.array([[2.0], [-1]])])
    return model


def test_gradients_of_linear_model_match_hand_computation() -> None:
    # h = x a + bias = (4.5, 5.5) and (-1.5, -4.5); the output 2 h0 - h1 = 3.5 and 1.5.
    x, y = np.array([[1.0, 1], [-2, 0]]), np.array([[3.0], [2]])
    result = gradients(make_linear(), x, y, loss="mean_squared_error", layers=["a", "b"])
    assert result.loss == 0.25
    # The gradients of the mean square are the errors: 0.5 and -0.5.
    np.testing.assert_array_equal(result.activations["b"], [[0.5], [-0.5]])
    np.testing.assert_array_equal(result.activations["a"], [[1, -0.5], [-1, 0.5]])
    np.testing.assert_array_equal(result.weights["b/kernel"], [[3], [5]])
    np.testing.assert_array_equal(result.weights["a/kernel"], [[3, -1.5], [1, -0.5]])
    np.testing.assert_array_equal(result.weights["a/bias"], [0, 0])
    assert repr(result) == "<Gradients of a loss of 0.25: 2 activations, 3 weights>"


def huber(y: Any, output: Any) -> Any:
    return keras.losses.huber(y, output)


@pytest.mark.parametrize(
    "loss",
    ["huber", "Huber", keras.losses.Huber(), keras.losses.Huber, keras.losses.huber, huber],
)
def test_loss_as_name_object_class_and_function(loss: Any) -> None:
    x, y = make_normal(3, 2), make_normal(3, 1)
    result = gradients(make_linear(), x, y, loss=loss, layers="a")
    assert result.loss == pytest.approx(float(np.mean(keras.losses.huber(y, make_linear()(x)))))


def test_default_loss_is_the_compiled_loss() -> None:
    x, y = make_normal(3, 2), make_normal(3, 1)
    model = make_linear()
    with pytest.raises(OptionError, match="was not compiled with a loss"):
        gradients(model, x, y, layers="a")
    for loss in ("mae", ["mae"], keras.losses.MeanAbsoluteError()):
        model.compile(loss=loss)
        result = gradients(model, x, y, layers="a")
        assert result.loss == pytest.approx(float(np.abs(model(x) - y).mean()))


def test_model_of_several_inputs_and_outputs_needs_a_function() -> None:
    a, b = keras.Input((4, 4, 1), name="a"), keras.Input((2,), name="b")
    image = layers.Conv2D(2, 3, name="conv")(a)
    vector = layers.Dense(2, use_bias=False, name="dense")(b)
    model = keras.Model([a, b], {"image": image, "vector": vector})
    x = [make_normal(2, 4, 4, 1), make_normal(2, 2)]
    y = {"image": make_normal(2, 2, 2, 2), "vector": make_normal(2, 2)}

    def sum_both(y: Any, output: Any) -> Any:
        return tf.reduce_sum(y["image"] * output["image"]) + 2 * tf.reduce_sum(output["vector"])

    result = gradients(model, x, y, loss=sum_both)
    np.testing.assert_array_equal(result.activations["conv"], y["image"])
    np.testing.assert_allclose(result.weights["dense/kernel"], 2 * x[1].sum(0)[:, None] * [[1, 1]])
    with pytest.raises(OptionError, match=r"function loss\(y, outputs\) for a .* 2 outputs"):
        gradients(model, x, y, loss="mse")
    model.compile(loss={"image": "mse", "vector": "mae"})
    with pytest.raises(OptionError, match="compiled with 2 losses, one for each output"):
        gradients(model, x, y)
    model.compile(loss="mse")
    with pytest.raises(OptionError, match="2 outputs"):
        gradients(model, x, y)


def test_unused_layers_have_zero_gradients() -> None:
    inputs = keras.Input((4, 4, 2))
    used = layers.Conv2D(2, 3, name="used")(inputs)
    unused = layers.Conv2D(2, 3, name="unused")(inputs)
    model = keras.Model(inputs, [used, unused])
    result = gradients(
        model, make_normal(3, 4, 4, 2), 0, loss=lambda y, output: tf.reduce_sum(output[0])
    )
    np.testing.assert_array_equal(result.activations["unused"], np.zeros((3, 2, 2, 2)))
    np.testing.assert_array_equal(result.weights["unused/kernel"], np.zeros((3, 3, 2, 2)))
    np.testing.assert_array_equal(result.activations["used"], np.ones((3, 2, 2, 2)))


def test_frozen_weights_are_left_out() -> None:
    model = make_nested()
    model.get_layer("inner").get_layer("conv").trainable = False
    result = gradients(
        model, make_normal(2, 6, 6, 3), make_normal(2, 3), loss="mse", layers="inner/bn"
    )
    names = [f"inner/bn/{name}" for name in ("gamma", "beta")] + ["head/kernel", "head/bias"]
    assert list(result.weights) == names


def test_training_mode_uses_batch_statistics_without_updates() -> None:
    model, x, y = make_nested(), make_normal(4, 6, 6, 3), make_normal(4, 3)
    before = [weight.copy() for weight in model.get_weights()]
    inference, training = (
        gradients(model, x, y, loss="mse", layers="inner/bn", training=training)
        for training in (False, True)
    )
    assert abs(inference.loss - training.loss) > 1e-3
    with tf.GradientTape():
        expected = tf.reduce_mean((model(x, training=True) - y) ** 2)
    assert training.loss == pytest.approx(float(expected), rel=1e-5)
    model.set_weights(before)
    repeated = gradients(model, x, y, loss="mse", layers="inner/bn")
    assert repeated.loss == inference.loss
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_embeddings_have_dense_gradients_and_integers_have_none() -> None:
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Reshape((3,), name="ids"),
            layers.Embedding(4, 2, name="words"),
        ]
    )
    x = np.array([[0, 1, 1]], np.int32)
    result = gradients(
        model, x, 0, loss=lambda y, output: tf.reduce_sum(output), layers=["ids", "words"]
    )
    assert list(result.activations) == ["words"]
    np.testing.assert_array_equal(
        result.weights["words/embeddings"], [[1, 1], [2, 2], [0, 0], [0, 0]]
    )
    with pytest.raises(LayerError, match="layers must match activations of floating point"):
        gradients(model, x, 0, loss=lambda y, output: tf.reduce_sum(output), layers="ids")


def test_new_weights_are_used() -> None:
    model, x, y = make_linear(), make_normal(3, 2), make_normal(3, 1)
    first = gradients(model, x, y, loss="mse", layers="a")
    model.set_weights([2 * weight for weight in model.get_weights()])
    second = gradients(model, x, y, loss="mse", layers="a")
    assert second.loss == pytest.approx(float(np.mean((model(x) - y) ** 2)), rel=1e-5)
    assert second.loss != first.loss


def test_gradients_are_rendered_like_activations_and_weights() -> None:
    model = make_sequential()
    result = gradients(
        model, make_normal(2, 6, 6, 3), make_normal(2, 3), loss="mse", layers=["conv", "head"]
    )
    grids = result.render_activations(sample=1)
    options: dict[str, Any] = {"normalize": "symmetric", "cmap": "RdBu_r", "background": 128}
    expected = actgrid.render(result.activations["conv"], sample=1, **options)
    np.testing.assert_array_equal(grids["conv"].levels, expected.levels)
    assert grids["conv"].cmap == "RdBu_r"
    assert grids["head"].levels.shape == (2, 2)
    weights = result.render_weights(cmap="gray")
    assert list(weights) == ["conv/kernel", "conv/bias", "head/kernel", "head/bias"]
    expected = actgrid.render(result.weights["conv/kernel"], kind="kernel", **options)
    np.testing.assert_array_equal(weights["conv/kernel"].levels, expected.levels)
    assert weights["conv/kernel"].cmap == "gray"
    assert actgrid.Gradients is Gradients


def test_invalid_arguments_are_rejected() -> None:
    model, x, y = make_sequential(), make_normal(2, 6, 6, 3), make_normal(2, 3)
    with pytest.raises(OptionError, match=r"no 'categorical_crosentropy' .*mean categorical_cross"):
        gradients(model, x, y, loss="categorical_crosentropy")
    with pytest.raises(ShapeError, match="y of shape None does not fit"):
        gradients(model, x, None, loss="mse")
    with pytest.raises(OptionError, match="loss must return a tensor, not None"):
        gradients(model, x, y, loss=lambda targets, output: None)
    with pytest.raises(OptionError, match="loss must be the name of a Keras loss"):
        gradients(model, x, y, loss=3)
    with pytest.raises(
        ShapeError, match=r"y of shape \(None, 4\) does not fit the output of shape \(None, 3\)"
    ):
        gradients(model, x, make_normal(2, 4), loss="categorical_crossentropy")
    with pytest.raises(ShapeError, match="add a batch axis"):
        gradients(model, x[0], y, loss="mse")
    with pytest.raises(LayerError, match="did you mean conv"):
        gradients(model, x, y, loss="mse", layers="cnov")
    with pytest.raises(ModelError):
        gradients("no model", x, y, loss="mse")
