"""The outputs of chosen layers of a network that is run as it is, without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from actgrid.errors import CapabilityError, ModelError
from actgrid.models.inputs import prepare_inputs
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.network import Network
from actgrid.models.networks import list_network_layers, run_network

__all__ = ["ListedLayers"]


class ListedLayers:
    """Runs a network and returns the outputs of chosen layers: a `LayerFunction`.

    Raises
    ------
    CapabilityError
        If the network is to run as in training.
    """

    trace_count = 0

    def __init__(self, network: Network, selection: Selection, training: bool) -> None:
        if training:
            raise CapabilityError(
                f"the network {network.name!r} runs only as in use: leave training out"
            )
        self._network = network
        self._selection = selection
        self._infos: dict[str, LayerInfo] = {}

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Chosen layers by path; empty until they are known."""
        return dict(self._infos)

    def __call__(self, x: Any) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs for a batch, as read-only arrays."""
        inputs = prepare_inputs(self._network, x)
        if not self._infos:
            self._choose(list_network_layers(self._network, inputs))
        outputs = run_network(self._network, inputs, list(self._infos))
        for array in outputs.values():
            array.setflags(write=False)
        return outputs

    def trace(
        self, specs: Any, transform: Callable[..., Any] | None = None
    ) -> dict[str, LayerInfo]:
        """Return the chosen layers, if the network tells them before it has run."""
        prepare_inputs(self._network, specs)
        try:
            infos = self._network.list_layers()
        except ModelError:
            return {}
        self._choose(infos)
        return self.layers

    def run(self, x: Any, transform: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Refuse to run a transform, which only a compiled function can."""
        raise CapabilityError(
            f"the network {self._network.name!r} is not compiled by TensorFlow, which "
            "backend='tensorflow' and the viewer need: choose another backend"
        )

    def _choose(self, infos: list[LayerInfo]) -> None:
        self._infos = {info.path: info for info in self._selection.choose(infos)}
