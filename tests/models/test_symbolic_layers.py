"""Layers listed from symbolic tensors: the same list as that of a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest
from keras import layers

import actgrid
from actgrid.models.extraction import trace_layers
from actgrid.models.layers import LayerInfo
from actgrid.models.symbolic_layers import list_symbolic_layers
from actgrid.models.tracing import find_input_specs


def list_traced_layers(model: Any) -> list[LayerInfo]:
    """List the layers of a model in a trace, without running the model."""
    return list(trace_layers(actgrid.Extractor(model, "*"), find_input_specs(model)).values())


def make_application(name: str) -> Any:
    return getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), classes=3)


def make_transfer_model() -> Any:
    base = keras.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), include_top=False)
    augmentation = keras.Sequential([layers.RandomFlip(), layers.Rescaling(1 / 255)])
    head = [layers.GlobalAveragePooling2D(), layers.Dropout(0.5), layers.Dense(3)]
    return keras.Sequential([keras.Input((64, 64, 3)), augmentation, base, *head])


def make_graph_of_every_kind() -> Any:
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = keras.ops.relu(shared(shared(image)) * 2 + 1)
    first = layers.Permute((3, 1, 2))(x)
    first = layers.Conv2D(4, 1, data_format="channels_first")(first)
    second = layers.Embedding(10, 4)(keras.Input((5,), dtype="int32", name="tokens"))
    tokens = second._keras_history.operation._inbound_nodes[0].input_tensors[0]
    mixed = layers.Dense(2, dtype="mixed_bfloat16")(layers.Flatten()(x))
    return keras.Model([image, tokens], [first, mixed, second, shared(x)])


def make_model_called_twice() -> Any:
    inner_input = keras.Input((6,))
    inner = keras.Model(inner_input, layers.Dense(6)(inner_input), name="inner")
    outer_input = keras.Input((6,))
    return keras.Model(outer_input, [inner(outer_input), inner(inner(outer_input))])


KNOWN: dict[str, Callable[[], Any]] = {
    "DenseNet121": lambda: make_application("DenseNet121"),
    "EfficientNetV2B0": lambda: make_application("EfficientNetV2B0"),
    "transfer": make_transfer_model,
    "every kind": make_graph_of_every_kind,
    "called twice": make_model_called_twice,
    "demo": lambda: actgrid.load_model("demo"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_list_equals_that_of_a_trace(name: str) -> None:
    model = KNOWN[name]()
    infos = list_symbolic_layers(model)
    assert infos is not None
    assert infos == list_traced_layers(model)
    assert actgrid.list_layers(model) == infos


class Doubled(layers.Layer):  # type: ignore[misc]
    def call(self, x: Any) -> Any:
        return x * 2


class WithOtherCode(keras.Model):  # type: ignore[misc]
    def call(self, x: Any, training: bool = False) -> Any:
        return super().call(x, training=training) * 2


def make_chain(shape: tuple[int | None, ...], *chain: Any, kind: Any = keras.Model) -> Any:
    inputs = x = keras.Input(shape)
    for layer in chain:
        x = layer(x)
    return kind(inputs, x)


UNKNOWN: dict[str, Callable[[], Any]] = {
    "own layer": lambda: make_chain((4,), Doubled()),
    "own model": lambda: make_chain((4,), layers.Dense(2), kind=WithOtherCode),
    "lambda": lambda: make_chain((4,), layers.Lambda(lambda x: x * 2)),
    "composite": lambda: make_chain((4, 3), layers.Bidirectional(layers.LSTM(2))),
    "several outputs": lambda: make_chain(
        (4, 3), layers.LSTM(2, return_state=True), lambda x: x[0]
    ),
    "free size": lambda: make_chain((None, None, 3), layers.Conv2D(2, 3)),
    "not functional": lambda: keras.Sequential([layers.Dense(2)]),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_layers_that_need_a_trace_are_not_listed(name: str) -> None:
    assert list_symbolic_layers(UNKNOWN[name]()) is None


def test_nested_model_on_inputs_of_another_size_needs_a_trace() -> None:
    inner = make_chain((None, None, 3), layers.Conv2D(2, 3, name="conv"))
    model = make_chain((8, 8, 3), inner)
    assert list_symbolic_layers(model) is None
    assert [info.shape for info in actgrid.list_layers(model)] == [(None, 6, 6, 2)] * 2
