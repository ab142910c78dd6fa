"""Choice of the attribution methods if the user names none."""

from __future__ import annotations

from collections.abc import Sequence

from actgrid.attribution.listed_target_layers import find_target_layer
from actgrid.attribution.method import Method
from actgrid.attribution.methods import find_usable_methods
from actgrid.errors import LayerError, ModelError
from actgrid.models.network import Network
from actgrid.models.networks import get_network
from actgrid.models.types import LayerLike, ModelLike

__all__ = [
    "COMPARED_METHODS",
    "DEFAULT_METHOD",
    "DEFAULT_METHODS",
    "find_compared_methods",
    "find_default_method",
]

# The method that explains a model with gradients.
DEFAULT_METHOD = "gradcam"
# The methods of which one explains a network.
DEFAULT_METHODS = (DEFAULT_METHOD, "scorecam", "occlusion")
# One method of each family, as methods of a family give similar maps. These methods take seconds
# and need no optional packages.
COMPARED_METHODS = ("gradcam", "smoothgrad", "integrated_gradients", "occlusion")
# The same for networks without gradients.
_COMPARED_WITHOUT_GRADIENTS = ("scorecam", "eigencam", "occlusion", "rise")


def find_default_method(model: ModelLike, layer: LayerLike | None = None) -> Method:
    """Return the method that explains a model if the user names none.

    It is the first of gradcam, scorecam and occlusion that works for the model.

    Parameters
    ----------
    layer
        The layer that the user chose; None: the default layer.
    """
    return _select_methods(model, DEFAULT_METHODS, layer)[0]


def find_compared_methods(model: ModelLike, layer: LayerLike | None = None) -> list[Method]:
    """Return the methods that are compared for a model if the user names none.

    Parameters
    ----------
    layer
        The layer that the user chose; None: the default layer.
    """
    has_gradients = DEFAULT_METHOD in find_usable_methods(get_network(model))
    names = COMPARED_METHODS if has_gradients else _COMPARED_WITHOUT_GRADIENTS
    return _select_methods(model, names, layer)


def _select_methods(
    model: ModelLike, names: Sequence[str], layer: LayerLike | None
) -> list[Method]:
    """Return the methods, of those with the given names, that work for a model."""
    network = get_network(model)
    usable = find_usable_methods(network)
    methods = [usable[name] for name in names if name in usable]
    has_gradients = DEFAULT_METHOD in usable
    if has_gradients or layer is not None or _has_target_layer(network):
        return methods
    return [method for method in methods if not method.takes_layer]


def _has_target_layer(network: Network) -> bool:
    """Return whether a layer of a network outside TensorFlow suits class activation maps."""
    if not network.inputs:
        return False
    explained = max(network.inputs, key=lambda info: len(info.shape))
    try:
        infos = network.list_layers()
        find_target_layer(network, infos, len(explained.shape), explained.name)
    except (LayerError, ModelError):
        return False
    return True
