"""Declaration of attribution methods, with the capabilities that they need."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

from actgrid.option_groups import get_options
from actgrid.options import MethodOptions

__all__ = ["DECLARED_METHODS", "Method", "Need", "check_values", "method"]

# Capabilities of a network beyond computing the output of a batch.
Need = Literal["attention", "gradients", "layer"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """An attribution method: a function that computes maps, and its requirements.

    Attributes
    ----------
    name
        Value of the option `method` of `actgrid.explain`.
    run
        Function that takes an `ExplainedBatch`, `layer` if the method uses a layer, and options,
        and returns a `BatchAttribution`; a list of them if the method explains several tensors.
    source
        Author, year and URL of the paper.
    needs
        Required capabilities of the network: ``"gradients"`` of the score; ``"layer"``, a layer
        whose positions correspond to those of the input; ``"attention"``, layers of attention.
    explains_several
        Whether the method explains all explained tensors of a batch together. Other methods explain
        one after another.
    packages
        Names of the optional packages that the method needs.
    """

    name: str
    run: Callable[..., Any]
    source: str
    needs: tuple[Need, ...] = ()
    explains_several: bool = False
    packages: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Summary of the method: the first line of the docstring of `run`."""
        return (inspect.getdoc(self.run) or "").splitlines()[0]

    @property
    def takes_layer(self) -> bool:
        """True if the method uses the activations of a layer."""
        return "layer" in self.needs

    @property
    def options(self) -> dict[str, Any]:
        """Default of each option by name: the keyword-only parameters of `run`."""
        parameters = inspect.signature(self.run).parameters.values()
        return {
            parameter.name: parameter.default
            for parameter in parameters
            if parameter.kind is parameter.KEYWORD_ONLY
        }

    @property
    def year(self) -> int:
        """Year of publication of the paper."""
        match = re.search(r"\b\d{4}\b", self.source)
        assert match is not None, self.source
        return int(match[0])


def check_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check method options by their definitions in `actgrid.options.MethodOptions`.

    Returns
    -------
    dict
        Checked values by name; options without a definition are unchanged.

    Raises
    ------
    OptionError
        If a value is invalid. Also a ValueError.
    """
    definitions = get_options(MethodOptions)
    return {
        name: definitions[name].check(name, value) if name in definitions else value
        for name, value in options.items()
    }


# Declared methods by the name of their module, in the order of declaration.
DECLARED_METHODS: dict[str, list[Method]] = {}


def method(
    name: str,
    source: str,
    *,
    needs: Iterable[Need] = (),
    explains_several: bool = False,
    packages: Iterable[str] = (),
) -> Callable[[_Function], _Function]:
    """Return a decorator that declares a function as an attribution method.

    The decorated function checks its options. For the parameters see `Method`.
    """

    def declare(function: _Function) -> _Function:
        @functools.wraps(function)
        def run_checked(*arguments: Any, **options: Any) -> Any:
            return function(*arguments, **check_values(options))

        declared = Method(
            name, run_checked, source, tuple(needs), explains_several, tuple(packages)
        )
        DECLARED_METHODS.setdefault(function.__module__, []).append(declared)
        return cast(_Function, run_checked)

    return declare
