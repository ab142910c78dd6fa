"""Declaration of attribution methods, with the capabilities that they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from actgrid.attribution.declaration import Declaration, make_checked
from actgrid.options import MethodOptions

__all__ = ["DECLARED_METHODS", "Method", "Need", "method"]

# Capabilities of a network beyond computing the output of a batch.
Need = Literal["attention", "gradients", "layer", "replacement"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method(Declaration):
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
        whose positions correspond to those of the input; ``"attention"``, layers of attention;
        ``"replacement"`` of the outputs of layers.
    explains_several
        Whether the method explains all explained tensors of a batch together. Other methods explain
        one after another.
    packages
        Names of the optional packages that the method needs.
    """

    needs: tuple[Need, ...] = ()
    explains_several: bool = False
    packages: tuple[str, ...] = ()

    @property
    def takes_layer(self) -> bool:
        """True if the method uses the activations of a layer."""
        return "layer" in self.needs


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
        run = make_checked(function, MethodOptions)
        declared = Method(name, run, source, tuple(needs), explains_several, tuple(packages))
        DECLARED_METHODS.setdefault(function.__module__, []).append(declared)
        return run

    return declare
