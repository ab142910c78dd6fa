"""Option groups: look up definitions, check values, set function signatures."""

import functools
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from actgrid.errors import UnknownOptionError, suggest
from actgrid.option_types import OptionType

__all__ = [
    "UNSET",
    "Option",
    "check_option",
    "complete_options",
    "get_options",
    "pick_options",
    "takes_options",
]

F = TypeVar("F", bound=Callable[..., Any])


class _Unset:
    """Type of the constant `UNSET`.

    The constant is the default of an option whose real default is not known before it is used.
    """

    def __repr__(self) -> str:
        return "<unset>"


UNSET = _Unset()


@dataclass(frozen=True)
class Option:
    """Record of the definition of one option.

    Parameters
    ----------
    type : OptionType
        The type of the option's values.
    default : object
        Default value. A function can have a different default, see `takes_options`. With `UNSET`,
        an option that is not given is not passed on; the function that takes it has a default.
    help : str
        Description in one line.
    none : str
        Meaning of the value None; empty if None is not allowed. An option that is omitted on the
        command line or in a URL is None.
    is_repeatable : bool
        Whether the command line accepts the option several times and makes a list of the values.
        Each item of a list or tuple is then wrapper separately.
    """

    type: OptionType
    default: Any
    help: str
    none: str = ""
    is_repeatable: bool = False

    def check(self, name: str, value: Any) -> Any:
        """Check a value of the option, and return it in its standard form.

        Parameters
        ----------
        name
            Name of the option, for error messages.
        value
            The value. A list is checked item by item if the option is repeatable.
        """
        if value is None and self.none:
            return None
        if self.is_repeatable and isinstance(value, (list, tuple)):
            return type(value)(self.type.check(name, item) for item in value)
        return self.type.check(name, value)


@functools.cache
def _get_hints(group: type) -> dict[str, Any]:
    return typing.get_type_hints(group, include_extras=True)


@functools.cache
def get_options(*groups: type) -> Mapping[str, Option]:
    """Return the options that option groups define, in the order of definition.

    Returns
    -------
    mapping
        Option name -> `Option`.

    Examples
    --------
    >>> from actgrid.options import GridOptions
    >>> get_options(GridOptions)["padding"].default
    1
    """
    options: dict[str, Option] = {}
    for group in groups:
        for name, hint in _get_hints(group).items():
            (option,) = hint.__metadata__
            options[name] = option
    return options


def check_option(group: type, name: str, value: Any) -> Any:
    """Check the value of one option of an option group.

    Parameters
    ----------
    group
        Class that defines the options of the group.
    name
        Name of the option.
    value
        The value.

    Returns
    -------
    object
        The value in its standard form.

    Raises
    ------
    OptionError
        If the value is not allowed. Also a ValueError.
    """
    return get_options(group)[name].check(name, value)


def complete_options(
    group: type, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Check the given options of a group, and add the defaults of the other options.

    Parameters
    ----------
    group
        The `typing.TypedDict` that defines the options.
    values
        Option name -> value.
    defaults
        Option name -> default, where it differs from the definition.

    Returns
    -------
    dict
        Option name -> value in its standard form.

    Raises
    ------
    UnknownOptionError
        If the group does not define an option. Also a TypeError.
    OptionError
        If a value is not allowed. Also a ValueError.
    """
    options = get_options(group)
    for name in values:
        if name not in options:
            raise UnknownOptionError(
                f"unknown option {name!r}{suggest(name, options)}; options: {', '.join(options)}"
            )
    overrides = {} if defaults is None else defaults
    completed: dict[str, Any] = {}
    for name, option in options.items():
        if name in values and values[name] is not UNSET:
            completed[name] = option.check(name, values[name])
        elif (default := overrides.get(name, option.default)) is not UNSET:
            completed[name] = default
    return completed


def pick_options(options: Mapping[str, Any], *groups: type) -> dict[str, Any]:
    """Select from a dict of options those that option groups define.

    Parameters
    ----------
    options
        Option name -> value.
    *groups
        Classes that define options.

    Returns
    -------
    dict
        Option name -> value.
    """
    return {name: options[name] for name in get_options(*groups) if name in options}


def takes_options(group: type, **defaults: Any) -> Callable[[F], F]:
    """Return a decorator by which a function takes the options of a group as keywords.

    The function, or the ``__init__`` of the class, has the parameter
    ``**options: Unpack[group]``. It receives all options of the group, wrapper and completed by
    `complete_options`. Its signature lists them with their defaults, and so does its docstring
    instead of the entry ``**options``.

    Parameters
    ----------
    group
        The `typing.TypedDict` that defines the options.
    **defaults
        Defaults of this function, where they differ from the definitions.

    Returns
    -------
    callable
        The decorator.
    """

    def decorate(function: F) -> F:
        if isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            function.__doc__ = _document_options(function.__doc__ or "", group, defaults)
            function.__options__ = group  # type: ignore[attr-defined]
            return function

        @functools.wraps(function)
        def wrapper(*args: Any, **values: Any) -> Any:
            arguments = {name: values.pop(name) for name in parameters if name in values}
            return function(*args, **arguments, **complete_options(group, values, defaults))

        signature = inspect.signature(function)
        parameters = {
            name: parameter
            for name, parameter in signature.parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        }
        annotations = {name: hint.__origin__ for name, hint in _get_hints(group).items()}
        keywords = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(name, option.default),
                annotation=annotations[name],
            )
            for name, option in get_options(group).items()
        ]
        wrapper.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*parameters.values(), *keywords]
        )
        wrapper.__annotations__ = {
            name: hint for name, hint in function.__annotations__.items() if name in parameters
        } | annotations
        if "return" in function.__annotations__:
            wrapper.__annotations__["return"] = function.__annotations__["return"]
        wrapper.__doc__ = _document_options(function.__doc__ or "", group, defaults)
        wrapper.__options__ = group  # type: ignore[attr-defined]
        return typing.cast(F, wrapper)

    return decorate


def _document_options(doc: str, group: type, defaults: Mapping[str, Any]) -> str:
    """Replace the entry ``**options`` in a docstring by an entry for each option.

    Parameters
    ----------
    doc
        The docstring of a function.
    group
        Class that defines the options of the function.
    defaults
        Option name -> default of the function, if it is not that of the option.

    Returns
    -------
    str
        The new docstring.
    """
    match = re.search(r"^( *)\*\*options\n(?:\1 +\S.*\n|\n(?=\1 ))*", doc, re.MULTILINE)
    if not match:
        return doc
    indent = match[1]
    lines: list[str] = []
    for name, option in get_options(group).items():
        default = defaults.get(name, option.default)
        suffix = "" if default is UNSET else f", default {default!r}"
        # numpydoc's word for the type.
        expected = option.type.expected.replace("an integer", "int")
        lines.append(f"{indent}{name} : {expected}{suffix}\n")
        none = f" None: {option.none}." if option.none else ""
        lines.append(f"{indent}    {option.help}{none}\n")
    return doc[: match.start()] + "".join(lines) + doc[match.end() :]
