"""Declarations of attribution methods, and of metrics of their maps, by decorators."""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from actgrid.errors import OptionError, suggest
from actgrid.option_groups import get_options

__all__ = [
    "Declaration",
    "check_option_names",
    "check_values",
    "import_families",
    "make_checked",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Declaration = TypeVar("_Declaration", bound="Declaration")


@dataclass(frozen=True)
class Declaration:
    """A function with a public name and its source in the literature.

    Attributes
    ----------
    name
        Public name.
    run
        The function. Its keyword-only parameters are its options.
    source
        Author, year and URL of the paper.
    """

    name: str
    run: Callable[..., Any]
    source: str

    @property
    def summary(self) -> str:
        """Summary of the function: the first line of its docstring."""
        return (inspect.getdoc(self.run) or "").splitlines()[0]

    @property
    def options(self) -> dict[str, Any]:
        """Default of each option by name: the keyword-only parameters of `run`."""
        return {
            parameter.name: parameter.default
            for parameter in inspect.signature(self.run).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    @property
    def year(self) -> int:
        """Year of publication of the paper."""
        match = re.search(r"\b\d{4}\b", self.source)
        assert match is not None, self.source
        return int(match[0])


def make_checked(function: _Function, group: type) -> _Function:
    """Return a function that checks its keywords by the definitions of an option group."""

    @functools.wraps(function)
    def run_checked(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **check_values(options, group))

    return cast(_Function, run_checked)


def check_values(options: Mapping[str, Any], group: type) -> dict[str, Any]:
    """Check option values by the definitions of an option group.

    Returns
    -------
    dict
        Checked values by name; options without a definition are unchanged.

    Raises
    ------
    OptionError
        If a value is invalid. Also a ValueError.
    """
    definitions = get_options(group)
    return {
        name: definitions[name].check(name, value) if name in definitions else value
        for name, value in options.items()
    }


def check_option_names(declarations: Iterable[Declaration], options: Iterable[str]) -> None:
    """Raise OptionError if an option belongs to none of several declared functions."""
    declarations = list(declarations)
    accepted = list(dict.fromkeys(name for entry in declarations for name in entry.options))
    names = ", ".join(entry.name for entry in declarations)
    for option in options:
        if option not in accepted:
            raise OptionError(
                f"{names}: unknown option {option!r}{suggest(option, accepted)}; "
                f"options: {', '.join(accepted) or 'none'}"
            )


def import_families(
    package: str, declared: Mapping[str, list[_Declaration]]
) -> list[list[_Declaration]]:
    """Import all modules of a package; return the declarations of each module that has any.

    Parameters
    ----------
    package
        Name of the package.
    declared
        Name of a module -> its declarations; the decorators add to it.
    """
    path = importlib.import_module(package).__path__
    names = [f"{package}.{module.name}" for module in pkgutil.iter_modules(path)]
    for name in names:
        importlib.import_module(name)
    return [declared[name] for name in names if name in declared]
