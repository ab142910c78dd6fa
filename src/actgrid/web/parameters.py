"""Parameters of the HTTP API: unknown ones are refused, and every refusal is in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request

from actgrid.errors import OptionError, suggest

__all__ = ["IMAGE_ID", "TOKEN_GRID", "check_query", "describe_problem"]

IMAGE_ID = "^[0-9a-f]{1,64}$"
TOKEN_GRID = r"^\d{1,4}x\d{1,4}$"
_MAX_SHOWN = 80  # characters of a value in an error message
# What the patterns stand for: an answer never shows a regular expression.
_EXPECTED = {
    IMAGE_ID: "must be the id of an image, 1 to 64 hexadecimal digits",
    TOKEN_GRID: "must be two whole numbers of at most four digits, such as 14x14",
}
# By the type of a validation error of pydantic; `ctx` holds the limit.
_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "int_parsing": lambda ctx: "must be a whole number",
    "int_parsing_size": lambda ctx: "must be a whole number of fewer digits",
    "greater_than_equal": lambda ctx: f"must be at least {ctx['ge']}",
    "less_than_equal": lambda ctx: f"must be at most {ctx['le']}",
    "string_too_short": lambda ctx: f"must have at least {ctx['min_length']} characters",
    "string_too_long": lambda ctx: f"must have at most {ctx['max_length']} characters",
    "string_pattern_mismatch": lambda ctx: _EXPECTED[ctx["pattern"]],
}


def check_query(request: Request) -> None:
    """Refuse query parameters that the route does not have, and repeated ones.

    Raises
    ------
    OptionError
        If a parameter is unknown or given more than once. Also a ValueError.
    """
    names = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in names:
            expected = f"parameters are {', '.join(names)}" if names else "there are no parameters"
            raise OptionError(f"unknown parameter {_shown(name)}{suggest(name, names)}; {expected}")
        if count > 1:
            raise OptionError(f"{name} must be given once, not {count} times")


def describe_problem(problem: Mapping[str, Any]) -> str:
    """Return what a validation error of pydantic means, in words.

    Examples
    --------
    >>> describe_problem(
    ...     {"type": "int_parsing", "loc": ("query", "zoom"), "input": "x", "ctx": {}}
    ... )
    "zoom must be a whole number, not 'x'"
    """
    words = _WORDS.get(problem["type"], lambda ctx: "cannot be used")
    return f"{problem['loc'][-1]} {words(problem.get('ctx', {}))}, not {_shown(problem['input'])}"


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
