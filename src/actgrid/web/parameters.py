"""Query and path parameters of the HTTP API, and their error messages."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from fastapi import Path, Query, Request
from pydantic import WithJsonSchema

from actgrid.errors import OptionError, suggest
from actgrid.option_groups import Option, get_options

__all__ = ["IMAGE_ID", "check_query", "describe_problem", "takes_path", "takes_query"]

Route = Callable[..., Awaitable[Any]]

IMAGE_ID = "^[0-9a-f]{1,64}$"
_MAX_QUOTED = 80  # characters of a value in an error message
_MAX_LENGTH = 200  # characters of a value whose schema has no limit
# Descriptions of the patterns: error messages never contain a regular expression.
_EXPECTED = {IMAGE_ID: "must be the id of an image, 1 to 64 hexadecimal digits"}
# Constraint by the type of a pydantic validation error, whose `ctx` contains the limit.
_CONSTRAINTS = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
}


def takes_query(group: type, *names: str) -> Callable[[Route], Route]:
    """Return a decorator that adds options of a group as query parameters of a route.

    The route receives their values as a dict in its parameter `options`.

    Parameters
    ----------
    group
        Group of options, see `actgrid.options`.
    *names
        Names of the options; without names: all options of the group.
    """
    return _make_decorator(group, names, Query)


def takes_path(group: type, *names: str) -> Callable[[Route], Route]:
    """Return a decorator like `takes_query` that adds options as path parameters."""
    return _make_decorator(group, names, Path)


def _make_decorator(
    group: type, names: tuple[str, ...], location: Callable[..., Any]
) -> Callable[[Route], Route]:
    definitions = get_options(group)
    options = {name: definitions[name] for name in names or definitions}

    def decorate(function: Route) -> Route:
        @functools.wraps(function)
        async def route(**arguments: Any) -> Any:
            texts = {name: arguments.pop(name) for name in options}
            values = {
                name: _parse_value(name, options[name], text) if isinstance(text, str) else text
                for name, text in texts.items()
            }
            return await function(**arguments, options=values)

        signature = inspect.signature(function, eval_str=True)
        parameters = [
            parameter for parameter in signature.parameters.values() if parameter.name != "options"
        ]
        for name, option in options.items():
            parameters.append(_make_parameter(name, option, location))
        route.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return route

    return decorate


def _make_parameter(name: str, option: Option, location: Callable[..., Any]) -> inspect.Parameter:
    """Return the parameter of a route that receives an option as text."""
    default = f" If omitted: {option.none}." if option.none else ""
    info = location(description=option.help + default)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if location is Path else option.default,
        annotation=Annotated[str, WithJsonSchema(option.type.schema()), info],
    )


def _parse_value(name: str, option: Option, text: str) -> Any:
    """Convert the text of a query parameter to the value of its option."""
    limit = option.type.schema().get("maxLength", _MAX_LENGTH)
    if len(text) > limit:
        raise OptionError(f"{name} must have at most {limit} characters, not {_quote(text)}")
    return option.type.read(name, text)


def check_query(request: Request) -> None:
    """Raise OptionError if a request has unknown or repeated query parameters.

    Raises
    ------
    OptionError
        If a parameter is unknown or repeated. Also a ValueError.
    """
    names = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name, count in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in names:
            expected = (
                f"parameters are {', '.join(names)}" if names else "this resource has no parameters"
            )
            raise OptionError(f"unknown parameter {_quote(name)}{suggest(name, names)}; {expected}")
        if count > 1:
            raise OptionError(f"{name} must be given once, not {count} times")


def describe_problem(problem: Mapping[str, Any]) -> str:
    """Return the error message for a validation error of pydantic.

    Examples
    --------
    >>> describe_problem(
    ...     {"type": "int_parsing", "loc": ("query", "layer"), "input": "x"}
    ... )
    "layer must be a whole number, not 'x'"
    """
    limits = problem.get("ctx", {})
    constraint = _EXPECTED.get(limits.get("pattern")) or _CONSTRAINTS.get(
        problem["type"], "is invalid"
    )
    return f"{problem['loc'][-1]} {constraint.format(**limits)}, not {_quote(problem['input'])}"


def _quote(value: object) -> str:
    """Return a value in quotes, shortened to 80 characters."""
    text = str(value)
    return repr(text if len(text) <= _MAX_QUOTED else f"{text[:_MAX_QUOTED]}...")
