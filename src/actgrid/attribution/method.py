"""Declare a function as an attribution method, with what it needs of a network."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from actgrid.option_groups import options_of
from actgrid.options import MethodOptions

__all__ = ["DECLARED", "Method", "Need", "check_values", "method"]

# What a network must give beside its output for a batch.
Need = Literal["gradients", "layer"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """An attribution method: how much each part of an image contributes to the score.

    Attributes
    ----------
    name
        Name of the method in `explain`.
    run
        From a `ExplainedBatch`, the layer if the method takes one, and options, to a `Attribution`.
    source
        Author, year and address of the paper.
    needs
        What it needs of a network beside the output for a batch: ``"gradients"`` of the score,
        or ``"layer"``, a layer with height and width.
    """

    name: str
    run: Callable[..., Any]
    source: str
    needs: tuple[Need, ...] = ()

    @property
    def summary(self) -> str:
        """Return the first line of the docstring of `run`."""
        return (inspect.getdoc(self.run) or "").splitlines()[0]

    @property
    def takes_layer(self) -> bool:
        """Return whether the method looks at a layer, not at the input alone."""
        return "layer" in self.needs

    @property
    def options(self) -> dict[str, Any]:
        """Return the options with their defaults: the keyword-only parameters of `run`."""
        parameters = inspect.signature(self.run).parameters.values()
        return {
            parameter.name: parameter.default
            for parameter in parameters
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    @property
    def year(self) -> int:
        """Return the year of the paper."""
        found = re.search(r"\b\d{4}\b", self.source)
        assert found is not None, self.source
        return int(found[0])


def check_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of methods, checked as `actgrid.options.MethodOptions` defines them.

    Raises
    ------
    OptionError
        If an option cannot have its value. Also a ValueError.
    """
    known = options_of(MethodOptions)
    return {
        name: known[name].check(name, value) if name in known else value
        for name, value in options.items()
    }


# Every method of the modules that were imported, by module, in the order of declaration.
DECLARED: dict[str, list[Method]] = {}


def method(
    name: str, source: str, *, needs: Iterable[Need] = ()
) -> Callable[[_Function], _Function]:
    """Return a decorator that declares a function as a method; see `Method`.

    Examples
    --------
    >>> @method("saliency", "Simonyan 2013, https://arxiv.org/abs/1312.6034", needs=["gradients"])
    ... def saliency(batch: ExplainedBatch, *, reduce: str = "max") -> Attribution: ...
    """

    def declare(function: _Function) -> _Function:
        @functools.wraps(function)
        def checked(*arguments: Any, **options: Any) -> Any:
            return function(*arguments, **check_values(options))

        declared = Method(name, checked, source, tuple(needs))
        DECLARED.setdefault(function.__module__, []).append(declared)
        return cast(_Function, checked)

    return declare
