"""Tests of the groups of layers that the page folds into cards."""

from __future__ import annotations

from graphlib import TopologicalSorter
from typing import Any

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from actgrid import demo
from actgrid.models import LayerInfo
from actgrid.models.graph import LayerGraph, build_layer_graph
from actgrid.web.attention_nodes import find_attention_nodes
from actgrid.web.folding import Folding, assign_attention, fold


def make_graph(edges: list[tuple[int, int]], paths: list[str], parameters: int = 0) -> LayerGraph:
    infos = tuple(
        LayerInfo(path, "Layer", (None, 4), "float32", "channels_last", parameters, None)
        for path in paths
    )
    return LayerGraph(infos, tuple(edges), (0,), (len(paths) - 1,))


def list_members(graph: LayerGraph, folding: Folding) -> dict[tuple[str, str], list[str]]:
    """Return the paths in each group, including paths in its inner groups."""
    members: dict[tuple[str, str], list[str]] = {}
    for info, innermost in zip(graph.infos, folding.innermost_groups, strict=True):
        index = innermost
        while index is not None:
            group = folding.groups[index]
            members.setdefault((group.kind, group.name), []).append(info.path)
            index = group.parent
    return members


def test_layer_is_grouped_with_normalisation_and_activation() -> None:
    model = keras.Sequential(
        [
            layers.Input((8, 8, 3), name="image"),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.MaxPooling2D(name="pool"),
            layers.Flatten(name="flat"),
            layers.Dense(3, name="dense"),
            layers.Softmax(name="softmax"),
        ]
    )
    graph = build_layer_graph(model)
    folding = fold(graph)
    assert list_members(graph, folding) == {
        ("unit", "conv"): ["conv", "bn", "relu"],
        ("unit", "dense"): ["dense", "softmax"],
    }
    assert folding.groups[0].title == "Conv2D + BatchNormalization + ReLU"


def test_branches_are_grouped_with_their_join() -> None:
    #   0 - 1 - 2 -+ 4 - 5 - 6 - 7 - 8
    #        \- 3 -+
    edges = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]
    graph = make_graph(edges, list("abcdefghi"))
    folding = fold(graph)
    assert list_members(graph, folding) == {("branches", "e"): ["c", "d", "e"]}
    assert folding.groups[0].title == "3 layers, 2 branches"


def test_nested_branches() -> None:
    # 1 forks to 2 and 5, which join in 6. The inner fork from 2 to 3 and 4 joins in 6 too.
    edges = [(0, 1), (1, 2), (1, 5), (2, 3), (2, 4), (3, 6), (4, 6), (5, 6)]
    edges += [(node, node + 1) for node in range(6, 13)]
    graph = make_graph(edges, [str(node) for node in range(14)])
    folding = fold(graph)
    # The join belongs to the outer group.
    assert list_members(graph, folding) == {
        ("branches", "6"): ["2", "3", "4", "5", "6"],
        ("branches", "3"): ["3", "4"],
    }
    assert folding.groups[1].parent == 0


def test_branches_with_other_inputs_are_not_grouped() -> None:
    # 0 is an input of the branches between 1 and 4.
    edges = [(0, 1), (1, 2), (1, 3), (0, 3), (2, 4), (3, 4)]
    edges += [(node, node + 1) for node in range(4, 12)]
    graph = make_graph(edges, [str(node) for node in range(13)])
    assert list_members(graph, fold(graph)) == {("branches", "4"): ["1", "2", "3", "4"]}


def test_calls_of_a_nested_model_are_separate_groups() -> None:
    inner = keras.Sequential(
        [layers.Input((8, 8, 4)), layers.Conv2D(4, 1, name="a"), layers.Conv2D(4, 1, name="b")],
        name="inner",
    )
    image = layers.Input((8, 8, 4), name="image")
    model = keras.Model(image, inner(layers.ReLU(name="between")(inner(image))))
    graph = build_layer_graph(model)
    assert list_members(graph, fold(graph)) == {
        ("model", "inner"): ["inner/a", "inner/b"],
        ("model", "inner:1"): ["inner/a:1", "inner/b:1"],
    }


