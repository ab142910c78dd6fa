"""Groups of layers that the page folds into single cards of the graph."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from actgrid.models import LayerInfo
from actgrid.models.graph import LayerGraph
from actgrid.web.attention_nodes import find_attention_nodes
from actgrid.web.node_paths import split_node_path

__all__ = ["Folding", "Group", "assign_attention", "fold"]

# Types of layers that are grouped with the layer before them.
_FOLLOWER_TYPES = re.compile(r".*Normalization|Activation|.*E?LU|Softmax|.*Dropout.*|Gaussian.*")
_NORMALIZATION_TYPE = re.compile(r".*Norm(alization)?")


@dataclass(frozen=True)
class Group:
    """A group of nodes that the page shows as one card until a user opens it.

    Parameters
    ----------
    name
        Path of the layer after which the group is named, unique among groups of the same kind.
    kind
        ``"model"``: a nested model or composite layer; ``"block"``: a transformer block, which is
        attention and a feed-forward network, each with its residual addition; ``"branches"``: the
        nodes between a fork and its join, and the join; ``"unit"``: a layer with the normalisation,
        activation and dropout after it.
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
    attention = find_attention_nodes(graph)
    blocks = list(_find_block_groups(graph.infos, adjacency, attention))
    models = list(_find_model_groups(graph.infos, adjacency))
    model_blocks = _find_model_blocks(graph.infos, models, blocks, attention)
    models = [model_blocks.get(model.name, model) for model in models]
    all_blocks = [*blocks, *model_blocks.values()]
    branches = [
        candidate
        for candidate in _find_branch_groups(graph, adjacency)
        if not any(candidate.nodes <= block.nodes for block in all_blocks)
    ]
    chosen: list[_Candidate] = []
    for candidates in (models, blocks, branches):
        # Of two overlapping groups the larger one is kept, because it folds more of the graph.
        for candidate in sorted(candidates, key=lambda candidate: -len(candidate.nodes)):
            is_inside_block = candidate.kind == "block" and any(
                candidate.nodes <= block.nodes for block in model_blocks.values()
            )
            if (
                len(candidate.nodes) > 1
                and not is_inside_block
                and all(map(candidate.is_compatible, chosen))
            ):
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


def assign_attention(
    attention_nodes: Iterable[int], folding: Folding, drawable_nodes: Iterable[int]
) -> dict[int, int]:
    """Return the attention that the page shows for each node.

    These are the nodes that compute attention, and the outputs of nested models, composite layers
    and transformer blocks with exactly one such node.

    Returns
    -------
    dict of {int: int}
        Index of the node -> index of the node that computes the attention.
    """
    assigned = {node: node for node in attention_nodes}
    attention_of_group = _list_by_group(assigned, folding)
    nodes_of_group = _list_by_group(dict.fromkeys(drawable_nodes, 0), folding)
    for group, sources in attention_of_group.items():
        if len(sources) == 1 and folding.groups[group].kind in ("model", "block"):
            output = max(nodes_of_group.get(group, []), default=None)
            if output is not None:
                assigned.setdefault(output, sources[0])
    return assigned


def _list_by_group(nodes: Mapping[int, int], folding: Folding) -> dict[int, list[int]]:
    """Return the nodes inside each group, including the nodes of its inner groups."""
    members: dict[int, list[int]] = {}
    for node in nodes:
        group = folding.innermost_groups[node]
        while group is not None:
            members.setdefault(group, []).append(node)
            group = folding.groups[group].parent
    return members


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

    def follow_to_join(self, node: int) -> int | None:
        """Return the first node with two predecessors after a node; None if a fork is before it."""
        while len(self.successors[node]) == 1:
            (node,) = self.successors[node]
            if len(self.predecessors[node]) > 1:
                return node if len(self.predecessors[node]) == 2 else None
        return None

    def find_between(self, start: int, end: int) -> frozenset[int]:
        """Return the nodes on all paths from one node to another, without both nodes."""
        between: set[int] = set()
        remaining = list(self.predecessors[end])
        reachable = self.find_reachable(self.successors[start], end)
        while remaining:
            node = remaining.pop()
            if node in reachable and node not in between:
                between.add(node)
                remaining += self.predecessors[node]
        return frozenset(between)

    def is_closed(self, nodes: frozenset[int], start: int, end: int) -> bool:
        """Return whether edges lead into a set of nodes only from `start`, out only to `end`."""
        inputs = set().union(*(self.predecessors[node] for node in nodes)) - nodes
        outputs = set().union(*(self.successors[node] for node in nodes)) - nodes
        return inputs <= {start} and outputs <= {end}

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
        path, call = split_node_path(info.path)
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


