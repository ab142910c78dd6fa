"""Tests of `actgrid.patch` against models whose layers are run one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from PIL import Image

import actgrid
from actgrid.errors import (
    CapabilityError,
    DtypeError,
    LayerError,
    ModelError,
    OptionError,
    ShapeError,
)
from actgrid.interventions import scale
from actgrid.models.networks import get_network

Array = npt.NDArray[Any]


def make_layers() -> list[Any]:
    return [
        layers.Conv2D(4, 3, activation="relu", bias_initializer="ones", name="conv"),
        layers.MaxPooling2D(name="pool"),
        layers.Flatten(name="flat"),
        layers.Dense(3, activation="softmax", name="out"),
    ]


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((8, 8, 3)), *make_layers()], name="small")


@pytest.fixture(scope="module")
def x() -> Array:
    return np.random.default_rng(0).normal(size=(5, 8, 8, 3)).astype(np.float32)


def run_with(model: Any, x: Array, change: Callable[[Array], Array]) -> Array:
    """Run the layers of the small model one by one, and change the output of ``conv``."""
    values = change(np.array(model.get_layer("conv")(x)))
    for name in ("pool", "flat", "out"):
        values = model.get_layer(name)(values)
    return np.asarray(values)


def assign(channel: Any, value: Any) -> Callable[[Array], Array]:
    def change(values: Array) -> Array:
        values[..., channel] = value
        return values

    return change


def scale_channel(values: Array) -> Array:
    values[..., 1] *= 0.25
    return values


def take_means(values: Array) -> Array:
    values[..., 2] = values[..., 2].mean((1, 2), keepdims=True)
    return values


RAMP = np.arange(36.0).reshape(6, 6)


@pytest.mark.parametrize(
    ("edits", "change"),
    [
        ({"conv": {0: 0}}, assign(0, 0)),
        ({"conv": {-1: -2.5}}, assign(3, -2.5)),
        ({"conv": {(0, 2): 1}}, assign([0, 2], 1)),
        ({"conv": {range(1, 3): 1}}, assign([1, 2], 1)),
        ({"conv": {1: RAMP}}, assign(1, RAMP)),
        ({"conv": {1: RAMP[None]}}, assign(1, RAMP)),
        ({"conv": {1: RAMP[:1]}}, assign(1, RAMP[:1])),
        ({"conv": 7}, assign(slice(None), 7)),
        ({"conv": np.arange(4.0)}, assign(slice(None), np.arange(4.0))),
        ({"conv": {1: scale(0.25)}}, scale_channel),
        ({"conv": {1: lambda values: values / 4}}, scale_channel),
        ({"conv": {2: "mean"}}, take_means),
        ({"con*": {0: 0}}, assign(0, 0)),
        ({0: {0: 0}}, assign(0, 0)),
        ({layers.Conv2D: {0: 0}}, assign(0, 0)),
    ],
)
def test_values_of_channels(
    model: Any, x: Array, edits: Any, change: Callable[[Array], Array]
) -> None:
    expected = run_with(model, x, change)
    unchanged = np.asarray(model(x))
    with actgrid.patch(model, edits) as patched:
        np.testing.assert_allclose(patched(x), expected, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(patched.predict(x, verbose=0), expected, rtol=2e-5, atol=1e-6)
    assert abs(expected - unchanged).max() > 1e-3
    np.testing.assert_array_equal(model(x), unchanged)


def test_means_and_values_of_a_reference(model: Any, x: Array) -> None:
    conv = np.array(model.get_layer("conv")(x))
    edits = {"conv": {0: "mean", 1: "reference"}}
    with pytest.raises(ShapeError, match="needs a single reference input: got 5 inputs"):
        actgrid.patch(model, edits, reference=x)
    patched = actgrid.patch(model, {"conv": {0: "mean"}}, reference=x, batch_size=2)
    expected = run_with(model, x, assign(0, conv[..., 0].mean()))
    np.testing.assert_allclose(patched(x), expected, rtol=2e-5, atol=1e-6)
    patched = actgrid.patch(model, edits, reference=x[3:4])

    def change(values: Array) -> Array:
        values[..., 0], values[..., 1] = conv[3, ..., 0].mean(), conv[3, ..., 1]
        return values

    np.testing.assert_allclose(patched(x), run_with(model, x, change), rtol=2e-5, atol=1e-6)
    patched = actgrid.patch(model, {"conv": "reference"}, reference=x[3:4])
    np.testing.assert_allclose(
        patched(x), np.repeat(np.asarray(model(x[3:4])), 5, 0), rtol=2e-5, atol=1e-6
    )


def test_later_layers_see_earlier_changes(model: Any, x: Array) -> None:
    patched = actgrid.patch(model, {"conv": {0: 9}, "pool": {0: scale(2)}})
    activations = actgrid.Extractor(patched, ["conv", "pool", "flat"])(x)
    assert (activations["conv"][..., 0] == 9).all()
    assert (activations["pool"][..., 0] == 18).all()
    np.testing.assert_array_equal(activations["flat"].reshape(5, 3, 3, 4), activations["pool"])
    original = actgrid.Extractor(model, "conv")(x)["conv"]
    np.testing.assert_allclose(activations["conv"][..., 1:], original[..., 1:], rtol=1e-5)
    assert (original[..., 0] != 9).any()


@given(
    batch=st.integers(1, 7),
    batch_size=st.integers(1, 8),
    channels=st.dictionaries(st.integers(-4, 3), st.floats(-8, 8, width=32), min_size=1),
)
def test_batches_and_channels(
    model: Any, batch: int, batch_size: int, channels: dict[int, float]
) -> None:
    inputs = np.random.default_rng(batch).normal(size=(batch, 8, 8, 3)).astype(np.float32)

    def change(values: Array) -> Array:
        for channel, value in channels.items():
            values[..., channel] = value
        return values

    patched = actgrid.patch(model, {"conv": channels}, batch_size=batch_size)
    np.testing.assert_allclose(
        patched(inputs), run_with(model, inputs, change), rtol=2e-5, atol=1e-6
    )


# --- kinds of models


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.parts = make_layers()

    def call(self, inputs: Any) -> Any:
        for part in self.parts:
            inputs = part(inputs)
        return inputs


def make_functional() -> Any:
    inputs = outputs = keras.Input((8, 8, 3))
    for layer in make_layers():
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def make_nested() -> Any:
    inner = keras.Sequential([keras.Input((8, 8, 3)), *make_layers()], name="inner")
    return keras.Sequential([keras.Input((8, 8, 3)), inner])


def make_unbuilt() -> Any:
    model = keras.Sequential(make_layers())
    model(np.zeros((5, 8, 8, 3), np.float32))
    return model


def make_subclassed() -> Any:
    model = Subclassed()
    model(np.zeros((1, 8, 8, 3), np.float32))
    return model


@pytest.mark.parametrize("make", [make_functional, make_nested, make_unbuilt, make_subclassed])
def test_kinds_of_models(model: Any, x: Array, make: Callable[[], Any]) -> None:
    other = make()
    other.set_weights(model.get_weights())
    patched = actgrid.patch(other, {"*conv": {1: 0}})
    expected = run_with(model, x, assign(1, 0))
    np.testing.assert_allclose(patched(x), expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(patched.predict(x, verbose=0), expected, rtol=2e-5, atol=1e-6)
    assert isinstance(patched, type(other))
    assert [layer.path for layer in actgrid.list_layers(patched)] == [
        layer.path for layer in actgrid.list_layers(other)
    ]


def test_calls_of_a_shared_layer(x: Array) -> None:
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, shared(shared(inputs)))
    both = actgrid.patch(model, {"shared": {0: 1}})
    second = actgrid.patch(model, {"shared:1": {0: 1}})
    first = np.array(shared(x))
    assert np.asarray(second(x))[..., 0].min() == 1
    np.testing.assert_allclose(second(x)[..., 1:], shared(first)[..., 1:], rtol=1e-4, atol=1e-5)
    first[..., 0] = 1
    np.testing.assert_allclose(both(x)[..., 1:], shared(first)[..., 1:], rtol=1e-4, atol=1e-5)


def test_several_outputs_of_a_layer_and_of_the_model() -> None:
    inputs = keras.Input((4, 2))
    sequence, *states = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(
        inputs
    )
    model = keras.Model(inputs, {"sequence": sequence * 2, "state": states[0] * 3})
    x = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)
    original = model(x)
    patched = actgrid.patch(model, {"lstm[1]": {0: 5}}, batch_size=2)
    outputs = patched(x)
    assert set(outputs) == {"sequence", "state"}
    np.testing.assert_allclose(outputs["sequence"], original["sequence"], rtol=1e-4, atol=1e-6)
    assert (np.asarray(outputs["state"])[:, 0] == 15).all()
    np.testing.assert_allclose(
        outputs["state"][:, 1:], original["state"][:, 1:], rtol=1e-4, atol=1e-6
    )


def test_channels_first() -> None:
    inputs = keras.Input((3, 8, 8))
    outputs = layers.Flatten(data_format="channels_first", name="flat")(
        layers.MaxPooling2D(1, data_format="channels_first", name="pool")(inputs)
    )
    model = keras.Model(inputs, outputs)
    x = np.ones((2, 3, 8, 8), np.float32)
    channels = (0, 2)
    patched = actgrid.patch(model, {"pool": {channels: 0}})
    inner = actgrid.Extractor(patched, "pool")
    assert inner(x)["pool"].mean((0, 2, 3)).tolist() == [0, 1, 0]


def test_quantized_layers(x: Array) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")]
    )
    for name in ("a", "b"):
        model.get_layer(name).quantize("int8")
    values = x[:, 0, :2].reshape(5, 6)
    patched = actgrid.patch(model, {"a": {2: 0}})
    hidden = np.array(model.get_layer("a")(values))
    hidden[:, 2] = 0
    np.testing.assert_allclose(patched(values), model.get_layer("b")(hidden), rtol=1e-4, atol=1e-5)


def test_layers_inside_time_distributed() -> None:
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, name="first"), layers.Dense(2, name="second")],
        name="inner",
    )
    model = keras.Sequential([keras.Input((3, 5)), layers.TimeDistributed(inner, name="steps")])
    x = np.random.default_rng(0).normal(size=(6, 3, 5)).astype(np.float32)
    patched = actgrid.patch(model, {"steps/inner/first": {1: [1, 2, 3]}})
    hidden = np.array(inner.get_layer("first")(x))
    hidden[..., 1] = 1, 2, 3
    np.testing.assert_allclose(patched(x), inner.get_layer("second")(hidden), atol=1e-5)
    custom = keras.Sequential(
        [
            keras.Input((3, 5)),
            layers.TimeDistributed(layers.Lambda(lambda values: values * 2, name="twice")),
        ]
    )
    with pytest.raises(LayerError, match="expected the layer TimeDistributed around it"):
        actgrid.patch(custom, {"*/twice": {1: 0}})


def test_loops_and_attention_cannot_be_changed() -> None:
    recurrent = keras.Sequential(
        [keras.Input((4, 2)), layers.RNN(layers.LSTMCell(3, name="cell"), name="rnn")]
    )
    with pytest.raises(LayerError, match="cell"):
        actgrid.patch(recurrent, {"rnn/cell": {0: 0}})
    inputs = keras.Input((4, 2))
    attention = layers.MultiHeadAttention(2, 2, name="attend")(inputs, inputs)
    model = keras.Model(inputs, attention)
    with pytest.raises(CapabilityError, match="attention scores cannot be changed"):
        actgrid.patch(model, {"attend/attention": 0})


# --- with other functions


def test_other_functions_take_patched_models(model: Any, x: Array) -> None:
    patched = actgrid.patch(model, {"conv": {0: 0, 1: 0}})
    grid = actgrid.render_model(patched, x, "conv")["conv"]
    assert grid.stats.dead.tolist()[:2] == [True, True]
    score = np.asarray(actgrid.explain(patched, x[:1], "saliency", target=2).score)[0]
    kernel, bias = (np.asarray(weight) for weight in model.get_layer("out").weights)
    conv = np.array(model.get_layer("conv")(x[:1]))
    conv[..., :2] = 0
    pooled = np.asarray(model.get_layer("pool")(conv)).reshape(-1)
    assert score == pytest.approx((pooled @ kernel + bias)[2], rel=1e-4)
    assert get_network(patched).fingerprint() != get_network(model).fingerprint()
    others = [actgrid.patch(model, {"conv": {0: 0, 1: value}}) for value in (0, 1)]
    prints = [get_network(other).fingerprint() for other in others]
    assert prints[0] == get_network(patched).fingerprint() != prints[1]


def test_patched_models_can_be_patched_again(model: Any, x: Array) -> None:
    patched = actgrid.patch(model, {"conv": {0: 1, 1: 1}})
    again = actgrid.patch(patched, {"conv": {0: scale(3), 2: 5}, "pool": {3: 0}})
    values = actgrid.Extractor(again, ["conv", "pool"])(x)
    assert values["conv"][0, 0, 0, :3].tolist() == [3, 1, 5]
    assert not values["pool"][..., 3].any()
    assert actgrid.Extractor(patched, "conv")(x)["conv"][0, 0, 0, 0] == 1


def test_several_keys_of_one_layer(model: Any, x: Array) -> None:
    edits = {"conv": {1: 2}, model.get_layer("conv"): {2: 0}, "con?": {1: scale(3)}}
    values = actgrid.Extractor(actgrid.patch(model, edits), "conv")(x)["conv"]
    assert (values[..., 1:3] == (6, 0)).all()


def test_training_updates_moving_averages() -> None:
    def make() -> Any:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                layers.Conv2D(3, 3, name="conv"),
                layers.BatchNormalization(name="norm"),
                layers.Flatten(),
                layers.Dense(2, activation="softmax"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        return model

    images = np.random.default_rng(0).random((8, 6, 6, 2)).astype(np.float32) + 2
    labels = np.arange(8) % 2
    model, other = make(), make()
    model.fit(images, labels, epochs=2, shuffle=False, verbose=0)
    patched = actgrid.patch(other, {"conv": {1: scale(1)}})
    patched.fit(images, labels, epochs=2, shuffle=False, verbose=0)
    for expected, weight in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(weight, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(other.get_layer("norm").get_weights()[2]).min() > 0
    before = other.get_layer("norm").get_weights()[2]
    patched(images, training=False)
    np.testing.assert_array_equal(other.get_layer("norm").get_weights()[2], before)
    patched(images, training=True)
    assert np.abs(other.get_layer("norm").get_weights()[2] - before).min() > 0


def test_no_samples(model: Any, x: Array) -> None:
    with pytest.raises(ShapeError, match="no samples"):
        actgrid.patch(model, {"conv": 0})(x[:0])


def test_gradient_tape(model: Any, x: Array) -> None:
    patched = actgrid.patch(model, {"conv": 1}, batch_size=2)
    inputs = tf.constant(x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        constant, other = patched(inputs)[:, 0], actgrid.patch(model, {"conv": {0: 1}})(inputs)
    assert not np.any(tape.gradient(constant, inputs))
    assert np.any(tape.gradient(other, inputs))


def test_images(x: Array) -> None:
    model = actgrid.load_model("demo")
    photo = actgrid.demo.photo()
    patched = actgrid.patch(model, {"stem_relu": 0})
    outputs = np.asarray(patched([photo, Image.new("RGB", (50, 40))]))
    assert outputs.shape == (2, 1000)
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-4)


# --- limits and errors


def test_patched_models_cannot_be_saved_or_nested(model: Any, tmp_path: Any) -> None:
    patched = actgrid.patch(model, {"conv": {0: 0}})
    with pytest.raises(CapabilityError, match="cannot be saved"):
        patched.save(tmp_path / "model.keras")
    with pytest.raises(CapabilityError, match="cannot be saved"):
        keras.saving.save_model(patched, tmp_path / "model.keras")
    with pytest.raises(CapabilityError, match="got also mask"):
        patched(np.ones((1, 8, 8, 3)), mask=np.ones((1, 8)))
    with pytest.raises(CapabilityError, match="cannot be a layer of another model"):
        patched(keras.Input((8, 8, 3)))
    assert repr(patched).startswith("<PatchedSequential name=small")


@pytest.mark.parametrize(
    ("edits", "error", "message"),
    [
        ({}, OptionError, "edits must be a dict from layers to changes"),
        ([], OptionError, "edits must be a dict"),
        ({"conv": {}}, OptionError, "expected at least one channel"),
        ({"cnv": {0: 0}}, LayerError, "did you mean conv"),
        ({"conv": {(): 0}}, OptionError, "expected at least one channel"),
        ({"conv": {0: 1e39}}, OptionError, "must be in the range of float32"),
        ({"conv": {4: 0}}, LayerError, "has no channel 4; expected 0 to 3"),
        ({"conv": {-5: 0}}, LayerError, "has no channel -5"),
        ({"conv": {True: 0}}, LayerError, "has no channel True"),
        ({"conv": {"a": 0}}, OptionError, "channels must be integers"),
        ({"conv": {0: "median"}}, OptionError, "got 'median'"),
        ({"conv": {0: "reference"}}, OptionError, "needs reference"),
        ({"out": {0: "mean"}}, OptionError, "layer out has no positions"),
        ({"conv": {0: None}}, DtypeError, "must be real numbers"),
        ({"conv": {0: [[1], [1, 2]]}}, ShapeError, "not an array"),
        ({"conv": {0: np.ones((6, 5))}}, ShapeError, r"shape \(6, 5\) does not fit"),
        ({"conv": {0: np.ones((2, 6, 6))}}, ShapeError, r"shape \(2, 6, 6\) does not fit"),
        ({"conv": {0: lambda values: values[:, :3]}}, ShapeError, r"\(None, 3, 6\) does not fit"),
    ],
)
def test_errors(model: Any, edits: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        actgrid.patch(model, edits)


def test_models_that_cannot_be_patched(model: Any) -> None:
    with pytest.raises(ModelError, match=r"not built|input of the model"):
        actgrid.patch(keras.Sequential(make_layers()), {"conv": {0: 0}})
    with pytest.raises(OptionError, match="batch_size"):
        actgrid.patch(model, {"conv": {0: 0}}, batch_size=0)
    for factor in (np.nan, "2"):
        with pytest.raises(OptionError, match="factor must be a finite number"):
            scale(factor)  # type: ignore[arg-type]