def test_nested_model_with_a_layer_that_is_called_twice() -> None:
    image = layers.Input((8, 8, 4))
    twice = layers.Conv2D(4, 1, name="twice")
    inner = keras.Model(image, twice(layers.ReLU(name="relu")(twice(image))), name="inner")
    outer = layers.Input((8, 8, 4), name="image")
    graph = build_layer_graph(keras.Model(outer, inner(outer)))
    assert list_members(graph, fold(graph)) == {
        ("model", "inner"): ["inner/twice", "inner/relu", "inner/twice:1"],
        ("unit", "inner/twice"): ["inner/twice", "inner/relu"],
    }


def add_block(x: Any, name: str, is_pre_norm: bool) -> Any:
    """Add a transformer block of separate layers, with dropout in its feed-forward network."""
    norm1 = layers.LayerNormalization(name=f"{name}_norm1")
    norm2 = layers.LayerNormalization(name=f"{name}_norm2")
    y = norm1(x) if is_pre_norm else x
    y = layers.MultiHeadAttention(2, 4, name=f"{name}_attention")(y, y)
    x = layers.Add(name=f"{name}_add1")([x, y])
    x = x if is_pre_norm else norm1(x)
    y = norm2(x) if is_pre_norm else x
    y = layers.Dense(16, activation="gelu", name=f"{name}_dense1")(y)
    y = layers.Dense(8, name=f"{name}_dense2")(y)
    x = layers.Add(name=f"{name}_add2")([x, y])
    return x if is_pre_norm else norm2(x)


@pytest.mark.parametrize("is_pre_norm", [True, False])
def test_functional_transformer_blocks(is_pre_norm: bool) -> None:
    x = tokens = layers.Input((5, 8), name="tokens")
    for name in ("a", "b"):
        x = add_block(x, name, is_pre_norm)
    x = layers.LayerNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    graph = build_layer_graph(keras.Model(tokens, layers.Dense(2, name="head")(x)))
    folding = fold(graph)
    parts = (
        ["norm1", "attention", "add1", "norm2", "dense1", "dense2", "add2"]
        if is_pre_norm
        else ["attention", "add1", "norm1", "dense1", "dense2", "add2", "norm2"]
    )
    assert list_members(graph, folding) == {
        ("block", f"{name}_attention"): [f"{name}_{part}" for part in parts] for name in "ab"
    }
    assert {group.title for group in folding.groups} == {"transformer block, 2 heads"}
    # The output of a block has the attention inside of the block.
    paths = [info.path for info in graph.infos]
    assigned = assign_attention(find_attention_nodes(graph), folding, range(len(paths)))
    assert {paths[node]: paths[source] for node, source in assigned.items()} == {
        f"{name}_{part}": f"{name}_attention" for name in "ab" for part in ("attention", parts[-1])
    }


