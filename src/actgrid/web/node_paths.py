"""Parts of the paths of nodes in the graph of a model."""

from __future__ import annotations

import re

__all__ = ["split_node_path"]

_NODE_PATH = re.compile(r"(?P<path>.*?)(?P<call>:\d+)?(\[.*\])?")


def split_node_path(path: str) -> tuple[str, str]:
    """Return the path of the layer of a node, and the suffix of the call.

    The suffix is empty for the first call of a layer. The position of an output is removed.

    Examples
    --------
    >>> split_node_path("outer/conv:1[0]")
    ('outer/conv', ':1')
    """
    match = _NODE_PATH.fullmatch(path)
    assert match is not None
    return match["path"], match["call"] or ""
