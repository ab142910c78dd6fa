"""Activation maximization of channels, units and classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import actgrid
from actgrid import Maximization, maximize
from actgrid.attribution.random_transforms import transform_images
from actgrid.errors import LayerError, ModelError, OptionError, ShapeError, TargetError
from actgrid.models.networks import trace_network

NO_TRANSFORM: dict[str, Any] = {"jitter": 0, "rotate": 0, "scale": 0, "total_variation": 0}
QUICK: dict[str, Any] = {"steps": 12, "jitter": 0.1, "rotate": 5, "scale": 0.1}


@pytest.fixture(autouse=True)
def _set_seed() -> None:
    keras.utils.set_random_seed(20)


def make_sequential(*, channels: int = 3, side: int | None = 12) -> Any:
    return keras.Sequential(
        [
            keras.Input((side, side, channels)),
            layers.Conv2D(6, 3, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(4, activation="softmax", name="head"),
        ]
    )


def make_functional() -> Any:
    inputs = keras.Input((12, 12, 3))
    a = layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
    x = layers.Add(name="add")([a, layers.ReLU(max_value=6, name="relu6")(a)])
    x = layers.Dense(4, name="logits")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Softmax(name="head")(x))


def make_nested() -> Any:
    inner = keras.Sequential(
        [layers.Conv2D(6, 3, name="conv"), layers.BatchNormalization(name="bn")], name="inner"
    )
    head = layers.Dense(4, activation="softmax", name="head")
    return keras.Sequential([keras.Input((12, 12, 3)), inner, layers.GlobalMaxPooling2D(), head])


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(6, 3, name="conv")
        self.head = layers.Dense(4, activation="softmax", name="head")

    def call(self, x: Any) -> Any:
        return self.head(tf.reduce_mean(tf.nn.relu(self.conv(x)), (1, 2)))


@pytest.mark.parametrize("layer", ["*conv", "head"])
@pytest.mark.parametrize("make_model", [make_sequential, make_functional, make_nested, Subclassed])
def test_activations_increase_in_every_model_type(
    make_model: Callable[[], Any], layer: str
) -> None:
    model = make_model()
    result = maximize(model, layer, [2, 0], size=12, learning_rate=0.3, **QUICK | {"steps": 40})
    assert result.channels.tolist() == [2, 0]
    assert result.images.shape == (2, 12, 12, 3)
    assert (result.activations > result.initial_activations + 0.05).all()
    # The activations are those of the model for the inputs, before its softmax.
    extractor = actgrid.Extractor(model, layer)
    (activation,) = extractor(result.inputs).values()
    if layer == "head":
        differences = np.log(activation[:, 2] / activation[:, 0])
        assert differences[0] > differences[1]
        assert abs(result.activations).max() > 1e-3
    else:
        means = activation.mean((1, 2))[[0, 1], [2, 0]]
        np.testing.assert_allclose(result.activations, means, rtol=1e-5)
    np.testing.assert_array_equal(result.images, np.rint(result.inputs * 255))


def test_result_of_linear_model_is_the_sign_of_its_weights() -> None:
    model = keras.Sequential(
        [keras.Input((4, 5, 3)), layers.Flatten(), layers.Dense(2, name="units")]
    )
    result = maximize(
        model, "units", parametrization="pixel", learning_rate=2, steps=10, **NO_TRANSFORM
    )
    kernel = model.get_layer("units").get_weights()[0].T.reshape(2, 4, 5, 3)
    np.testing.assert_array_equal(result.images, np.where(kernel > 0, 255, 0))
    best = np.maximum(kernel, 0).sum((1, 2, 3))
    np.testing.assert_allclose(result.activations, best, rtol=1e-3)


def test_total_variation_smooths_images() -> None:
    def measure_roughness(weight: float) -> float:
        options = QUICK | {"total_variation": weight, "steps": 40}
        images = maximize(make_sequential(), "conv", 1, parametrization="pixel", **options).inputs
        return float(np.abs(np.diff(images, axis=1)).mean())

    assert measure_roughness(5) < 0.5 * measure_roughness(0)


def test_result_depends_on_the_seed() -> None:
    model = make_sequential()
    first, repeated, other = (
        maximize(model, "head", 1, seed=seed, **QUICK).inputs for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, repeated)
    assert np.abs(first - other).max() > 0.01


def test_result_does_not_depend_on_batches_and_other_channels() -> None:
    model = make_sequential()
    all_channels = maximize(model, "conv", **QUICK)
    assert all_channels.channels.tolist() == [0, 1, 2, 3, 4, 5]
    chunks = maximize(model, "conv", range(6), batch_size=4, **QUICK)
    np.testing.assert_allclose(chunks.inputs, all_channels.inputs, atol=1e-3)
    alone = maximize(model, "conv", 5, **QUICK)
    np.testing.assert_allclose(alone.inputs[0], all_channels.inputs[5], atol=1e-3)


def test_inactive_channel_is_activated() -> None:
    model = make_sequential()
    kernel, bias = model.get_layer("conv").get_weights()
    model.get_layer("conv").set_weights([kernel, bias - 0.9])
    silent = maximize(model, "conv", steps=1, **NO_TRANSFORM)
    assert not silent.initial_activations.any()
    result = maximize(model, "conv", steps=60, learning_rate=0.2, **NO_TRANSFORM)
    assert (result.activations > 0).any()


def test_gray_models_channels_first_models_and_sizes() -> None:
    gray = maximize(make_sequential(channels=1), "conv", 0, **QUICK)
    assert gray.inputs.shape == (1, 12, 12, 1)
    np.testing.assert_array_equal(gray.images[..., 0], gray.images[..., 2])
    assert (gray.activations > gray.initial_activations).all()
    first = keras.Sequential(
        [
            keras.Input((3, 12, 14)),
            layers.Permute((2, 3, 1)),
            layers.Conv2D(3, 3, name="conv"),
        ]
    )
    result = maximize(first, "conv", 0, **QUICK)
    assert result.inputs.shape == (1, 3, 12, 14)
    assert result.images.shape == (1, 12, 14, 3)
    assert (result.activations > result.initial_activations).all()
    for size in ((9, 16), (16, 9)):
        sized = maximize(make_sequential(side=None), "conv", 0, size=size, **QUICK)
        assert sized.images.shape == (1, *size, 3)
    with pytest.raises(OptionError, match="images of any size: pass size"):
        maximize(make_sequential(side=None), "conv", 0)


def test_channels_first_layer() -> None:
    model = keras.Sequential(
        [
            keras.Input((3, 8, 8)),
            layers.AveragePooling2D(2, data_format="channels_first", name="pool"),
        ]
    )
    result = maximize(
        model, "pool", 1, parametrization="pixel", learning_rate=2, steps=10, **NO_TRANSFORM
    )
    assert result.images[0, ..., 1].min() == 255
    # The other colours do not change the activation.
    assert 100 < result.images[0, ..., 0].mean() < 150


def test_preprocessing_of_model_and_option() -> None:
    model = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3), include_top=False)
    result = maximize(model, "block1_conv1", [4], **QUICK)
    # VGG16 takes BGR minus the ImageNet mean.
    pixels = result.inputs[0][..., ::-1] + [123.68, 116.779, 103.939]
    np.testing.assert_allclose(pixels, result.images[0], atol=0.51)
    assert (result.activations > result.initial_activations).all()
    custom = maximize(
        make_sequential(), "conv", 0, preprocess=lambda pixels: pixels / 51 - 2.5, **QUICK
    )
    np.testing.assert_allclose(custom.inputs, custom.images / 51 - 2.5, atol=0.011)


def test_channels_by_class_name() -> None:
    labels = ["cat", "dog", "car", "tree"]
    result = maximize(make_sequential(), "head", ["Car", 1], labels=labels, **QUICK)
    assert result.channels.tolist() == [2, 1]
    assert maximize(make_sequential(), "head", "tree", labels=labels, **QUICK).channels == [3]
    with pytest.raises(TargetError, match="did you mean tree"):
        maximize(make_sequential(), "head", "three", labels=labels)
    with pytest.raises(TargetError, match="names of the model's classes are not known"):
        maximize(make_sequential(), "head", "cat")


def test_picture_has_a_tile_for_each_channel(tmp_path: Path) -> None:
    result = maximize(make_sequential(), "conv", columns=4, padding=2, **QUICK)
    picture = result.to_rgb()
    assert picture.shape == (2 * 12 + 2, 4 * 12 + 3 * 2, 3)
    np.testing.assert_array_equal(picture[14:, 14:26], result.images[5])
    assert not picture[12:14].any()
    assert not picture[14:, 28:].any()
    result.save(tmp_path / "conv.png")
    with Image.open(tmp_path / "conv.png") as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    assert repr(result) == "<Maximization of conv: 6 channels, 12 x 12>"
    assert len(result) == 6
    assert actgrid.Maximization is Maximization
    assert maximize(make_sequential(), "conv", **QUICK).to_rgb().shape == (25, 38, 3)


def test_functions_are_traced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []

    def record_trace(*arguments: Any) -> Any:
        traces.append(arguments)
        return trace_network(*arguments)

    monkeypatch.setattr("actgrid.attribution.ascent.trace_network", record_trace)
    model = make_sequential()
    for rate in (0.1, 0.2):
        maximize(model, "conv", range(3), learning_rate=rate, batch_size=2, **QUICK)
    assert len(traces) == 2  # the ascent step and the channel means


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, OptionError, "steps must be at least 1"),
        ({"parametrization": "wavelet"}, OptionError, "fourier, maco, pixel, not 'wavelet'"),
        ({"learning_rate": "fast"}, OptionError, "learning_rate must be a number"),
        ({"total_variation": -1}, OptionError, "total_variation must be a number of at least 0"),
        ({"jitter": float("nan")}, OptionError, "jitter must be a number"),
        ({"rotate": float("inf")}, OptionError, "rotate must be a number"),
        ({"scale": 1}, OptionError, "scale must be a number from 0 to 0.99, not 1"),
        ({"scale": None}, OptionError, "scale must be a number from 0 to 0.99, not None"),
        ({"batch_size": 0}, OptionError, "batch_size must be at least 1"),
        ({"seed": -1}, OptionError, "seed must be at least 0"),
        ({"columns": 0}, OptionError, "columns must be at least 1"),
        ({"padding": 1.5}, OptionError, "padding must be an integer"),
        ({"preprocess": "vgg61"}, OptionError, "preprocess must be .*did you mean VGG19, VGG16"),
        ({"size": 0}, OptionError, "one number for both, each at least 1, not 0"),
        ({"size": 13}, ShapeError, r"takes an input of \(None, 12, 12, 3\), not \(1, 13, 13, 3\)"),
        ({"channels": 6}, TargetError, "layer conv has the channels 0 to 5, not 6"),
        ({"channels": [-1]}, TargetError, "channels 0 to 5, not -1"),
        ({"channels": []}, TargetError, "channels is empty"),
        ({"channels": np.array(6)}, TargetError, "channels 0 to 5, not 6"),
        ({"channels": 1.5}, OptionError, "a channel must be an integer"),
        ({"layer": "cnov"}, LayerError, "did you mean conv"),
        ({"layer": "*n*"}, LayerError, r"layer must be one layer: got 2 \(conv, mean\); name one"),
        ({"layer": None}, LayerError, "layer must be a layer whose"),
    ],
)
def test_invalid_arguments_are_rejected(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    layer = options.pop("layer", "conv") if "layer" in options else "conv"
    with pytest.raises(error, match=message) as caught:
        maximize(make_sequential(), layer, **options)
    assert isinstance(caught.value, actgrid.ActgridError)


def test_models_without_image_input_are_rejected() -> None:
    vector = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="units")])
    with pytest.raises(ShapeError, match="not a batch of images"):
        maximize(vector, "units")


def test_layers_that_cannot_be_maximized_are_rejected() -> None:
    class Constant(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.ones((1, 2, 2, 3))

    class Levels(layers.Layer):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return tf.cast(x, "int32")

    model = keras.Sequential(
        [keras.Input((8, 8, 3)), Levels(name="levels"), Constant(name="constant")]
    )
    with pytest.raises(LayerError, match="no channels to maximize: its output is int32"):
        maximize(model, "levels")
    with pytest.raises(LayerError, match="constant does not depend on the image"):
        maximize(model, "constant", 0)


def test_transform_images_rotates_and_scales_about_the_centre() -> None:
    images = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    rotated = np.asarray(transform_images(images, tf.constant(np.pi / 2, tf.float32), 1.0))[0]
    candidates = [np.rot90(images[0], turns) for turns in (1, 3)]
    expected = min(candidates, key=lambda candidate: abs(candidate - rotated).max())
    np.testing.assert_allclose(rotated, expected, atol=1e-4)
    larger = np.asarray(transform_images(images, tf.constant(0.0), 2.0))[0, :, :, 0]
    np.testing.assert_allclose(larger[::2, ::2], images[0, 1:4, 1:4, 0], atol=1e-4)
    shifted = np.asarray(transform_images(images, tf.constant(0.0), 1.0, 1.0, 2.0))[0, :, :, 0]
    np.testing.assert_allclose(shifted[:4, :3], images[0, 1:, 2:, 0], atol=1e-4)


def test_progress_function_is_called_after_each_step_and_may_raise() -> None:
    steps: list[int] = []
    model = make_sequential()
    maximize(model, "conv", [0, 1, 2], steps=3, batch_size=2, progress=lambda: steps.append(1))
    assert len(steps) == 2 * 3

    def stop_at_eighth_step() -> None:
        steps.append(1)
        if len(steps) == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        maximize(model, "conv", 0, steps=100, progress=stop_at_eighth_step)
    assert len(steps) == 8


# --- images of any number of channels


def test_images_of_six_channels_are_drawn_as_gray_tiles() -> None:
    model = keras.Sequential(
        [keras.Input((7, 5, 6)), layers.Flatten(), layers.Dense(2, name="units")]
    )
    options: dict[str, Any] = {
        "parametrization": "pixel",
        "learning_rate": 2,
        "steps": 10,
    } | NO_TRANSFORM
    result = maximize(model, "units", **options)
    kernel = model.get_layer("units").get_weights()[0].T.reshape(2, 7, 5, 6)
    best = np.where(kernel > 0, 255, 0)
    np.testing.assert_array_equal(result.images, best)
    np.testing.assert_allclose(result.inputs, best / 255, atol=0.01)
    # A row for each unit, a tile for each channel.
    picture = result.to_rgb()
    assert picture.shape == (2 * 7 + 1, 6 * 5 + 5, 3)
    for unit in range(2):
        for channel in range(6):
            tile = picture[unit * 8 :, channel * 6 :][:7, :5]
            np.testing.assert_array_equal(tile, np.repeat(best[unit, ..., channel, None], 3, -1))
    assert repr(result) == "<Maximization of units: 2 channels, 5 x 7>"
    colour = maximize(model, "units", rgb_channels=(4, 2, 0), **options)
    np.testing.assert_array_equal(colour.images, best[..., [4, 2, 0]])
    assert colour.to_rgb().shape == (7, 2 * 5 + 1, 3)
    np.testing.assert_array_equal(colour.inputs, result.inputs)


def test_images_of_two_channels() -> None:
    result = maximize(make_sequential(channels=2), "conv", [1, 2], **QUICK | {"steps": 40})
    assert result.images.shape == (2, 12, 12, 2)
    assert (result.activations > result.initial_activations + 0.05).all()


@pytest.mark.parametrize(
    ("rgb_channels", "message"),
    [
        ((0, 1), r"rgb_channels must be three channels, not \[0, 1\]"),
        ((0, 1, 6), "a channel of rgb_channels must be .* 5, not 6"),
        ((0, 1, "red"), "rgb_channels must be channels such as 3,0-2"),
    ],
)
def test_invalid_rgb_channels_are_rejected(rgb_channels: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        maximize(make_sequential(channels=6), "conv", 0, rgb_channels=rgb_channels)


# --- several inputs


def make_gated_model(structure: type = list) -> Any:
    """Return a model of two inputs: linear scores of an image, times a gate."""
    image, gate = keras.Input((4, 5, 3), name="image"), keras.Input((1,), name="gate")
    units = layers.Dense(2, use_bias=False, name="units")(layers.Flatten()(image))
    gated = layers.Multiply(name="gated")([units, gate])
    inputs = {"image": image, "gate": gate} if structure is dict else [gate, image]
    return keras.Model(inputs, gated)


@pytest.mark.parametrize("structure", [list, dict])
@pytest.mark.parametrize("sign", [1, -1])
def test_other_inputs_by_name(structure: type, sign: int) -> None:
    model = make_gated_model(structure)
    result = maximize(
        model,
        "gated",
        parametrization="pixel",
        learning_rate=2,
        steps=10,
        inputs={"gate": [sign]},
        batch_size=1,
        **NO_TRANSFORM,
    )
    kernel = model.get_layer("units").get_weights()[0].T.reshape(2, 4, 5, 3)
    np.testing.assert_array_equal(result.images, np.where(sign * kernel > 0, 255, 0))
    best = np.maximum(sign * kernel, 0).sum((1, 2, 3))
    np.testing.assert_allclose(result.activations, best, rtol=1e-3)
    assert result.inputs.shape == (2, 4, 5, 3)


def test_other_inputs_can_change_without_retracing(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = []

    def record_trace(*arguments: Any) -> Any:
        traces.append(arguments)
        return trace_network(*arguments)

    monkeypatch.setattr("actgrid.attribution.ascent.trace_network", record_trace)
    model = make_gated_model()
    kernel = model.get_layer("units").get_weights()[0]
    for gate in (0.5, [2.0], np.array([[-1.0]])):
        result = maximize(
            model,
            "gated",
            1,
            steps=1,
            inputs={"gate": gate if np.ndim(gate) else [gate]},
            **NO_TRANSFORM,
        )
        expected = result.inputs.reshape(1, -1) @ kernel[:, 1] * np.ravel(gate)
        np.testing.assert_allclose(result.activations, expected, rtol=1e-4)
    assert len(traces) == 2


def test_image_input_selects_the_optimized_input() -> None:
    left, right = keras.Input((4, 4, 3), name="left"), keras.Input((5, 5, 3), name="right")
    flat = [layers.Flatten()(image) for image in (left, right)]
    scores = layers.Dense(2, name="units")(layers.Concatenate()(flat))
    model = keras.Model([left, right], scores)
    values = {"left": np.zeros((4, 4, 3)), "right": np.zeros((1, 5, 5, 3))}
    for name, side in (("left", 4), ("right", 5)):
        others = {other: value for other, value in values.items() if other != name}
        for image_input in (name, ["left", "right"].index(name), None):
            result = maximize(model, "units", 0, image_input=image_input, inputs=others, **QUICK)
            assert result.inputs.shape == (1, side, side, 3)
    with pytest.raises(OptionError, match=r"several images \(left, right\): pass all but one"):
        maximize(model, "units")
    with pytest.raises(OptionError, match=r"also takes right: pass a sample .*inputs=\{'right'"):
        maximize(model, "units", image_input="left")
    with pytest.raises(OptionError, match=r"no input 'lft' \(did you mean left\?\)"):
        maximize(model, "units", image_input="lft")
    with pytest.raises(OptionError, match="no input 'depth'; inputs: 'left', 'right'"):
        maximize(model, "units", inputs={"depth": 1})
    with pytest.raises(OptionError, match=r"inputs must be a dict.*not array"):
        maximize(model, "units", inputs=cast(Any, np.zeros((1, 5, 5, 3))))
    with pytest.raises(ShapeError, match=r"'right' must be one sample, \(1, 5, 5, 3\), not \(2, 5"):
        maximize(model, "units", inputs={"right": np.zeros((2, 5, 5, 3))})
    with pytest.raises(OptionError, match="'right' must be float32"):
        maximize(model, "units", inputs={"right": "no array"})
    with pytest.raises(ShapeError, match="not a batch of images"):
        maximize(make_gated_model(), "gated", inputs={"image": np.zeros((4, 5, 3))})


# --- the image size of subclassed models


class FixedSizeModel(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = layers.Conv2D(2, 3, name="conv")
        self.flatten = layers.Flatten(name="flatten")
        self.units = layers.Dense(3, name="units")

    def call(self, x: Any) -> Any:
        return self.units(self.flatten(self.conv(x)))


class ManuallyBuiltModel(FixedSizeModel):
    def build(self) -> None:
        self.conv.build((None, 24, 24, 3))
        self.units.build((None, 22 * 22 * 2))


def test_subclassed_model_uses_size_of_its_last_run() -> None:
    model = FixedSizeModel()
    with pytest.raises(OptionError, match=r"has not been called: pass size=\(height, width\)$"):
        maximize(model, "units", 0)
    model(np.zeros((1, 24, 24, 3), np.float32))
    assert maximize(model, "units", 0, **QUICK).images.shape == (1, 24, 24, 3)


def test_error_of_unknown_size_quotes_the_model() -> None:
    model = ManuallyBuiltModel()
    model(np.zeros((1, 24, 24, 3), np.float32))
    for size in (None, 13):  # a failed trial does not set the model's size
        with pytest.raises((OptionError, ModelError)):
            maximize(model, "units", 0, size=size)
    with pytest.raises(OptionError) as caught:
        maximize(model, "units", 0)
    message = str(caught.value)
    assert message.startswith("size is unknown, as the model does not define it: pass size=(height")
    assert "to have value 968, but received input with shape" in message
    assert maximize(model, "units", 0, size=24, **QUICK).images.shape == (1, 24, 24, 3)
    # After a run, the size is known.
    assert maximize(model, "units", 0, **QUICK).images.shape == (1, 24, 24, 3)
