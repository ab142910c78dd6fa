"""Order the operations of a graph like the calls of the layers of a Keras model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from actgrid.models.graph_layers import GraphLayer

__all__ = ["have_further_calls", "sort_depth_first"]

# End of the path of a further call of a layer, such as "conv:1".
_FURTHER_CALL = re.compile(r":\d+$")

_Key = TypeVar("_Key", str, int)


def have_further_calls(layers: Iterable[GraphLayer]) -> bool:
    """Return whether some layers are further calls of a shared layer.

    Keras runs parallel calls of a shared layer in the reverse order of their numbers. With
    `sort_depth_first`, the layers have the numbers of the Keras model.
    """
    return any(_FURTHER_CALL.search(layer.path) for layer in layers)


def sort_depth_first(
    ends: Iterable[_Key], list_sources: Callable[[_Key], Iterable[_Key]]
) -> list[_Key]:
    """Sort the operations of a graph: each after its sources, its first source first.

    Parameters
    ----------
    ends
        The operations that compute the outputs of the graph.
    list_sources
        Function of an operation that returns the operations of its inputs.

    Returns
    -------
    list
        The operations on which the outputs depend.
    """
    ordered: dict[_Key, None] = {}
    visited: set[_Key] = set()  # loops of TensorFlow 1 are circles
    pending = list(ends)[::-1]
    while pending:
        operation = pending[-1]
        if operation in visited:
            ordered[pending.pop()] = None
            continue
        visited.add(operation)
        pending += [
            source for source in list(list_sources(operation))[::-1] if source not in visited
        ]
    return list(ordered)
