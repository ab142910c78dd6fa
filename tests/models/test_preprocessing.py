"""What is done to pixels before a model gets them, decided by the layers of the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from actgrid import load_images, load_model
from actgrid.errors import AssumptionWarning, OptionError
from actgrid.models.preprocessing import find_preprocessing, preprocessing

Array = npt.NDArray[Any]

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
SIZE = (32, 32, 3)


def small(*steps: Any, name: str = "own") -> Any:
    return keras.Sequential([keras.Input(SIZE), *steps, layers.Conv2D(2, 3)], name=name)


def decided(model: Any) -> str:
    """Return the name of the preprocessing of a model that tells what it wants."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return find_preprocessing("auto", model).name


# --- models that scale their input themselves


class Scaled(keras.Model):  # type: ignore[misc]
    """Scales its input by arithmetic, or not."""

    def __init__(self, scale: Callable[[Any], Any]) -> None:
        super().__init__()
        self.scale, self.convolution = scale, layers.Conv2D(2, 3)

    def call(self, x: Any) -> Any:
        return self.convolution(self.scale(x))


def called(scale: Callable[[Any], Any]) -> Any:
    model = Scaled(scale)
    model(np.zeros((1, *SIZE), np.float32))
    return model


class Centred(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return (tf.cast(x, tf.float32)[..., ::-1] - [103.9, 116.8, 123.7]) * 0.017


class Stem(layers.Layer):  # type: ignore[misc]
    def __init__(self, *steps: Any) -> None:
        super().__init__()
        self.steps = list(steps)

    def call(self, x: Any) -> Any:
        for step in self.steps:
            x = step(x)
        return x


def functional(function: Callable[[Any], Any]) -> Any:
    inputs = keras.Input(SIZE)
    return keras.Model(inputs, layers.Conv2D(2, 3)(function(inputs)))


SCALING: dict[str, Callable[[], Any]] = {
    "rescaling": lambda: small(layers.Rescaling(1 / 255)),
    "normalization": lambda: small(layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3)),
    "after augmentation": lambda: small(
        layers.RandomFlip(), layers.Resizing(16, 16), layers.Rescaling(1 / 255)
    ),
    "nested": lambda: small(keras.Sequential([keras.Input(SIZE), layers.Rescaling(1 / 255)])),
    "operators": lambda: functional(lambda x: x / 127.5 - 1),
    "operations": lambda: functional(
        lambda x: keras.ops.multiply(keras.ops.cast(x, "float32"), 1 / 255)
    ),
    "lambda": lambda: small(layers.Lambda(lambda x: x / 255.0)),
    "application's function": lambda: small(
        layers.Lambda(keras.applications.vgg16.preprocess_input)
    ),
    "own layer": lambda: small(Centred()),
    "layer inside an own layer": lambda: small(
        Stem(layers.Rescaling(1 / 255), layers.Conv2D(3, 1))
    ),
    "subclassed, arithmetic": lambda: called(lambda x: x / 255.0),
    "subclassed, layer": lambda: called(layers.Rescaling(1 / 255)),
    "demo": lambda: load_model("demo"),
}


@pytest.mark.parametrize("name", SCALING)
def test_a_model_that_scales_its_input_gets_pixels(name: str) -> None:
    model = SCALING[name]()
    assert decided(model) == "none"
    np.testing.assert_array_equal(preprocessing("auto", model)(PIXELS), PIXELS)


IMAGENET_MEAN, IMAGENET_VARIANCE = [0.485, 0.456, 0.406], [0.229**2, 0.224**2, 0.225**2]
UNIT: dict[str, Callable[[], Any]] = {
    "ImageNet's mean, of 1": lambda: small(
        layers.Normalization(mean=IMAGENET_MEAN, variance=IMAGENET_VARIANCE)
    ),
    "to -1 to 1": lambda: small(layers.Rescaling(2.0, offset=-1)),
    "operators": lambda: functional(lambda x: x * 2 - 1),
    "back to pixels": lambda: small(layers.Rescaling(255.0)),
    "back to pixels, then scaled": lambda: small(
        layers.Rescaling(255.0), layers.Rescaling(1 / 127.5, offset=-1)
    ),
    "subclassed": lambda: called(lambda x: (x - 0.5) * 2),
    "lambda": lambda: small(layers.Lambda(lambda x: (x - 0.45) / 0.22)),
}


@pytest.mark.parametrize("name", UNIT)
def test_a_model_that_scales_0_to_1_itself_gets_0_to_1(name: str) -> None:
    model = UNIT[name]()
    assert decided(model) == "unit"
    np.testing.assert_array_equal(preprocessing("auto", model)(PIXELS), PIXELS / np.float32(255))


# --- applications, by their structure


def test_an_application_under_any_name_is_known_by_its_layers() -> None:
    base = keras.applications.MobileNetV2(
        weights=None, input_shape=SIZE, include_top=False, alpha=0.35, name="backbone"
    )
    head = layers.Dense(5)(layers.GlobalAveragePooling2D()(base.output))
    models = [
        base,
        keras.Model(base.input, head, name="classifier"),
        keras.Sequential([keras.Input(SIZE), layers.RandomFlip(), base, layers.Flatten()]),
    ]
    truth = keras.applications.mobilenet_v2.preprocess_input(PIXELS.copy())
    for model in models:
        assert decided(model) == "MobileNetV2"
        np.testing.assert_array_equal(preprocessing("auto", model)(PIXELS.copy()), truth)
        batch = load_images(PIXELS, model=model)
        np.testing.assert_array_equal(batch, truth)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("VGG16", "vgg16"),
        ("ResNet50V2", "resnet_v2"),
        ("DenseNet121", "densenet"),
        ("MobileNet", "mobilenet"),
    ],
)
def test_each_application_gets_the_preprocessing_of_its_module(name: str, module: str) -> None:
    make = getattr(keras.applications, name)
    model = make(weights=None, include_top=False, input_shape=SIZE, name="own")
    assert decided(model) == name
    truth = getattr(keras.applications, module).preprocess_input(PIXELS.copy())
    np.testing.assert_array_equal(preprocessing("auto", model)(PIXELS.copy()), truth)


