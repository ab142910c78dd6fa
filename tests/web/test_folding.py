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
from actgrid.web.folding import Folding, fold


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
