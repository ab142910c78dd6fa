"""Relevance of channels, against gradient tapes on networks that are split by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

import actgrid
from actgrid import Extractor, measure_channel_relevance
from actgrid.errors import CapabilityError, LayerError, TargetError
from actgrid.models import InputInfo, LayerInfo

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _set_seed() -> None:
    keras.utils.set_random_seed(5)


def make_values(*shape: int) -> Array:
    return np.random.default_rng(6).normal(size=shape).astype(np.float32)


def compute_products(activation: Any, head: Callable[[Any], Any], targets: Sequence[int]) -> Array:
    """Return the activation times the gradient of each sample's logit of its target."""
    activation = tf.constant(activation)
    with tf.GradientTape() as tape:
        tape.watch(activation)
        scores = tf.gather(head(activation), targets, batch_dims=1)
    product: Array = (activation * tape.gradient(scores, activation)).numpy()
    return product


def make_head(model: Any, layer: str) -> Callable[[Any], Any]:
    """Return a function that computes the logits from the activation of a layer."""
    index = [each.name for each in model.layers].index(layer)
    *body, last = model.layers[index + 1 :]

    def head(x: Any) -> Any:
        for each in body:
            x = each(x)
        return x @ last.kernel + last.bias

    return head


def assert_close(actual: Array, expected: Array) -> None:
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def make_classifier(*body: Any, shape: tuple[int, ...]) -> Any:
    return keras.Sequential([keras.Input(shape), *body, layers.Dense(3, activation="softmax")])


def make_cnn() -> Any:
    return make_classifier(
        layers.Conv2D(4, 3, activation="tanh", name="conv"),
        layers.MaxPooling2D(name="pool"),
        layers.Flatten(name="flatten"),
        layers.Dense(6, activation="tanh", name="units"),
        shape=(8, 8, 3),
    )


@pytest.mark.parametrize("target", [1, [2, 0, 1, 1, 0], None])
def test_relevance_is_the_sum_of_activation_times_gradient_of_the_logit(target: Any) -> None:
    model, x = make_cnn(), make_values(5, 8, 8, 3)
    classes: Any = np.broadcast_to(model(x).numpy().argmax(1) if target is None else target, 5)
    relevance = measure_channel_relevance(model, x, ["conv", "pool", "units"], target, batch_size=2)
    activations = Extractor(model, ["conv", "pool", "units"])(x)
    assert list(relevance) == ["conv", "pool", "units"]
    for path, values in relevance.items():
        product = compute_products(activations[path], make_head(model, path), classes)
        assert values.dtype == np.float32
        assert_close(values, product.sum((1, 2)) if product.ndim == 4 else product)


@pytest.mark.parametrize(
    ("make_body", "shape", "axes"),
    [
        (lambda: [layers.Conv1D(4, 3, name="at"), layers.GlobalAveragePooling1D()], (7, 2), 1),
        (
            lambda: [layers.Conv3D(4, 2, name="at"), layers.GlobalAveragePooling3D()],
            (3, 4, 5, 1),
            (1, 2, 3),
        ),
        (lambda: [layers.GRU(4, return_sequences=True, name="at"), layers.Flatten()], (5, 2), 1),
        (lambda: [layers.Permute((3, 1, 2), name="at"), layers.Flatten()], (3, 4, 5), (2, 3)),
    ],
)
def test_layers_of_any_rank_have_a_value_for_each_channel(
    make_body: Any, shape: tuple[int, ...], axes: Any
) -> None:
    model, x = make_classifier(*make_body(), shape=shape), make_values(2, *shape)
    activation = Extractor(model, "at")(x)["at"]
    product = compute_products(activation, make_head(model, "at"), [2, 2])
    assert_close(measure_channel_relevance(model, x, "at", 2)["at"], product.sum(axes))


@pytest.mark.parametrize(
    "any_model", ["sequential", "nested", "subclassed", "multi_input"], indirect=True
)
def test_models_of_every_kind_are_measured(any_model: tuple[Any, Any]) -> None:
    model, x = any_model
    (path,) = (info.path for info in actgrid.list_layers(model, x) if "conv2" in info.path)
    means = Extractor(model, path)(x)[path].mean((1, 2))
    weights = model.layers[-1].kernel.numpy()[: means.shape[1], 2]  # after the global average
    assert_close(measure_channel_relevance(model, x, path, 2)[path], means * weights)


def test_channels_first_layers_are_summed_over_their_last_axes() -> None:
    pool = layers.MaxPooling2D(name="pool", data_format="channels_first")
    model = make_classifier(pool, layers.Flatten(), shape=(4, 6, 8))
    x = make_values(2, 4, 6, 8)
    product = compute_products(
        Extractor(model, "pool")(x)["pool"], make_head(model, "pool"), [1, 1]
    )
    assert product.shape == (2, 4, 3, 4)
    assert_close(measure_channel_relevance(model, x, "pool", 1)["pool"], product.sum((2, 3)))


def test_attention_scores_have_a_value_for_each_head() -> None:
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention", flash_attention=False)
    mixed, scores = attention(inputs, inputs, return_attention_scores=True)
    outputs = layers.Dense(3, name="head")(layers.GlobalAveragePooling1D()(mixed))
    model, x = keras.Model(inputs, outputs), make_values(2, 5, 4)
    paths = [info.path for info in actgrid.list_layers(model) if info.kind == "attention"]
    assert "attention/attention" in paths
    weights = keras.Model(inputs, scores)(x).numpy()

    def finish(scores: Any) -> Any:
        values = attention._value_dense(x)
        mixed = attention._output_dense(tf.einsum("nhqk,nkhc->nqhc", scores, values))
        return model.get_layer("head")(tf.reduce_mean(mixed, 1))

    product = compute_products(weights, finish, [1, 1])
    relevance = measure_channel_relevance(model, x, paths, 1)
    for path in paths:
        assert_close(relevance[path], product.sum((2, 3)))


