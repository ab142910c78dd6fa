"""Registry of the attribution methods that the modules of this package declare."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from actgrid.attribution.declaration import check_option_names, check_values, import_families
from actgrid.attribution.method import DECLARED_METHODS, Method, Need
from actgrid.errors import CapabilityError, OptionError, suggest
from actgrid.models.network import Network, describe_network, is_compiled, is_differentiable
from actgrid.models.networks import get_network, list_known_layers
from actgrid.models.types import LayerLike, ModelLike
from actgrid.options import MethodOptions

__all__ = [
    "check_needs",
    "check_options",
    "find_method",
    "find_usable_methods",
    "get_methods",
    "list_layerless_methods",
]

_NEED_NAMES = {
    "attention": "attention layers",
    "gradients": "gradients",
    "layer": "a spatial layer",
    "replacement": "layers whose outputs can be replaced",
}


@lru_cache(maxsize=1)
def get_methods() -> dict[str, Method]:
    """Return all attribution methods by name.

    Methods are grouped by module. Modules are ordered by their needs (gradients of the input, a
    layer, attention, none), then by the year of their first paper.
    """
    families = import_families(str(__package__), DECLARED_METHODS)
    families.sort(key=_get_sort_key)
    return {method.name: method for family in families for method in family}


def _get_sort_key(family: Sequence[Method]) -> tuple[int, int]:
    needs = {need for method in family for need in method.needs}
    groups = {"attention": 2, "layer": 1, "gradients": 0}
    group = next((group for need, group in groups.items() if need in needs), 3)
    return group, min(method.year for method in family)


def list_layerless_methods(network: Network | None = None) -> str:
    """Return the names of the methods that need no layer, separated by commas.

    Parameters
    ----------
    network
        Leave out methods that need what this network lacks.
    """
    methods = get_methods() if network is None else find_usable_methods(network)
    return ", ".join(
        name
        for name, method in methods.items()
        if not {"attention", "layer"}.intersection(method.needs)
    )


def find_method(name: object) -> Method:
    """Return the attribution method of a name.

    Raises
    ------
    OptionError
        If no method has this name.
    """
    methods = get_methods()
    if not isinstance(name, str) or name not in methods:
        hint = suggest(name, methods) if isinstance(name, str) else ""
        raise OptionError(f"method must be one of {', '.join(methods)}, not {name!r}{hint}")
    return methods[name]


def check_options(
    methods: Sequence[Method], layer: LayerLike | None, options: Mapping[str, Any]
) -> None:
    """Check that methods accept the given layer and options.

    Parameters
    ----------
    options
        Option values by name. Each must be an option of at least one method.

    Raises
    ------
    OptionError
        If no method takes a layer that is given, or an option is unknown or invalid.
    """
    names = ", ".join(method.name for method in methods)
    if layer is not None and not any(method.takes_layer for method in methods):
        raise OptionError(f"{names}: layer must be None for methods of the input: leave layer out")
    check_option_names(methods, options)
    check_values(options, MethodOptions)


def check_needs(methods: Iterable[Method], model: ModelLike) -> None:
    """Raise CapabilityError if a network lacks a capability that a method needs."""
    network = get_network(model)
    for method in methods:
        missing = _list_missing_needs(method, network)
        if missing:
            usable = find_usable_methods(network)
            other = "" if is_compiled(network) else ", or a Keras model or a SavedModel"
            raise CapabilityError(
                f"{method.name} needs {' and '.join(missing)}, which {describe_network(network)} "
                f"does not provide: use one of {', '.join(usable)}{other}"
            )


def find_usable_methods(network: Network) -> dict[str, Method]:
    """Return the attribution methods for which a network has all capabilities, by name."""
    return {
        name: method
        for name, method in get_methods().items()
        if not _list_missing_needs(method, network)
    }


def _list_missing_needs(method: Method, network: Network) -> list[str]:
    """Return the names of the capabilities that a method needs and a network lacks."""
    has_capability: dict[Need, Callable[[], bool]] = {
        "attention": lambda: _has_attention(network),
        "gradients": lambda: is_differentiable(network),
        # A network outside TensorFlow computes the layers in the operation that runs it.
        "layer": lambda: is_compiled(network) or not is_differentiable(network),
        "replacement": lambda: is_compiled(network),
    }
    return [_NEED_NAMES[need] for need in method.needs if not has_capability[need]()]


def _has_attention(network: Network) -> bool:
    """Return whether a network has attention layers, or its layers are not known yet."""
    if not is_compiled(network):
        return False
    infos = list_known_layers(network)
    return infos is None or any(info.kind == "attention" for info in infos if len(info.shape) == 4)