class Block(layers.Layer):  # type: ignore[misc]
    """A transformer block as one layer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.norm1 = layers.LayerNormalization(name="norm1")
        self.attention = layers.MultiHeadAttention(3, 4, name="attention")
        self.norm2 = layers.LayerNormalization(name="norm2")
        self.mlp = keras.Sequential(
            [layers.Dense(16, name="dense1"), layers.Dense(8, name="dense2")], name="mlp"
        )

    def call(self, x: Any) -> Any:
        y = self.norm1(x)
        x = x + self.attention(y, y)
        return x + self.mlp(self.norm2(x))


def test_subclassed_transformer_blocks() -> None:
    tokens = layers.Input((5, 8), name="tokens")
    model = keras.Model(tokens, Block(name="b")(Block(name="a")(tokens)))
    graph = build_layer_graph(model)
    folding = fold(graph)
    inner = ["norm1", "attention", "norm2", "mlp/dense1", "mlp/dense2"]
    assert list_members(graph, folding) == {
        group: members
        for name in "ab"
        for group, members in {
            ("model", name): [*(f"{name}/{part}" for part in inner), name],
            ("model", f"{name}/mlp"): [f"{name}/mlp/dense1", f"{name}/mlp/dense2"],
        }.items()
    }
    assert [group.title for group in folding.groups] == [
        "transformer block, 3 heads",
        "transformer block, 3 heads",
        "2 layers",
        "2 layers",
    ]


def test_model_around_a_block_is_no_block() -> None:
    tokens = layers.Input((5, 6))
    x = add_block(layers.Dense(8, name="embedding")(tokens), "a", is_pre_norm=True)
    inner = keras.Model(tokens, layers.Dense(2, name="projection")(x), name="encoder")
    outer = layers.Input((5, 6), name="tokens")
    folding = fold(build_layer_graph(keras.Model(outer, inner(outer))))
    assert [(group.kind, group.name, group.title) for group in folding.groups] == [
        ("model", "encoder", "9 layers"),
        ("block", "encoder/a_attention", "transformer block, 2 heads"),
    ]


def test_attention_layer_of_several_layers_is_no_block() -> None:
    class Attention(layers.Layer):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.norm = layers.LayerNormalization(name="norm")
            self.qkv = [layers.Dense(8, name=name) for name in ("query", "key", "value")]

        def call(self, x: Any) -> Any:
            query, key, value = (layer(self.norm(x)) for layer in self.qkv)
            scores = keras.ops.softmax(query @ keras.ops.transpose(key, (0, 2, 1)))
            return scores @ value

    tokens = layers.Input((5, 8), name="tokens")
    graph = build_layer_graph(keras.Model(tokens, Attention(name="attention")(tokens)))
    (group,) = fold(graph).groups
    assert (group.kind, group.name, group.title) == ("model", "attention", "7 layers")


@pytest.mark.parametrize(
    ("model", "max_cards"), [("demo", 36), ("InceptionV3", 25), ("ResNet50", 40)]
)
def test_applications_fold_into_few_cards(model: str, max_cards: int) -> None:
    loaded: Any = (
        demo.model() if model == "demo" else getattr(keras.applications, model)(weights=None)
    )
    graph = build_layer_graph(loaded)
    folding = fold(graph)
    assert len(contract_graph(graph, folding, set())) <= max_cards


def contract_graph(graph: LayerGraph, folding: Folding, opened: set[int]) -> dict[int, set[int]]:
    """Return the predecessors of each node after folding all unopened groups.

    A folded group becomes a node with a negative number: its index minus the number of groups.
    """

    def find_card(node: int) -> int:
        groups = []
        group = folding.innermost_groups[node]
        while group is not None:
            groups.append(group)
            group = folding.groups[group].parent
        closed = [group for group in reversed(groups) if group not in opened]
        return closed[0] - len(folding.groups) if closed else node

    predecessors: dict[int, set[int]] = {find_card(node): set() for node in range(len(graph.infos))}
    for start, end in graph.edges:
        if find_card(start) != find_card(end):
            predecessors[find_card(end)].add(find_card(start))
    return predecessors


@st.composite
def generate_graphs(draw: st.DrawFn) -> LayerGraph:
    """Return a graph in which all nodes except the first have predecessors."""
    count = draw(st.integers(2, 24))
    edges = set()
    for node in range(1, count):
        # Predecessors are close, as in most networks.
        steps = draw(st.lists(st.integers(1, min(node, 5)), min_size=1, max_size=3))
        edges |= {(node - step, node) for step in steps}
    return make_graph(sorted(edges), [str(node) for node in range(count)])


@given(generate_graphs(), st.sets(st.integers(0, 10)))
def test_folded_graph_has_no_cycles(graph: LayerGraph, opened: set[int]) -> None:
    folding = fold(graph)
    for index, group in enumerate(folding.groups):
        assert group.parent is None or group.parent < index
    assert len({(group.kind, group.name) for group in folding.groups}) == len(folding.groups)
    TopologicalSorter(contract_graph(graph, folding, opened)).prepare()
