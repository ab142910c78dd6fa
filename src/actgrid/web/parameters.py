"""Parameters of the HTTP API: options as defined, unknown ones refused, refusals in words."""

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
_MAX_SHOWN = 80  # characters of a value in an error message
_MAX_LENGTH = 200  # characters of a value whose schema tells no limit
# What the patterns stand for: an answer never shows a regular expression.
_EXPECTED = {IMAGE_ID: "must be the id of an image, 1 to 64 hexadecimal digits"}
# By the type of a validation error of pydantic; `ctx` holds the limit.
_WORDS = {
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
}


def takes_query(group: type, *names: str) -> Callable[[Route], Route]:
    """Decorate a route whose parameter `options` takes options of a group from the query.

    Parameters
    ----------
    names
        Names of the options; none: all of the group.
    """
    return _takes_options(group, names, Query)


def takes_path(group: type, *names: str) -> Callable[[Route], Route]:
    """Decorate a route whose parameter `options` takes options of a group from the path."""
    return _takes_options(group, names, Path)


def _takes_options(
    group: type, names: tuple[str, ...], place: Callable[..., Any]
) -> Callable[[Route], Route]:
    known = get_options(group)
    options = {name: known[name] for name in names or known}

    def decorate(function: Route) -> Route:
        @functools.wraps(function)
        async def route(**given: Any) -> Any:
            values = {name: given.pop(name) for name in options}
            read = {
                name: _read(name, options[name], value) if isinstance(value, str) else value
                for name, value in values.items()
            }
            return await function(**given, options=read)

        signature = inspect.signature(function, eval_str=True)
        parameters = [each for each in signature.parameters.values() if each.name != "options"]
        for name, option in options.items():
            parameters.append(_parameter(name, option, place))
        route.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return route

    return decorate


def _parameter(name: str, option: Option, place: Callable[..., Any]) -> inspect.Parameter:
    """Return the parameter that takes an option as text, described by the option's definition."""
    left_out = f" Left out: {option.none}." if option.none else ""
    info = place(description=option.help + left_out)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if place is Path else option.default,
        annotation=Annotated[str, WithJsonSchema(option.type.schema()), info],
    )


def _read(name: str, option: Option, text: str) -> Any:
    """Return the value that a text stands for, see `OptionType.read`."""
    limit = option.type.schema().get("maxLength", _MAX_LENGTH)
    if len(text) > limit:
        raise OptionError(f"{name} must have at most {limit} characters, not {_shown(text)}")
    return option.type.read(name, text)


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
    ...     {"type": "int_parsing", "loc": ("query", "layer"), "input": "x"}
    ... )
    "layer must be a whole number, not 'x'"
    """
    limits = problem.get("ctx", {})
    words = _EXPECTED.get(limits.get("pattern")) or _WORDS.get(problem["type"], "cannot be used")
    return f"{problem['loc'][-1]} {words.format(**limits)}, not {_shown(problem['input'])}"


def _shown(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