def _find_block_groups(
    infos: tuple[LayerInfo, ...], adjacency: _Adjacency, attention: Mapping[int, LayerInfo]
) -> Iterator[_Candidate]:
    """Yield the transformer blocks that consist of separate layers.

    Parameters
    ----------
    attention
        Nodes that compute attention -> their scores.
    """
    for node, scores in attention.items():
        nodes = _find_block(infos, adjacency, node, attention)
        if nodes is not None and adjacency.is_convex(nodes):
            yield _Candidate(infos[node].path, "block", _describe_block(scores), nodes)


def _find_block(
    infos: tuple[LayerInfo, ...],
    adjacency: _Adjacency,
    attention_node: int,
    attention: Mapping[int, LayerInfo],
) -> frozenset[int] | None:
    """Return the nodes of the transformer block around a node that computes attention.

    The block is pre-norm if a normalization is between the input of the block and the attention,
    otherwise post-norm: then each addition is followed by a normalization.

    Returns
    -------
    frozenset of int or None
        None: the layers around the node are no block.
    """
    first_join = adjacency.follow_to_join(attention_node)
    if first_join is None:
        return None
    for source in adjacency.predecessors[first_join]:
        first_branch = adjacency.find_between(source, first_join)
        if attention_node in first_branch:
            break
    else:
        return None
    # Masks, and the keys of cross-attention, are other inputs of the attention.
    rest = first_branch - {attention_node}
    inputs = set().union(*(adjacency.predecessors[node] for node in rest)) - first_branch
    outputs = set().union(*(adjacency.successors[node] for node in first_branch)) - first_branch
    if not inputs <= {source} or not outputs <= {first_join}:
        return None
    is_pre_norm = any(
        node < attention_node and _is_normalization(infos[node]) for node in first_branch
    )
    trunk = [first_join]
    while len(adjacency.successors[trunk[-1]]) == 1:
        (after,) = adjacency.successors[trunk[-1]]
        if not _FOLLOWER_TYPES.fullmatch(infos[after].type):
            return None
        trunk.append(after)
    fork = trunk[-1]
    for second_join in sorted(adjacency.successors[fork]):
        second_branch = adjacency.find_between(fork, second_join)
        if (
            len(adjacency.predecessors[second_join]) == 2
            and any(_has_weights(infos[node]) for node in second_branch)
            and not second_branch & attention.keys()
            and adjacency.is_closed(second_branch, fork, second_join)
        ):
            break
    else:
        return None
    nodes = {*first_branch, *trunk, *second_branch, second_join}
    if not is_pre_norm and len(adjacency.successors[second_join]) == 1:
        (after,) = adjacency.successors[second_join]
        if _is_normalization(infos[after]):
            nodes.add(after)
    return frozenset(nodes)


def _find_model_blocks(
    infos: tuple[LayerInfo, ...],
    models: list[_Candidate],
    blocks: list[_Candidate],
    attention: Mapping[int, LayerInfo],
) -> dict[str, _Candidate]:
    """Return the composite layers that are transformer blocks, with a title that says so.

    Parameters
    ----------
    models
        Groups of nested models and composite layers.
    blocks
        Groups of separate layers that are transformer blocks.
    attention
        Nodes that compute attention -> their scores.

    Returns
    -------
    dict of {str: _Candidate}
        Name of the group -> the group.
    """
    found: list[_Candidate] = []
    for model in sorted(models, key=lambda model: len(model.nodes)):
        inside = [node for node in attention if node in model.nodes]
        if len(inside) != 1 or any(other.nodes < model.nodes for other in found):
            continue
        owner = split_node_path(attention[inside[0]].path)[0].rpartition("/")[0]
        others = [
            infos[node]
            for node in model.nodes
            if node != inside[0] and not infos[node].path.startswith(f"{owner}/")
        ]
        # The output projection of attention is a single layer, a feed-forward network has two.
        has_layers = sum(map(_has_weights, others)) >= 2 and any(map(_is_normalization, others))
        is_larger = any(
            block.nodes < model.nodes
            and any(_has_weights(infos[node]) for node in model.nodes - block.nodes)
            for block in blocks
        )
        if has_layers and not is_larger and owner != split_node_path(model.name)[0]:
            title = _describe_block(attention[inside[0]])
            found.append(replace(model, title=title))
    return {block.name: block for block in found}


def _is_normalization(info: LayerInfo) -> bool:
    return bool(_NORMALIZATION_TYPE.fullmatch(info.type))


def _has_weights(info: LayerInfo) -> bool:
    """Return whether a layer has weights and is no normalization."""
    return bool(info.parameters) and not _is_normalization(info)


def _describe_block(scores: LayerInfo) -> str:
    heads = scores.shape[1]
    return "transformer block" + (f", {_format_count(heads, 'head')}" if heads else "")


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
