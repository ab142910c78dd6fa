"""Groups of layers that the page folds into single cards of the graph."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from actgrid.models import LayerInfo
from actgrid.models.graph import LayerGraph

__all__ = ["Folding", "Group", "fold"]

# Types of layers that are grouped with the layer before them.
_FOLLOWER_TYPES = re.compile(r".*Normalization|Activation|.*E?LU|Softmax|.*Dropout.*|Gaussian.*")
_NODE_PATH = re.compile(r"(?P<path>.*?)(?P<call>:\d+)?(\[.*\])?")


@dataclass(frozen=True)
class Group:
    """A group of nodes that the page shows as one card until a user opens it.

    Parameters
    ----------
    name
        Path of the layer after which the group is named, unique among groups of the same kind.
    kind
        ``"model"``: a nested model or composite layer; ``"branches"``: the nodes between a fork and
        its join, and the join; ``"unit"``: a layer with the normalisation, activation and dropout
        after it.
    title
        Description of the contents.
    parent
        Index of the smallest group that contains this group; None if there is no such group.
    """

    name: str
    kind: str
    title: str
    parent: int | None


@dataclass(frozen=True)
class Folding:
    """The groups of a graph.

    Parameters
    ----------
    groups
        The groups; an outer group comes before its inner groups.
    innermost_groups
        For each node, the index of the smallest group that contains it, or None.
    """

    groups: tuple[Group, ...]
    innermost_groups: tuple[int | None, ...]


@dataclass(frozen=True)
class _Candidate:
    """Candidate for a group: nodes of the graph that the page can fold into one card."""

    name: str
    kind: str
    title: str
    nodes: frozenset[int]

    def is_compatible(self, other: _Candidate) -> bool:
        """Return whether two sets of nodes are disjoint, or one is a proper subset."""
        return (
            self.nodes < other.nodes
            or other.nodes < self.nodes
            or self.nodes.isdisjoint(other.nodes)
        )


def fold(graph: LayerGraph) -> Folding:
    """Find the groups of nodes in a graph that the page folds into cards.

    Two groups are disjoint, or one contains the other. Replacing any group by a single node leaves
    the graph without cycles.

    Examples
    --------
    >>> from actgrid.models.graph import build_layer_graph
    >>> folding = fold(build_layer_graph(actgrid.load_model("demo")))
    >>> [group.title for group in folding.groups if group.name == "block2_add"]
    ['9 layers, 2 branches']
    """
    adjacency = _Adjacency(graph)
    chosen: list[_Candidate] = []
    for candidates in (
        _find_model_groups(graph.infos, adjacency),
        _find_branch_groups(graph, adjacency),
    ):
        # Of two overlapping groups the larger one is kept, because it folds more of the graph.
        for candidate in sorted(candidates, key=lambda candidate: -len(candidate.nodes)):
            if len(candidate.nodes) > 1 and all(map(candidate.is_compatible, chosen)):
                chosen.append(candidate)
    innermost_groups = _find_innermost(chosen, len(graph.infos))
    units = list(_find_unit_groups(graph.infos, adjacency, innermost_groups))
    chosen += [unit for unit in units if all(unit.nodes != other.nodes for other in chosen)]
    chosen.sort(key=lambda candidate: (-len(candidate.nodes), min(candidate.nodes)))
    groups = [
        Group(
            candidate.name,
            candidate.kind,
            candidate.title,
            _find_parent(candidate, chosen[:index]),
        )
        for index, candidate in enumerate(chosen)
    ]
    return Folding(tuple(groups), tuple(_find_innermost(chosen, len(graph.infos))))


def _find_innermost(candidates: list[_Candidate], count: int) -> list[int | None]:
    """Return the index of the smallest node set around each of `count` nodes."""
    innermost: list[int | None] = [None] * count
    by_size = sorted(range(len(candidates)), key=lambda index: -len(candidates[index].nodes))
    for index in by_size:
        for node in candidates[index].nodes:
            innermost[node] = index
    return innermost


def _find_parent(candidate: _Candidate, larger: list[_Candidate]) -> int | None:
    """Return the index of the smallest set in `larger` that contains a candidate."""
    parents = (index for index, other in enumerate(larger) if candidate.nodes < other.nodes)
    return max(parents, default=None)


class _Adjacency:
    """Predecessors and successors of each node of a graph, in topological order."""

    def __init__(self, graph: LayerGraph) -> None:
        count = len(graph.infos)
        self.successors: list[set[int]] = [set() for _ in range(count)]
        self.predecessors: list[set[int]] = [set() for _ in range(count)]
        for start, end in graph.edges:
            self.successors[start].add(end)
            self.predecessors[end].add(start)

    def find_reachable(self, starts: set[int], stop: int) -> set[int]:
        """Return the start nodes and all nodes that paths reach from them before `stop`."""
        reachable: set[int] = set()
        remaining = [node for node in starts if node < stop]
        while remaining:
            node = remaining.pop()
            if node not in reachable:
                reachable.add(node)
                remaining += (after for after in self.successors[node] if after < stop)
        return reachable

    def is_convex(self, nodes: frozenset[int]) -> bool:
        """Return whether no path leaves a set of nodes and enters it again."""
        outside = set().union(*(self.successors[node] for node in nodes)) - nodes
        return not self.find_reachable(outside, max(nodes) + 1) & nodes

    def find_post_dominators(self) -> list[int | None]:
        """Return the immediate post-dominator of each node, or None if it has none.

        The immediate post-dominator is the first node that lies on every path from a node to the
        outputs. The graph has no cycles, so one pass from the end suffices.

        References
        ----------
        Cooper, Harvey and Kennedy, *A Simple, Fast Dominance Algorithm*, 2001.
        """
        end = len(self.successors)  # a virtual node after all outputs
        dominators = [end] * (end + 1)
        for node in reversed(range(end)):
            first, *others = sorted(self.successors[node]) or [end]
            for other in others:
                while first != other:
                    first, other = dominators[min(first, other)], max(first, other)
            dominators[node] = first
        return [None if dominator == end else dominator for dominator in dominators[:end]]


def _find_model_groups(infos: tuple[LayerInfo, ...], adjacency: _Adjacency) -> Iterator[_Candidate]:
    """Yield the nodes inside each call of nested models and composite layers."""
    calls: dict[str, dict[str, dict[int, str]]] = defaultdict(lambda: defaultdict(dict))
    paths: list[tuple[str, str]] = []
    for node, info in enumerate(infos):
        match = _NODE_PATH.fullmatch(info.path)
        assert match is not None
        path, call = match["path"], match["call"] or ""
        paths.append((path, call))
        parts = path.split("/")
        for depth in range(1, len(parts)):
            calls["/".join(parts[:depth])][call][node] = path
    for node, (path, call) in enumerate(paths):
        if call in calls.get(path, {}):
            calls[path][call][node] = path  # output of the composite layer itself
    for path, by_call in calls.items():
        node_sets = {path + call: frozenset(nodes) for call, nodes in by_call.items()}
        if len({frozenset(inner_paths.values()) for inner_paths in by_call.values()}) > 1:
            # The model is called once, and one of its layers is called twice.
            node_sets = {path: frozenset().union(*node_sets.values())}
        for name, nodes in node_sets.items():
            if adjacency.is_convex(nodes):
                yield _Candidate(name, "model", _format_count(len(nodes), "layer"), nodes)


def _find_branch_groups(graph: LayerGraph, adjacency: _Adjacency) -> Iterator[_Candidate]:
    """Yield the nodes between each fork and the node that joins its branches."""
    joins: set[int] = set()
    for fork, join in enumerate(adjacency.find_post_dominators()):
        if join is None or len(adjacency.successors[fork]) < 2:
            continue
        inside = adjacency.find_reachable(adjacency.successors[fork], join)
        # Branches with other inputs than the fork, or with most of the network, are not folded.
        inputs = set().union(*(adjacency.predecessors[node] for node in inside)) - inside
        if inputs - {fork} or 2 * len(inside) > len(graph.infos):
            continue
        name = min(inside)
        if join not in joins and adjacency.predecessors[join] <= inside | {fork}:
            joins.add(join)  # belongs to the outermost fork, which comes first
            inside.add(join)
            name = join
        layer_count = _format_count(len(inside), "layer")
        branch_count = _format_count(len(adjacency.successors[fork]), "branch", "es")
        title = f"{layer_count}, {branch_count}"
        yield _Candidate(graph.infos[name].path, "branches", title, frozenset(inside))


def _find_unit_groups(
    infos: tuple[LayerInfo, ...], adjacency: _Adjacency, innermost_groups: list[int | None]
) -> Iterator[_Candidate]:
    """Yield layers together with their normalisation, activation and dropout layers."""
    for start, info in enumerate(infos):
        if not info.parameters or _FOLLOWER_TYPES.fullmatch(info.type):
            continue
        nodes = [start]
        while len(adjacency.successors[nodes[-1]]) == 1:
            (after,) = adjacency.successors[nodes[-1]]
            is_only_input = len(adjacency.predecessors[after]) == 1
            is_in_group = innermost_groups[after] == innermost_groups[start]
            if not (is_only_input and is_in_group and _FOLLOWER_TYPES.fullmatch(infos[after].type)):
                break
            nodes.append(after)
        if len(nodes) > 1:
            title = " + ".join(infos[node].type for node in nodes)
            yield _Candidate(info.path, "unit", title, frozenset(nodes))


def _format_count(count: int, noun: str, plural: str = "s") -> str:
    return f"{count} {noun}" + (plural if count > 1 else "")
