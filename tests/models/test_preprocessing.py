"""Tests of the choice of preprocessing by the layers of a model."""

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
from actgrid.models.preprocessing import find_preprocessing, get_preprocess_function

Array = npt.NDArray[Any]

PIXELS = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
SIZE = (32, 32, 3)


def make_small_model(*steps: Any, name: str = "own") -> Any:
    return keras.Sequential([keras.Input(SIZE), *steps, layers.Conv2D(2, 3)], name=name)


def find_name_without_warning(model: Any) -> str:
    """Return the name of the automatic preprocessing; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return find_preprocessing("auto", model).name


# --- models that scale their input themselves


class Scaled(keras.Model):  # type: ignore[misc]
    """A model that applies the function `scale` to its input."""

    def __init__(self, scale: Callable[[Any], Any]) -> None:
        super().__init__()
        self.scale, self.convolution = scale, layers.Conv2D(2, 3)

    def call(self, x: Any) -> Any:
        return self.convolution(self.scale(x))


def make_called_model(scale: Callable[[Any], Any]) -> Any:
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


def make_functional_model(function: Callable[[Any], Any]) -> Any:
    inputs = keras.Input(SIZE)
    return keras.Model(inputs, layers.Conv2D(2, 3)(function(inputs)))


SCALING_MODELS: dict[str, Callable[[], Any]] = {
    "rescaling": lambda: make_small_model(layers.Rescaling(1 / 255)),
    "normalization": lambda: make_small_model(
        layers.Normalization(mean=[120.0] * 3, variance=[3600.0] * 3)
    ),
    "after augmentation": lambda: make_small_model(
        layers.RandomFlip(), layers.Resizing(16, 16), layers.Rescaling(1 / 255)
    ),
    "nested": lambda: make_small_model(
        keras.Sequential([keras.Input(SIZE), layers.Rescaling(1 / 255)])
    ),
    "operators": lambda: make_functional_model(lambda x: x / 127.5 - 1),
    "operations": lambda: make_functional_model(
        lambda x: keras.ops.multiply(keras.ops.cast(x, "float32"), 1 / 255)
    ),
    "lambda": lambda: make_small_model(layers.Lambda(lambda x: x / 255.0)),
    "application's function": lambda: make_small_model(
        layers.Lambda(keras.applications.vgg16.preprocess_input)
    ),
    "own layer": lambda: make_small_model(Centred()),
    "layer inside an own layer": lambda: make_small_model(
        Stem(layers.Rescaling(1 / 255), layers.Conv2D(3, 1))
    ),
    "subclassed, arithmetic": lambda: make_called_model(lambda x: x / 255.0),
    "subclassed, layer": lambda: make_called_model(layers.Rescaling(1 / 255)),
    "demo": lambda: load_model("demo"),
}


@pytest.mark.parametrize("name", SCALING_MODELS)
def test_models_that_scale_pixels_get_pixels(name: str) -> None:
    model = SCALING_MODELS[name]()
    assert find_name_without_warning(model) == "none"
    np.testing.assert_array_equal(get_preprocess_function("auto", model)(PIXELS), PIXELS)


IMAGENET_MEAN, IMAGENET_VARIANCE = [0.485, 0.456, 0.406], [0.229**2, 0.224**2, 0.225**2]
UNIT_MODELS: dict[str, Callable[[], Any]] = {
    "ImageNet's mean, of 1": lambda: make_small_model(
        layers.Normalization(mean=IMAGENET_MEAN, variance=IMAGENET_VARIANCE)
    ),
    "to -1 to 1": lambda: make_small_model(layers.Rescaling(2.0, offset=-1)),
    "operators": lambda: make_functional_model(lambda x: x * 2 - 1),
    "back to pixels": lambda: make_small_model(layers.Rescaling(255.0)),
    "back to pixels, then scaled": lambda: make_small_model(
        layers.Rescaling(255.0), layers.Rescaling(1 / 127.5, offset=-1)
    ),
    "subclassed": lambda: make_called_model(lambda x: (x - 0.5) * 2),
    "lambda": lambda: make_small_model(layers.Lambda(lambda x: (x - 0.45) / 0.22)),
}


@pytest.mark.parametrize("name", UNIT_MODELS)
def test_models_that_scale_unit_range_get_unit_range(name: str) -> None:
    model = UNIT_MODELS[name]()
    assert find_name_without_warning(model) == "unit"
    np.testing.assert_array_equal(
        get_preprocess_function("auto", model)(PIXELS), PIXELS / np.float32(255)
    )


# --- applications, recognized by their structure


def test_application_is_recognized_by_its_layers() -> None:
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
        assert find_name_without_warning(model) == "MobileNetV2"
        np.testing.assert_array_equal(get_preprocess_function("auto", model)(PIXELS.copy()), truth)
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
def test_applications_get_preprocessing_of_their_module(name: str, module: str) -> None:
    make = getattr(keras.applications, name)
    model = make(weights=None, include_top=False, input_shape=SIZE, name="own")
    assert find_name_without_warning(model) == name
    truth = getattr(keras.applications, module).preprocess_input(PIXELS.copy())
    np.testing.assert_array_equal(get_preprocess_function("auto", model)(PIXELS.copy()), truth)


def test_name_of_an_application_is_ignored() -> None:
    for name in ("vgg16_dogs", "mobilenetv2_1.00_224", "efficientnetb0"):
        model = make_small_model(name=name)
        with pytest.warns(AssumptionWarning):
            assert find_preprocessing("auto", model).name == "unit"


def test_other_kernels_are_not_recognized() -> None:
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
def test_application_without_preprocessing_gets_equal_scaling(name: str) -> None:
    application = getattr(keras.applications, name)
    options = {"weights": None, "input_shape": SIZE, "include_top": False, "pooling": "avg"}
    complete_model, bare_model = (
        application(**options),
        application(**options, include_preprocessing=False),
    )
    scaling_layers = (layers.Rescaling, layers.Normalization)
    bare_model.set_weights(
        [
            array
            for layer in complete_model.layers
            if not isinstance(layer, scaling_layers)
            for array in layer.get_weights()
        ]
    )
    assert find_name_without_warning(complete_model) == "none"
    prepared = get_preprocess_function("auto", bare_model)(PIXELS.copy())
    assert find_name_without_warning(bare_model) != "none"
    expected = complete_model(PIXELS)
    scale = float(np.abs(expected).max())
    np.testing.assert_allclose(bare_model(prepared) / scale, expected / scale, atol=1e-4)


# --- models that do not show what they need


def test_assumption_warns_once_per_model() -> None:
    model = make_small_model()
    with pytest.warns(
        AssumptionWarning,
        match=r"model 'own': unit \(assumed: .* 255\); to choose another one, set preproc",
    ):
        batch = load_images(PIXELS, model=model)
    np.testing.assert_array_equal(batch, PIXELS / np.float32(255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images(PIXELS, model=model)
        for preprocess in ("none", "unit", "VGG16", lambda pixels: pixels):
            load_images(PIXELS, model=make_small_model(), preprocess=preprocess)


@pytest.mark.parametrize(
    "make",
    [
        make_small_model,
        lambda: make_small_model(layers.BatchNormalization()),
        lambda: make_small_model(layers.Rescaling(1.0)),
        lambda: make_small_model(layers.Normalization(mean=0.0, variance=1.0)),
        lambda: make_functional_model(lambda x: x / 2),
        lambda: make_small_model(layers.RandomFlip(), layers.ZeroPadding2D()),
        lambda: make_small_model(layers.Lambda(lambda x: x[:, ::-1])),
        lambda: make_called_model(lambda x: x),
        lambda: make_called_model(layers.BatchNormalization()),
        lambda: make_called_model(
            tf.function(lambda x: x / 255)
        ),  # a nested graph is not inspected
        lambda: make_functional_model(lambda x: layers.Conv2D(3, 1)(x) / 255),
        lambda: keras.Sequential([layers.Conv2D(2, 3)]),
        lambda: Scaled(lambda x: x / 255),  # never called: its input is unknown
    ],
)
def test_unknown_models_get_unit_range(make: Callable[[], Any]) -> None:
    with pytest.warns(AssumptionWarning):
        preprocessing = find_preprocessing("auto", make())
    assert preprocessing.is_assumed
    assert preprocessing.name == "unit"


def test_choice_is_repeated_after_first_call() -> None:
    model = Scaled(lambda x: x / 255)
    with pytest.warns(AssumptionWarning):
        assert find_preprocessing("auto", model).name == "unit"
    model(PIXELS)
    assert find_name_without_warning(model) == "none"


def test_no_model_gets_unit_range_without_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_preprocessing("auto").describe() == "unit (no model was given)"


def test_given_preprocessing_is_described() -> None:
    def halve(pixels: Array) -> Array:
        return pixels / 2

    assert find_preprocessing("none").describe() == "none (as given)"
    assert find_preprocessing("vgg16").describe() == "VGG16 (as given)"
    assert find_preprocessing(halve).describe() == "halve (the given function)"
    with pytest.raises(OptionError, match=r"not 'VGG17' \(did you mean .*VGG16"):
        find_preprocessing("VGG17")


def test_choice_does_not_change_the_model() -> None:
    model = make_called_model(layers.BatchNormalization())
    weights_before = [array.copy() for array in model.get_weights()]
    expected = model(PIXELS)
    with pytest.warns(AssumptionWarning):
        find_preprocessing("auto", model)
    for array, expected_array in zip(model.get_weights(), weights_before, strict=True):
        np.testing.assert_array_equal(array, expected_array)
    np.testing.assert_array_equal(model(PIXELS), expected)
