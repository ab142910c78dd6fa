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


def graph_of(edges: list[tuple[int, int]], paths: list[str], parameters: int = 0) -> LayerGraph:
    infos = tuple(
        LayerInfo(path, "Layer", (None, 4), "float32", "channels_last", parameters, None)
        for path in paths
    )
    return LayerGraph(infos, tuple(edges), (0,), (len(paths) - 1,))


def members(graph: LayerGraph, folding: Folding) -> dict[tuple[str, str], list[str]]:
    """The paths in each group, those in its inner groups too."""
    found: dict[tuple[str, str], list[str]] = {}
    for info, innermost in zip(graph.infos, folding.group_of, strict=True):
        group = innermost
        while group is not None:
            one = folding.groups[group]
            found.setdefault((one.kind, one.name), []).append(info.path)
            group = one.parent
    return found


def test_a_layer_takes_its_followers() -> None:
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
    assert members(graph, folding) == {
        ("unit", "conv"): ["conv", "bn", "relu"],
        ("unit", "dense"): ["dense", "softmax"],
    }
    assert folding.groups[0].title == "Conv2D + BatchNormalization + ReLU"


def test_branches_fold_with_their_join() -> None:
    #   0 - 1 - 2 -+ 4 - 5 - 6 - 7 - 8
    #        \- 3 -+
    edges = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (5, 6), (6, 7), (7, 8)]
    graph = graph_of(edges, list("abcdefghi"))
    folding = fold(graph)
    assert members(graph, folding) == {("branches", "e"): ["c", "d", "e"]}
    assert folding.groups[0].title == "3 layers, 2 branches"


def test_branches_in_branches() -> None:
    # 1 forks to 2 and 5, joined by 6; within the first, 2 forks to 3 and 4, joined by 6 as well.
    edges = [(0, 1), (1, 2), (1, 5), (2, 3), (2, 4), (3, 6), (4, 6), (5, 6)]
    edges += [(node, node + 1) for node in range(6, 13)]
    graph = graph_of(edges, [str(node) for node in range(14)])
    folding = fold(graph)
    # A join is taken by the outermost.
    assert members(graph, folding) == {
        ("branches", "6"): ["2", "3", "4", "5", "6"],
        ("branches", "3"): ["3", "4"],
    }
    assert folding.groups[1].parent == 0


def test_what_is_fed_from_elsewhere_is_not_folded() -> None:
    # 0 feeds into the branches between 1 and 4, past their fork.
    edges = [(0, 1), (1, 2), (1, 3), (0, 3), (2, 4), (3, 4)]
    edges += [(node, node + 1) for node in range(4, 12)]
    graph = graph_of(edges, [str(node) for node in range(13)])
    found = members(graph, fold(graph))
    assert found == {("branches", "4"): ["1", "2", "3", "4"]}


def test_calls_of_a_nested_model_fold_apart() -> None:
    inner = keras.Sequential(
        [layers.Input((8, 8, 4)), layers.Conv2D(4, 1, name="a"), layers.Conv2D(4, 1, name="b")],
        name="inner",
    )
    image = layers.Input((8, 8, 4), name="image")
    model = keras.Model(image, inner(layers.ReLU(name="between")(inner(image))))
    graph = build_layer_graph(model)
    assert members(graph, fold(graph)) == {
        ("model", "inner"): ["inner/a", "inner/b"],
        ("model", "inner:1"): ["inner/a:1", "inner/b:1"],
    }


def test_a_layer_that_is_called_twice_in_a_nested_model() -> None:
    image = layers.Input((8, 8, 4))
    twice = layers.Conv2D(4, 1, name="twice")
    inner = keras.Model(image, twice(layers.ReLU(name="relu")(twice(image))), name="inner")
    outer = layers.Input((8, 8, 4), name="image")
    graph = build_layer_graph(keras.Model(outer, inner(outer)))
    assert members(graph, fold(graph)) == {
        ("model", "inner"): ["inner/twice", "inner/relu", "inner/twice:1"],
        ("unit", "inner/twice"): ["inner/twice", "inner/relu"],
    }


@pytest.mark.parametrize(("model", "most"), [("demo", 36), ("InceptionV3", 25), ("ResNet50", 40)])
def test_known_networks_fold_to_a_few_cards(model: str, most: int) -> None:
    network: Any = (
        demo.model() if model == "demo" else getattr(keras.applications, model)(weights=None)
    )
    graph = build_layer_graph(network)
    folding = fold(graph)
    assert len(contracted(graph, folding, set())) <= most


def contracted(graph: LayerGraph, folding: Folding, opened: set[int]) -> dict[int, set[int]]:
    """The graph with all but the opened groups folded: by each node those that feed it.

    A group stands for its nodes as its own number less all groups, which is below zero.
    """

    def shown(node: int) -> int:
        around = []
        group = folding.group_of[node]
        while group is not None:
            around.append(group)
            group = folding.groups[group].parent
        closed = [group for group in reversed(around) if group not in opened]
        return closed[0] - len(folding.groups) if closed else node

    feeds: dict[int, set[int]] = {shown(node): set() for node in range(len(graph.infos))}
    for start, end in graph.edges:
        if shown(start) != shown(end):
            feeds[shown(end)].add(shown(start))
    return feeds


@st.composite
def graphs(draw: st.DrawFn) -> LayerGraph:
    """Graphs in which each node but the first is fed by some before it."""
    count = draw(st.integers(2, 24))
    edges = set()
    for node in range(1, count):
        # Mostly by those just before, as in networks.
        steps = draw(st.lists(st.integers(1, min(node, 5)), min_size=1, max_size=3))
        edges |= {(node - step, node) for step in steps}
    return graph_of(sorted(edges), [str(node) for node in range(count)])


@given(graphs(), st.sets(st.integers(0, 10)))
def test_however_it_is_opened_the_graph_has_no_cycle(graph: LayerGraph, opened: set[int]) -> None:
    folding = fold(graph)
    for index, group in enumerate(folding.groups):
        assert group.parent is None or group.parent < index
    assert len({(group.kind, group.name) for group in folding.groups}) == len(folding.groups)
    TopologicalSorter(contracted(graph, folding, opened)).prepare()
