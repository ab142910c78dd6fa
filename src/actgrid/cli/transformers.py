"""Draw the attention of a layer by the options of `actgrid attention`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from actgrid.rendering import AttentionMap, Picture

__all__ = ["draw_attention"]


def draw_attention(attention_map: AttentionMap, options: Mapping[str, Any]) -> Picture:
    """Return the picture of attention scores that the options choose.

    Parameters
    ----------
    attention_map
        The attention scores.
    options
        Options of `actgrid.options.AttentionStyleOptions`.
    """
    style, head = options["attention_style"], options["head"]
    if style == "matrix":
        return attention_map.matrix(head)
    if style == "arcs":
        return attention_map.arcs(head)
    if style == "query":
        return attention_map.attend_from(_parse_query(options["query"]), head)
    return attention_map


def _parse_query(query: Any) -> Any:
    """Return a position, a pair of row and column, or the name of a token."""
    if isinstance(query, str) and (match := re.fullmatch(r"([0-9]+),([0-9]+)", query)):
        return int(match[1]), int(match[2])
    return query
