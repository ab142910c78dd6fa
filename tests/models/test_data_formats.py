"""Tests of `actgrid.models.data_formats`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from actgrid import list_layers, load_images
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.graph import build_layer_graph


def make_model(shape: tuple[int | None, ...], *steps: Any) -> Any:
    return keras.Sequential([keras.Input(shape), *steps])


def make_convolution(data_format: str | None = None) -> Any:
    return layers.Conv2D(2, 1, data_format=data_format)


@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (8, 8, 3), (3, 3, 3), (3, 9, 1), (1, 9, 3), (None, None, None), (7, 8, 5)]
)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_first_layer_with_data_format_decides(
    shape: tuple[int | None, ...], data_format: str
) -> None:
    if shape == (None, None, None):
        shape = (3, None, None) if data_format == "channels_first" else (None, None, 3)
    for leading_layers in ([], [layers.Rescaling(1.0), layers.ReLU(), layers.Dropout(0.1)]):
        model = make_model(shape, *leading_layers, make_convolution(data_format))
        assert find_input_data_format(model) == data_format


def test_keras_setting_is_the_fallback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make_model((3, 8, 8), layers.Rescaling(1.0))
    assert find_input_data_format(model) == "channels_last"
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert find_input_data_format(model) == "channels_first"


def make_permuted_model() -> Any:
    return make_model((3, 8, 9), layers.Permute((2, 3, 1)), make_convolution("channels_last"))


def make_transposed_model() -> Any:
    inputs = keras.Input((3, 8, 9))
    channels_last = keras.ops.transpose(inputs, (0, 2, 3, 1))
    return keras.Model(inputs, make_convolution("channels_last")(channels_last))


def make_nested_model() -> Any:
    return make_model((3, 8, 9), layers.Rescaling(1.0), make_permuted_model())


class Block(layers.Layer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.convolution = make_convolution("channels_first")

    def call(self, x: Any) -> Any:
        return self.convolution(x)


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.block = layers.Rescaling(1.0), Block()

    def call(self, x: Any) -> Any:
        return self.block(self.scale(x))


def make_subclassed_model() -> Any:
    model = Subclassed()
    model(keras.Input((3, 8, 9)))
    return model


@pytest.mark.parametrize(
    "make",
    [
        make_permuted_model,
        make_transposed_model,
        make_nested_model,
        make_subclassed_model,
        lambda: make_model((3, 8, 9), Block()),
    ],
)
def test_permutations_and_nested_layers_are_followed(make: Any) -> None:
    assert find_input_data_format(make()) == "channels_first"


def test_permutation_to_channels_first() -> None:
    model = make_model((8, 9, 3), layers.Permute((3, 1, 2)), make_convolution("channels_first"))
    assert find_input_data_format(model) == "channels_last"
    formats = [info.data_format for info in list_layers(model)]
    assert formats == ["channels_first", "channels_first"]


def test_inputs_have_separate_formats() -> None:
    first_input, last_input = (
        keras.Input((3, 8, 8), name="first"),
        keras.Input((8, 8, 3), name="last"),
    )
    first_features = layers.GlobalAveragePooling2D(data_format="channels_first")(
        make_convolution("channels_first")(first_input)
    )
    last_features = layers.GlobalAveragePooling2D()(make_convolution("channels_last")(last_input))
    model = keras.Model(
        {"first": first_input, "last": last_input}, layers.Add()([first_features, last_features])
    )
    assert [find_input_data_format(model, position) for position in (0, 1)] == [
        "channels_first",
        "channels_last",
    ]
    graph = build_layer_graph(model)
    assert {
        graph.infos[position].path: graph.infos[position].data_format for position in graph.inputs
    } == {
        "first": "channels_first",
        "last": "channels_last",
    }


def test_earlier_layers_have_the_input_format() -> None:
    model = make_model((3, 8, 8), layers.Rescaling(1.0), make_convolution("channels_first"))
    assert [(info.data_format, info.channels) for info in list_layers(model)] == [
        ("channels_first", 3),
        ("channels_first", 2),
    ]


@pytest.fixture
def photo() -> Any:
    return np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)


def test_load_images_uses_the_input_format(photo: Any) -> None:
    for model in (make_permuted_model(), make_transposed_model(), make_nested_model()):
        batch = load_images(photo, model=model, preprocess="none")
        np.testing.assert_array_equal(batch, photo.transpose(2, 0, 1)[None])
    # An axis of length 3 at the front is not taken for channels.
    rows = load_images(photo, model=make_model((3, 9, 3), make_convolution()), preprocess="none")
    assert rows.shape == (1, 3, 9, 3)


def test_permuted_model_computes_expected_values(photo: Any) -> None:
    model = make_permuted_model()
    kernel, bias = model.layers[-1].get_weights()
    batch = load_images(photo, model=model, preprocess="unit")
    expected = tf.nn.conv2d(photo[None] / np.float32(255), kernel, 1, "VALID") + bias
    np.testing.assert_allclose(model(batch), expected, rtol=1e-5, atol=1e-6)
