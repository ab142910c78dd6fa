"""Find the nodes of a model's graph whose layers compute attention scores."""

from __future__ import annotations

from collections.abc import Iterable

from actgrid.models import LayerInfo
from actgrid.models.graph import LayerGraph
from actgrid.web.node_paths import split_node_path

__all__ = ["find_attention_nodes"]


def find_attention_nodes(graph: LayerGraph) -> dict[int, LayerInfo]:
    """Return the nodes whose layers compute attention scores.

    A layer of other layers may be no node itself. Then its last inner layer stands for it.

    Returns
    -------
    dict of {int: LayerInfo}
        Index of the node -> description of the scores, in the order of the nodes.
    """
    scores_by_owner: dict[str, list[LayerInfo]] = {}
    for info in graph.attention:
        path, _ = split_node_path(info.path)
        scores_by_owner.setdefault(path.rpartition("/")[0], []).append(info)
    nodes: dict[int, LayerInfo] = {}
    for owner, scores in scores_by_owner.items():
        calls = _find_calls(graph.infos, owner)
        # A layer that computes several attentions in one call has no attention of its own.
        if len(calls) == len(scores):
            nodes |= zip(calls, scores, strict=True)
    for node, info in enumerate(graph.infos):
        path, _ = split_node_path(info.path)
        is_owned = any(path == owner or path.startswith(f"{owner}/") for owner in scores_by_owner)
        # Outputs that are attention scores themselves, such as those of a Softmax layer.
        if len(info.shape) == 4 and info.kind == "attention" and not is_owned:
            nodes[node] = info
    return dict(sorted(nodes.items()))


def _find_calls(infos: Iterable[LayerInfo], owner: str) -> list[int]:
    """Return the node that stands for each call of a layer, in the order of the nodes."""
    outputs: dict[str, int] = {}
    last_inner: dict[str, int] = {}
    for node, info in enumerate(infos):
        path, call = split_node_path(info.path)
        if path == owner:
            outputs.setdefault(call, node)
        elif path.startswith(f"{owner}/"):
            last_inner[call] = node
    return sorted((outputs or last_inner).values())
