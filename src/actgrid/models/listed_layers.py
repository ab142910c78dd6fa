"""Compute outputs of selected layers of a network outside TensorFlow."""

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
    """Callable that runs a network outside TensorFlow and returns outputs of layers.

    Implements `LayerFunction`.

    Raises
    ------
    CapabilityError
        If `training` is True.
    """

    trace_count = 0

    def __init__(self, network: Network, selection: Selection, training: bool) -> None:
        if training:
            raise CapabilityError(
                f"training=True is not supported by the network {network.name!r}; expected False"
            )
        self._network = network
        self._selection = selection
        self._infos: dict[str, LayerInfo] = {}

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Description of each selected layer: layer path -> `LayerInfo`.

        The dict is empty until the first call or trace.
        """
        return dict(self._infos)

    def __call__(self, x: Any) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs of the selected layers for a batch.

        Returns
        -------
        dict
            Layer path -> read-only array.
        """
        inputs = prepare_inputs(self._network, x)
        if not self._infos:
            self._select(list_network_layers(self._network, inputs))
        outputs = run_network(self._network, inputs, list(self._infos))
        for array in outputs.values():
            array.setflags(write=False)
        return outputs

    def trace(
        self, specs: Any, transform: Callable[..., Any] | None = None
    ) -> dict[str, LayerInfo]:
        """Return the descriptions of the selected layers, without running the network.

        Returns
        -------
        dict
            Layer path -> `LayerInfo`. Empty if the shapes are known only after a run.
        """
        prepare_inputs(self._network, specs)
        try:
            infos = self._network.list_layers()
        except ModelError:
            return {}
        self._select(infos)
        return self.layers

    def run(self, x: Any, transform: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Raise CapabilityError, because the network does not run inside TensorFlow.

        Transforms of layer outputs need a network that TensorFlow can compile.
        """
        raise CapabilityError(
            f"the network {self._network.name!r} does not run inside TensorFlow, which "
            "backend='tensorflow' and the viewer need: choose another backend"
        )

    def _select(self, infos: list[LayerInfo]) -> None:
        self._infos = {info.path: info for info in self._selection.select(infos)}