def test_a_model_that_is_called_like_an_application_is_none() -> None:
    for name in ("vgg16_dogs", "mobilenetv2_1.00_224", "efficientnetb0"):
        model = small(name=name)
        with pytest.warns(AssumptionWarning):
            assert find_preprocessing("auto", model).name == "unit"


def test_other_kernels_are_another_architecture() -> None:
    # VGG16 with half of the filters: its weights cannot be those of ImageNet.
    half = keras.Sequential([keras.Input(SIZE)], name="vgg16")
    for filters, repeats in ((32, 2), (64, 2), (128, 3), (256, 3), (256, 3)):
        for _ in range(repeats):
            half.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        half.add(layers.MaxPooling2D())
    with pytest.warns(AssumptionWarning):
        assert find_preprocessing("auto", half).name == "unit"


@pytest.mark.parametrize(
    "name",
    [
        "EfficientNetV2B0",
        pytest.param("EfficientNetV2S", marks=pytest.mark.slow),
        "ConvNeXtTiny",
        "MobileNetV3Small",
    ],
)
def test_an_application_without_its_own_scaling_gets_what_it_would_do(name: str) -> None:
    make = getattr(keras.applications, name)
    options = {"weights": None, "input_shape": SIZE, "include_top": False, "pooling": "avg"}
    whole, bare = make(**options), make(**options, include_preprocessing=False)
    held = (layers.Rescaling, layers.Normalization)
    bare.set_weights(
        [
            array
            for layer in whole.layers
            if not isinstance(layer, held)
            for array in layer.get_weights()
        ]
    )
    assert decided(whole) == "none"
    prepared = preprocessing("auto", bare)(PIXELS.copy())
    assert decided(bare) != "none"
    expected = whole(PIXELS)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(bare(prepared) / scale, expected / scale, atol=1e-4)


# --- models that do not tell


def test_what_is_assumed_is_said_once_for_a_model() -> None:
    model = small()
    with pytest.warns(
        AssumptionWarning,
        match=r"'own' does not tell .*: unit \(assumed: .* 255\); to say otherwise, give preproc",
    ):
        batch = load_images(PIXELS, model=model)
    np.testing.assert_array_equal(batch, PIXELS / np.float32(255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images(PIXELS, model=model)
        for preprocess in ("none", "unit", "VGG16", lambda pixels: pixels):
            load_images(PIXELS, model=small(), preprocess=preprocess)


@pytest.mark.parametrize(
    "make",
    [
        small,
        lambda: small(layers.BatchNormalization()),
        lambda: small(layers.Rescaling(1.0)),
        lambda: small(layers.Normalization(mean=0.0, variance=1.0)),
        lambda: functional(lambda x: x / 2),
        lambda: small(layers.RandomFlip(), layers.ZeroPadding2D()),
        lambda: small(layers.Lambda(lambda x: x[:, ::-1])),
        lambda: called(lambda x: x),
        lambda: called(layers.BatchNormalization()),
        lambda: called(tf.function(lambda x: x / 255)),  # a graph of its own is not looked into
        lambda: functional(lambda x: layers.Conv2D(3, 1)(x) / 255),
        lambda: keras.Sequential([layers.Conv2D(2, 3)]),
        lambda: Scaled(lambda x: x / 255),  # never called: nothing is known of it
    ],
)
def test_models_that_do_not_tell_get_0_to_1(make: Callable[[], Any]) -> None:
    with pytest.warns(AssumptionWarning):
        found = find_preprocessing("auto", make())
    assert found.is_assumed
    assert found.name == "unit"


def test_a_model_that_is_called_later_tells_then() -> None:
    model = Scaled(lambda x: x / 255)
    with pytest.warns(AssumptionWarning):
        assert find_preprocessing("auto", model).name == "unit"
    model(PIXELS)
    assert decided(model) == "none"


def test_without_a_model_pixels_become_0_to_1_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_preprocessing("auto").describe() == "unit (no model was given)"


def test_what_is_given_is_named() -> None:
    def halved(pixels: Array) -> Array:
        return pixels / 2

    assert find_preprocessing("none").describe() == "none (as given)"
    assert find_preprocessing("vgg16").describe() == "VGG16 (as given)"
    assert find_preprocessing(halved).describe() == "halved (the given function)"
    with pytest.raises(OptionError, match=r"not 'VGG17' \(did you mean .*VGG16"):
        find_preprocessing("VGG17")


def test_deciding_changes_nothing_of_the_model() -> None:
    model = called(layers.BatchNormalization())
    before = [array.copy() for array in model.get_weights()]
    expected = model(PIXELS)
    with pytest.warns(AssumptionWarning):
        find_preprocessing("auto", model)
    for array, same in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(array, same)
    np.testing.assert_array_equal(model(PIXELS), expected)
