"""Groups of options: definitions by name, values checked and completed, and signatures."""

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
    "options_of",
    "pick_options",
    "takes_options",
]

F = TypeVar("F", bound=Callable[..., Any])


class _Unset:
    """Stands for a default that what takes the option knows, such as an attribution method."""

    def __repr__(self) -> str:
        return "<unset>"


UNSET = _Unset()


@dataclass(frozen=True)
class Option:
    """The definition of one option.

    Attributes
    ----------
    type
        What values it can have.
    default
        Its value where none is given. Functions may have another default, see `takes_options`.
        `UNSET`: an option that is not given is left out, as what takes it has a default.
    help
        One line that says what it is.
    none
        What None stands for; empty if None is no value of it. On the command line and in a URL an
        option that is left out is None.
    is_repeatable
        Whether it may be given several times on the command line, which makes a list; each item
        of a list or tuple is then checked by itself.
    """

    type: OptionType
    default: Any
    help: str
    none: str = ""
    is_repeatable: bool = False

    def check(self, name: str, value: Any) -> Any:
        """Return a Python value, checked; raise OptionError if it cannot be used."""
        if value is None and self.none:
            return None
        if self.is_repeatable and isinstance(value, (list, tuple)):
            return type(value)(self.type.check(name, item) for item in value)
        return self.type.check(name, value)


@functools.cache
def _hints(group: type) -> dict[str, Any]:
    return typing.get_type_hints(group, include_extras=True)


@functools.cache
def options_of(*groups: type) -> Mapping[str, Option]:
    """Return the options of some groups by name, in the order in which they are defined.

    Examples
    --------
    >>> options_of(actgrid.options.GridOptions)["padding"].default
    1
    """
    found: dict[str, Option] = {}
    for group in groups:
        for name, hint in _hints(group).items():
            (option,) = hint.__metadata__
            found[name] = option
    return found


def check_option(group: type, name: str, value: Any) -> Any:
    """Return the value of one option of a group, checked.

    Raises
    ------
    OptionError
        If it cannot have this value. Also a ValueError.
    """
    return options_of(group)[name].check(name, value)


def complete_options(
    group: type, given: Mapping[str, Any], defaults: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return all options of a group: those given, checked, and the defaults of the others.

    Parameters
    ----------
    group
        The `typing.TypedDict` that defines the options.
    given
        Values by name.
    defaults
        Defaults other than those of the definitions.

    Raises
    ------
    UnknownOptionError
        If there is no such option. Also a TypeError.
    OptionError
        If an option cannot have its value. Also a ValueError.
    """
    known = options_of(group)
    for name in given:
        if name not in known:
            raise UnknownOptionError(
                f"there is no option {name!r}{suggest(name, known)}; options: {', '.join(known)}"
            )
    usual = {} if defaults is None else defaults
    completed: dict[str, Any] = {}
    for name, option in known.items():
        if name in given and given[name] is not UNSET:
            completed[name] = option.check(name, given[name])
        elif (default := usual.get(name, option.default)) is not UNSET:
            completed[name] = default
    return completed


def pick_options(options: Mapping[str, Any], *groups: type) -> dict[str, Any]:
    """Return those of the options that some groups define."""
    return {name: options[name] for name in options_of(*groups) if name in options}


def takes_options(group: type, **defaults: Any) -> Callable[[F], F]:
    """Check and complete the ``**options: Unpack[group]`` of the decorated function or class.

    The function, or the ``__init__`` of the class, is called with every option of the group. Its
    signature and its docstring, in the place of the parameter ``**options``, list them with their
    defaults.

    Parameters
    ----------
    defaults
        Defaults of this function, where they differ from those of the definitions.
    """

    def decorate(function: F) -> F:
        if isinstance(function, type):
            function.__init__ = decorate(function.__init__)  # type: ignore[misc]
            function.__doc__ = _documented(function.__doc__ or "", group, defaults)
            function.__options__ = group  # type: ignore[attr-defined]
            return function

        @functools.wraps(function)
        def checked(*args: Any, **given: Any) -> Any:
            own = {name: given.pop(name) for name in parameters if name in given}
            return function(*args, **own, **complete_options(group, given, defaults))

        signature = inspect.signature(function)
        parameters = {
            name: each
            for name, each in signature.parameters.items()
            if each.kind is not each.VAR_KEYWORD
        }
        annotations = {name: hint.__origin__ for name, hint in _hints(group).items()}
        keywords = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(name, option.default),
                annotation=annotations[name],
            )
            for name, option in options_of(group).items()
        ]
        checked.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*parameters.values(), *keywords]
        )
        checked.__annotations__ = {
            name: hint for name, hint in function.__annotations__.items() if name in parameters
        } | annotations
        if "return" in function.__annotations__:
            checked.__annotations__["return"] = function.__annotations__["return"]
        checked.__doc__ = _documented(function.__doc__ or "", group, defaults)
        checked.__options__ = group  # type: ignore[attr-defined]
        return typing.cast(F, checked)

    return decorate


def _documented(doc: str, group: type, defaults: Mapping[str, Any]) -> str:
    """Return a docstring with the options in the place of the parameter ``**options``."""
    match = re.search(r"^( *)\*\*options\n(?:\1 +\S.*\n|\n(?=\1 ))*", doc, re.MULTILINE)
    if not match:
        return doc
    indent = match[1]
    lines: list[str] = []
    for name, option in options_of(group).items():
        default = defaults.get(name, option.default)
        shown = "" if default is UNSET else f", default {default!r}"
        lines.append(f"{indent}{name} : {option.type.expected}{shown}\n")
        none = f" None: {option.none}." if option.none else ""
        lines.append(f"{indent}    {option.help}{none}\n")
    return doc[: match.start()] + "".join(lines) + doc[match.end() :]
