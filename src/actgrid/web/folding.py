"""What of a model's graph is folded into one card until someone opens it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from actgrid.models import LayerInfo
from actgrid.models.graph import LayerGraph

__all__ = ["Folding", "Group", "fold"]

# Layers that belong to the one before them.
_FOLLOWERS = re.compile(r".*Normalization|Activation|.*E?LU|Softmax|.*Dropout.*|Gaussian.*")
_CALL = re.compile(r"(?P<path>.*?)(?P<call>:\d+)?(\[.*\])?")


@dataclass(frozen=True)
class Group:
    """Nodes that are folded into one.

    Attributes
    ----------
    name
        Path of the layer that it is named after: no two groups of a kind share theirs.
    kind
        ``"model"``: a nested model or composite layer; ``"branches"``: what lies between a fork
        and its join, with the join; ``"unit"``: a layer with the normalisation, activation and
        dropout after it.
    title
        What is in it.
    parent
        Position of the group that it is in; None if it is in none.
    """

    name: str
    kind: str
    title: str
    parent: int | None


@dataclass(frozen=True)
class Folding:
    """The groups of a graph, outer before inner, and the innermost one of each node or None."""

    groups: tuple[Group, ...]
    group_of: tuple[int | None, ...]


@dataclass(frozen=True)
class _Set:
    """Nodes that could be a group."""

    name: str
    kind: str
    title: str
    nodes: frozenset[int]

    def nests(self, other: _Set) -> bool:
        """Tell whether one of the two is inside the other, and smaller, or they share nothing."""
        return (
            self.nodes < other.nodes
            or other.nodes < self.nodes
            or self.nodes.isdisjoint(other.nodes)
        )


def fold(graph: LayerGraph) -> Folding:
    """Return what of a graph is folded.

    Groups nest or have no node in common, and each can be taken for one node without making a
    cycle of the graph.

    Examples
    --------
    >>> folding = fold(build_layer_graph("demo"))
    >>> [group.title for group in folding.groups if group.name == "block2_add"]
    ['9 layers, 2 branches']
    """
    flow = _Flow(graph)
    chosen: list[_Set] = []
    for found in (_models(graph.infos, flow), _branches(graph, flow)):
        # The larger ones first: of two that overlap they are what is seen before any is open.
        for one in sorted(found, key=lambda one: -len(one.nodes)):
            if len(one.nodes) > 1 and all(one.nests(other) for other in chosen):
                chosen.append(one)
    units = _units(graph.infos, flow, _innermost(chosen, len(graph.infos)))
    chosen += [unit for unit in units if all(unit.nodes != other.nodes for other in chosen)]
    chosen.sort(key=lambda one: (-len(one.nodes), min(one.nodes)))
    groups = [
        Group(one.name, one.kind, one.title, _parent(one, chosen[:index]))
        for index, one in enumerate(chosen)
    ]
    return Folding(tuple(groups), tuple(_innermost(chosen, len(graph.infos))))


def _innermost(sets: list[_Set], count: int) -> list[int | None]:
    """Return the smallest of these sets, as its position, that each node is in."""
    found: list[int | None] = [None] * count
    for index in sorted(range(len(sets)), key=lambda index: -len(sets[index].nodes)):
        for node in sets[index].nodes:
            found[node] = index
    return found


def _parent(one: _Set, larger: list[_Set]) -> int | None:
    """Return the position of the last, so the smallest, of some sets that holds another one."""
    around = (index for index, other in enumerate(larger) if one.nodes < other.nodes)
    return max(around, default=None)


class _Flow:
    """Who feeds whom."""

    def __init__(self, graph: LayerGraph) -> None:
        count = len(graph.infos)
        self.after: list[set[int]] = [set() for _ in range(count)]
        self.before: list[set[int]] = [set() for _ in range(count)]
        for start, end in graph.edges:
            self.after[start].add(end)
            self.before[end].add(start)

    def reached(self, starts: set[int], stop: int) -> set[int]:
        """Return the nodes before `stop` that can be reached from some nodes, with these."""
        found: set[int] = set()
        left = [node for node in starts if node < stop]
        while left:
            node = left.pop()
            if node not in found:
                found.add(node)
                left += (after for after in self.after[node] if after < stop)
        return found

    def closed(self, nodes: frozenset[int]) -> bool:
        """Tell whether no way leads out of some nodes and back: they can be taken for one."""
        outside = set().union(*(self.after[node] for node in nodes)) - nodes
        return not self.reached(outside, max(nodes) + 1) & nodes

    def joins(self) -> list[int | None]:
        """Return the first node that every way from each node leads through; None if none does.

        Its immediate post-dominator: Cooper, Harvey and Kennedy, *A Simple, Fast Dominance
        Algorithm*, 2001. As the graph has no cycles, one pass from the end suffices.
        """
        end = len(self.after)  # stands for what comes after all that nothing comes after
        joins = [end] * (end + 1)
        for node in reversed(range(end)):
            first, *others = sorted(self.after[node]) or [end]
            for other in others:
                while first != other:
                    first, other = joins[min(first, other)], max(first, other)
            joins[node] = first
        return [None if join == end else join for join in joins[:end]]


def _models(infos: tuple[LayerInfo, ...], flow: _Flow) -> Iterator[_Set]:
    """Yield the insides of each call of nested models and composite layers."""
    calls: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    paths: list[tuple[str, str]] = []
    for node, info in enumerate(infos):
        match = _CALL.fullmatch(info.path)
        assert match is not None
        path, call = match["path"], match["call"] or ""
        paths.append((path, call))
        parts = path.split("/")
        for depth in range(1, len(parts)):
            calls["/".join(parts[:depth])][call][node] = path
    for node, (path, call) in enumerate(paths):
        if call in calls.get(path, {}):
            calls[path][call][node] = path  # the composite layer's own output
    for path, by_call in calls.items():
        sets = {path + call: frozenset(nodes) for call, nodes in by_call.items()}
        if len({frozenset(inner.values()) for inner in by_call.values()}) > 1:
            # No second call, but an inner layer that is called twice.
            sets = {path: frozenset().union(*sets.values())}
        for name, nodes in sets.items():
            if flow.closed(nodes):
                yield _Set(name, "model", _counted(len(nodes), "layer"), nodes)


def _branches(graph: LayerGraph, flow: _Flow) -> Iterator[_Set]:
    """Yield what lies between each fork and its join, with the join."""
    taken: set[int] = set()
    for fork, join in enumerate(flow.joins()):
        if join is None or len(flow.after[fork]) < 2:
            continue
        inside = flow.reached(flow.after[fork], join)
        # What is fed from elsewhere, or most of the network, is no part of it.
        fed = set().union(*(flow.before[node] for node in inside)) - inside
        if fed - {fork} or 2 * len(inside) > len(graph.infos):
            continue
        name = min(inside)
        if join not in taken and flow.before[join] <= inside | {fork}:
            taken.add(join)  # by the outermost fork, as this comes first
            inside.add(join)
            name = join
        count = _counted(len(inside), "layer")
        ways = _counted(len(flow.after[fork]), "branch", "es")
        yield _Set(graph.infos[name].path, "branches", f"{count}, {ways}", frozenset(inside))


def _units(infos: tuple[LayerInfo, ...], flow: _Flow, group_of: list[int | None]) -> Iterator[_Set]:
    """Yield layers with those that follow them in the same group."""
    for start, info in enumerate(infos):
        if not info.parameters or _FOLLOWERS.fullmatch(info.type):
            continue
        nodes = [start]
        while len(flow.after[nodes[-1]]) == 1:
            (after,) = flow.after[nodes[-1]]
            alone = len(flow.before[after]) == 1 and group_of[after] == group_of[start]
            if not (alone and _FOLLOWERS.fullmatch(infos[after].type)):
                break
            nodes.append(after)
        if len(nodes) > 1:
            title = " + ".join(infos[node].type for node in nodes)
            yield _Set(info.path, "unit", title, frozenset(nodes))


def _counted(count: int, what: str, plural: str = "s") -> str:
    return f"{count} {what}" + (plural if count > 1 else "")
