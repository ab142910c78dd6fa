"""Tests of `actgrid.models.graph`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from actgrid.errors import ModelError
from actgrid.models.graph import INPUT, LayerGraph, build_layer_graph


def list_edges(graph: LayerGraph) -> set[tuple[str, str]]:
    return {(graph.infos[start].path, graph.infos[end].path) for start, end in graph.edges}


def list_outputs(graph: LayerGraph) -> list[str]:
    return [graph.infos[index].path for index in graph.outputs]


def list_keras_edges(model: Any) -> set[tuple[str, str]]:
    """Return the edges that Keras stores for a functional model."""
    return {
        (tensor._keras_history.operation.name, layer.name)
        for layer in model.layers
        for node in layer._inbound_nodes
        for tensor in node.input_tensors
    }


def make_residual_model() -> Any:
    image = layers.Input((8, 8, 3), name="image")
    stem = layers.Conv2D(4, 3, padding="same", name="stem")(image)
    x = layers.BatchNormalization(name="bn")(stem)
    x = layers.Dropout(0.5, name="dropout")(x)  # returns its input during inference
    x = layers.Add(name="add")([stem, x])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(2, name="head")(x), name="residual")


def test_edges_equal_keras_graph() -> None:
    model = make_residual_model()
    graph = build_layer_graph(model)
    assert list_edges(graph) == list_keras_edges(model)
    assert [info.path for info in graph.infos] == [layer.name for layer in model.layers]
    assert (graph.inputs, list_outputs(graph)) == ((0,), ["head"])
    assert graph.infos[0].type == INPUT
    assert graph.infos[0].shape == (None, 8, 8, 3)


def test_edges_equal_keras_graph_of_inception() -> None:
    model = keras.applications.InceptionV3(weights=None)
    graph = build_layer_graph(model)
    assert list_edges(graph) == list_keras_edges(model)
    assert all(start < end for start, end in graph.edges)


def test_layers_of_nested_models_are_nodes() -> None:
    inner = keras.Sequential(
        [layers.Input((8, 8, 4)), layers.Conv2D(4, 1, name="a"), layers.ReLU(name="b")],
        name="inner",
    )
    image = layers.Input((8, 8, 4), name="image")
    x = inner(layers.ReLU(name="first")(image))
    model = keras.Model(image, layers.Add(name="add")([x, inner(x)]))
    assert list_edges(build_layer_graph(model)) == {
        ("image", "first"),
        ("first", "inner/a"),
        ("inner/a", "inner/b"),
        ("inner/b", "inner/a:1"),
        ("inner/a:1", "inner/b:1"),
        ("inner/b", "add"),
        ("inner/b:1", "add"),
    }


@keras.saving.register_keras_serializable("graph")
class Block(layers.Layer):  # type: ignore[misc]
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.conv = layers.Conv2D(3, 3, padding="same", name="conv")
        self.hidden = layers.MultiHeadAttention(1, 2, name="attention")

    def call(self, x: Any) -> Any:
        return x + self.hidden(self.conv(x), x)


class Net(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.block = Block(name="block")
        self.head = layers.Dense(2, name="head")

    def call(self, x: Any) -> Any:
        hidden = self.block(x)
        return {"scores": self.head(keras.ops.mean(hidden, (1, 2)) * 2), "hidden": hidden}


def test_operations_between_layers_belong_to_edges() -> None:
    graph = build_layer_graph(Net(), np.zeros((1, 4, 4, 3), np.float32))
    image = graph.infos[0].path
    assert list_edges(graph) == {
        (image, "block/conv"),
        (image, "block/attention"),
        ("block/conv", "block/attention"),
        (image, "block"),  # the addition in the layer, after the layers inside it
        ("block/attention", "block"),
        ("block", "head"),
    }
    assert set(list_outputs(graph)) == {"head", "block"}


def test_layer_with_several_inputs_and_outputs() -> None:
    series = layers.Input((5, 3), name="series")
    extra = layers.Input((4,), name="extra")
    _, state, _ = layers.LSTM(4, return_state=True, name="lstm")(series)
    model = keras.Model({"series": series, "extra": extra}, layers.Add(name="add")([state, extra]))
    graph = build_layer_graph(model)
    assert {("series", "lstm"), ("series", "lstm[1]"), ("extra", "add")} <= list_edges(graph)
    assert {start for start, end in list_edges(graph) if end == "add"} - {"extra"} <= {
        "lstm",
        "lstm[1]",
    }
    assert len(graph.inputs) == 2


def test_spec_fixes_open_shape() -> None:
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 3, name="conv")])
    graph = build_layer_graph(model, tf.TensorSpec((None, 9, 7, 3)))
    assert [info.shape for info in graph.infos] == [(None, 9, 7, 3), (None, 7, 5, 2)]


def test_unknown_input_raises() -> None:
    with pytest.raises(ModelError, match="is not known"):
        build_layer_graph(Net())


def test_layer_is_called_with_a_constant() -> None:
    class Positions(layers.Layer):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.embedding = layers.Embedding(4, 3, name="embedding")
            self.indices = keras.ops.arange(4)[None]

        def call(self, x: Any) -> Any:
            return x + self.embedding(self.indices)

    tokens = layers.Input((4, 3), name="tokens")
    graph = build_layer_graph(keras.Model(tokens, Positions(name="positions")(tokens)))
    assert [info.path for info in graph.infos] == ["tokens", "positions/embedding", "positions"]
    assert graph.edges == ((0, 2), (1, 2))
