"""Which axis of a model's input holds the channels."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from actgrid import list_layers, load_images
from actgrid.models.data_formats import input_data_format
from actgrid.models.graph import layer_graph


def model_of(shape: tuple[int | None, ...], *steps: Any) -> Any:
    return keras.Sequential([keras.Input(shape), *steps])


def convolution(data_format: str | None = None) -> Any:
    return layers.Conv2D(2, 1, data_format=data_format)


@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (8, 8, 3), (3, 3, 3), (3, 9, 1), (1, 9, 3), (None, None, None), (7, 8, 5)]
)
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_the_first_layer_with_a_data_format_decides_and_never_a_size(
    shape: tuple[int | None, ...], data_format: str
) -> None:
    if shape == (None, None, None):
        shape = (3, None, None) if data_format == "channels_first" else (None, None, 3)
    for before in ([], [layers.Rescaling(1.0), layers.ReLU(), layers.Dropout(0.1)]):
        model = model_of(shape, *before, convolution(data_format))
        assert input_data_format(model) == data_format


def test_without_such_a_layer_the_setting_of_keras_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = model_of((3, 8, 8), layers.Rescaling(1.0))
    assert input_data_format(model) == "channels_last"
    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    assert input_data_format(model) == "channels_first"


def permuted() -> Any:
    return model_of((3, 8, 9), layers.Permute((2, 3, 1)), convolution("channels_last"))


def transposed() -> Any:
    inputs = keras.Input((3, 8, 9))
    moved = keras.ops.transpose(inputs, (0, 2, 3, 1))
    return keras.Model(inputs, convolution("channels_last")(moved))


def nested() -> Any:
    return model_of((3, 8, 9), layers.Rescaling(1.0), permuted())


class Block(layers.Layer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.convolution = convolution("channels_first")

    def call(self, x: Any) -> Any:
        return self.convolution(x)


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.block = layers.Rescaling(1.0), Block()

    def call(self, x: Any) -> Any:
        return self.block(self.scale(x))


def subclassed() -> Any:
    model = Subclassed()
    model(keras.Input((3, 8, 9)))
    return model


@pytest.mark.parametrize(
    "make",
    [permuted, transposed, nested, subclassed, lambda: model_of((3, 8, 9), Block())],
)
def test_axes_that_are_moved_and_layers_inside_count(make: Any) -> None:
    assert input_data_format(make()) == "channels_first"


def test_axes_that_are_moved_to_the_front_were_last() -> None:
    model = model_of((8, 9, 3), layers.Permute((3, 1, 2)), convolution("channels_first"))
    assert input_data_format(model) == "channels_last"
    formats = [info.data_format for info in list_layers(model)]
    assert formats == ["channels_first", "channels_first"]


def test_each_input_has_its_own_order() -> None:
    first, last = keras.Input((3, 8, 8), name="first"), keras.Input((8, 8, 3), name="last")
    seen = layers.GlobalAveragePooling2D(data_format="channels_first")(
        convolution("channels_first")(first)
    )
    other = layers.GlobalAveragePooling2D()(convolution("channels_last")(last))
    model = keras.Model({"first": first, "last": last}, layers.Add()([seen, other]))
    assert [input_data_format(model, place) for place in (0, 1)] == [
        "channels_first",
        "channels_last",
    ]
    graph = layer_graph(model)
    assert {graph.infos[place].path: graph.infos[place].data_format for place in graph.inputs} == {
        "first": "channels_first",
        "last": "channels_last",
    }


def test_layers_before_the_first_with_a_data_format_have_that_of_the_input() -> None:
    model = model_of((3, 8, 8), layers.Rescaling(1.0), convolution("channels_first"))
    assert [(info.data_format, info.channels) for info in list_layers(model)] == [
        ("channels_first", 3),
        ("channels_first", 2),
    ]


@pytest.fixture
def photo() -> Any:
    return np.random.default_rng(0).integers(0, 256, (8, 9, 3)).astype(np.uint8)


def test_images_are_loaded_in_the_order_that_the_layers_take(photo: Any) -> None:
    for model in (permuted(), transposed(), nested()):
        batch = load_images(photo, model=model, preprocess="none")
        np.testing.assert_array_equal(batch, photo.transpose(2, 0, 1)[None])
    # Three rows of an RGB image are no channels.
    rows = load_images(photo, model=model_of((3, 9, 3), convolution()), preprocess="none")
    assert rows.shape == (1, 3, 9, 3)


def test_the_values_of_a_permuted_model_are_those_of_the_plain_one(photo: Any) -> None:
    model = permuted()
    kernel, bias = model.layers[-1].get_weights()
    batch = load_images(photo, model=model, preprocess="unit")
    expected = tf.nn.conv2d(photo[None] / np.float32(255), kernel, 1, "VALID") + bias
    np.testing.assert_allclose(model(batch), expected, rtol=1e-5, atol=1e-6)
