"""Parameters of the HTTP API: unknown ones are refused, and every refusal is in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
_WORDS = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
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
    ...     {"type": "int_parsing", "loc": ("query", "zoom"), "input": "x"}
    ... )
    "zoom must be a whole number, not 'x'"
    """
    limits = problem.get("ctx", {})
    words = _EXPECTED.get(limits.get("pattern")) or _WORDS.get(problem["type"], "cannot be used")
    return f"{problem['loc'][-1]} {words.format(**limits)}, not {_shown(problem['input'])}"


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