def test_layers_that_the_score_does_not_depend_on_have_no_relevance() -> None:
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(3, 3, name="conv")(inputs)
    side = layers.Conv2D(5, 3, name="side")(inputs)
    logits = layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, [layers.Softmax(name="softmax")(logits), side])
    relevance = measure_channel_relevance(
        model, make_values(2, 6, 6, 2), ["conv", "side", "softmax"], {"softmax": 0}
    )
    assert relevance["conv"].all()
    np.testing.assert_array_equal(relevance["side"], np.zeros((2, 5)))
    np.testing.assert_array_equal(relevance["softmax"], np.zeros((2, 3)))


def test_integer_layers_have_no_relevance() -> None:
    inputs = keras.Input((6,), dtype="int32")
    shifted = layers.Lambda(lambda x: x + 1, name="shifted")(inputs)
    x = layers.Embedding(9, 4, name="embedding")(shifted)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling1D()(x)))
    tokens = np.arange(12).reshape(2, 6) % 8
    relevance = measure_channel_relevance(model, tokens, ["shifted", "embedding"], 0)
    np.testing.assert_array_equal(relevance["shifted"], np.zeros((2, 6)))
    weights = model.layers[-1].kernel.numpy()[:, 0]
    embedded = model.get_layer("embedding").embeddings.numpy()[tokens + 1]
    assert_close(relevance["embedding"], embedded.mean(1) * weights)


class Positions(layers.Layer):  # type: ignore[misc]
    """Layer that returns one embedding of positions for the whole batch."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(1, *shape[1:]), initializer="random_normal")

    def call(self, x: Any) -> Any:
        return self.table + 0.0


def test_one_output_for_the_whole_batch_has_a_row_for_each_sample() -> None:
    inputs = keras.Input((5, 4))
    positions = Positions(name="positions")(inputs)
    x = layers.Flatten()(layers.Multiply()([inputs, positions]))
    model = keras.Model(inputs, layers.Dense(3, use_bias=False)(x))
    values = make_values(3, 5, 4)
    weights = model.layers[-1].kernel.numpy()[:, 2].reshape(5, 4)
    expected = (values * model.get_layer("positions").table.numpy() * weights).sum(1)
    assert_close(measure_channel_relevance(model, values, "positions", 2)["positions"], expected)


def test_a_function_and_a_class_name_are_targets() -> None:
    model, x = make_cnn(), make_values(2, 8, 8, 3)
    product = compute_products(
        model.layers[0](x),
        lambda a: tf.nn.softmax(make_head(model, "conv")(a)) ** 2,
        [1, 1],
    )
    relevance = measure_channel_relevance(model, x, "conv", lambda outputs: outputs[:, 1] ** 2)
    assert_close(relevance["conv"], product.sum((1, 2)))
    named = measure_channel_relevance(model, x, "conv", "dog", labels=["cat", "dog", "bird"])
    np.testing.assert_array_equal(
        named["conv"], measure_channel_relevance(model, x, "conv", 1)["conv"]
    )


def test_several_targets_have_a_row_each_ordered_by_sample() -> None:
    model, x = make_cnn(), make_values(2, 8, 8, 3)
    rows = measure_channel_relevance(model, x, "conv", [[0, 2], [1]])["conv"]
    classes = [measure_channel_relevance(model, x, "conv", target)["conv"] for target in range(3)]
    np.testing.assert_allclose(rows, [classes[0][0], classes[2][0], classes[1][1]], rtol=1e-5)


def test_the_model_is_traced_once_for_all_layers_and_batches() -> None:
    calls = 0

    class Counted(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = layers.Conv2D(4, 3, name="conv"), layers.Dense(2)

        def call(self, x: Any) -> Any:
            nonlocal calls
            calls += 1
            return self.head(tf.reduce_mean(self.conv(x), (1, 2)))

    model, x = Counted(), make_values(6, 8, 8, 3)
    Extractor(model, "conv")(x)
    measure_channel_relevance(model, x, "conv", 0, batch_size=2)
    first_calls, calls = calls, 0
    measure_channel_relevance(model, x + 1, "conv", 1, batch_size=2)
    assert first_calls > 0
    assert calls == 0


class Scores:
    """Network outside TensorFlow that returns the means of its input as scores."""

    name = "scores"
    inputs = (InputInfo("image", (None, 4, 4, 3)),)
    outputs = ("scores",)

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        return [LayerInfo("scores", "Mean", (None, 3), "float32", "channels_last", 0, 0)]

    def run(self, x: Any, paths: Any) -> Any:
        return {"scores": x.mean((1, 2))}

    def fingerprint(self) -> str:
        return "scores-1"


def test_networks_without_gradients_raise_an_error() -> None:
    with pytest.raises(CapabilityError, match=r"needs gradients, .*'scores' .*expected a Keras"):
        measure_channel_relevance(Scores(), make_values(1, 4, 4, 3), "scores")


def test_wrong_targets_and_layers_raise_errors() -> None:
    model, x = make_cnn(), make_values(1, 8, 8, 3)
    with pytest.raises(TargetError, match="there is no class 3: the model has 3, 0 to 2"):
        measure_channel_relevance(model, x, "conv", 3)
    with pytest.raises(LayerError, match="convv"):
        measure_channel_relevance(model, x, "convv")
