"""Find attribution methods by name: every method that a module of this folder declares."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from actgrid.attribution.method import DECLARED, Method, check_values
from actgrid.errors import CapabilityError, OptionError, suggest
from actgrid.models.network import Network, describe_network, is_compiled, is_differentiable
from actgrid.models.networks import network_of
from actgrid.models.types import LayerLike, ModelLike

__all__ = ["all_methods", "check_needs", "check_options", "find_method", "layerless_methods"]

_WORDS = {"gradients": "gradients", "layer": "a spatial layer"}


@lru_cache(maxsize=1)
def all_methods() -> dict[str, Method]:
    """Return every method by name.

    Families, one module each, come in the order of what they need: gradients of the input, a
    layer, no more than a function of a batch; then by the year of their first paper.
    """
    room = importlib.import_module(str(__package__))
    names = [f"{__package__}.{module.name}" for module in pkgutil.iter_modules(room.__path__)]
    for name in names:
        importlib.import_module(name)
    families = sorted((DECLARED[name] for name in names if name in DECLARED), key=_family_order)
    return {method.name: method for family in families for method in family}


def _family_order(family: Sequence[Method]) -> tuple[int, int]:
    needs = {need for method in family for need in method.needs}
    group = 1 if "layer" in needs else 0 if "gradients" in needs else 2
    return group, min(method.year for method in family)


def layerless_methods() -> str:
    """Return the names of the methods that need no layer, for error messages."""
    return ", ".join(name for name, method in all_methods().items() if not method.takes_layer)


def find_method(name: object) -> Method:
    """Return a method by its name.

    Raises
    ------
    OptionError
        If there is no method of that name.
    """
    methods = all_methods()
    if not isinstance(name, str) or name not in methods:
        hint = suggest(name, methods) if isinstance(name, str) else ""
        raise OptionError(f"method must be one of {', '.join(methods)}, not {name!r}{hint}")
    return methods[name]


def check_options(
    methods: Sequence[Method], layer: LayerLike | None, options: Mapping[str, Any]
) -> None:
    """Raise OptionError unless the methods take a layer that is given, and each option.

    Parameters
    ----------
    options
        Values by name.
    """
    names = ", ".join(method.name for method in methods)
    if layer is not None and not any(method.takes_layer for method in methods):
        raise OptionError(f"{names}: the input is looked at, not a layer: leave layer out")
    known = list(dict.fromkeys(option for method in methods for option in method.options))
    for option in options:
        if option not in known:
            raise OptionError(
                f"{names}: unknown option {option!r}{suggest(option, known)}; "
                f"options are {', '.join(known) or 'none'}"
            )
    check_values(options)


def check_needs(methods: Iterable[Method], model: ModelLike) -> None:
    """Raise CapabilityError unless the network of a model gives what each method needs."""
    network = network_of(model)
    for method in methods:
        missing = _missing_needs(method, network)
        if missing:
            others = [
                name for name, other in all_methods().items() if not _missing_needs(other, network)
            ]
            raise CapabilityError(
                f"{method.name} needs {' and '.join(missing)}, which {describe_network(network)} "
                f"does not give: choose one of {', '.join(others)}, or give a Keras model"
            )


def _missing_needs(method: Method, network: Network) -> list[str]:
    """Return in words what a method needs and a network does not give."""
    given = {"gradients": is_differentiable(network), "layer": is_compiled(network)}
    return [_WORDS[need] for need in method.needs if not given[need]]
