"""Compute outputs of selected layers of a network outside TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt

from actgrid.errors import CapabilityError, ModelError
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import prepare_inputs
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.model_cache import BoundedCache
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
        self._functions = BoundedCache()

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
        self._describe(inputs)
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
        """Run the network, and apply a transform to the output of each selected layer.

        The transform is compiled. The network computes only the layers for which the transform
        returns tensors.
        """
        inputs = prepare_inputs(self._network, x)
        self._describe(inputs)
        function = self._functions.get_or_compute(
            transform, lambda: _TransformFunction(self._infos, transform)
        )
        empty = function.find_empty_results(*arguments)
        paths = [path for path in self._infos if path not in empty]
        outputs = run_network(self._network, inputs, paths)
        results = function(outputs, *arguments)
        return {path: empty[path] if path in empty else results[path] for path in self._infos}

    def _describe(self, inputs: Any) -> None:
        """Find the selected layers, unless they are known."""
        if not self._infos:
            self._select(list_network_layers(self._network, inputs))

    def _select(self, infos: list[LayerInfo]) -> None:
        self._infos = {info.path: info for info in self._selection.select(infos)}


class _TransformFunction:
    """Compiled function that applies a transform to outputs of layers: layer path -> output."""

    def __init__(self, infos: dict[str, LayerInfo], transform: Callable[..., Any]) -> None:
        self._infos = infos
        self._transform = transform
        # With relaxed shapes a last, smaller batch needs no trace of its own.
        self._function = GraphFunction(self._apply, relax_shapes=True)
        self._empty_results: dict[str, Any] | None = None

    def _apply(self, outputs: dict[str, Any], *arguments: Any) -> dict[str, Any]:
        return {
            path: self._transform(self._infos[path], output, *arguments)
            for path, output in outputs.items()
        }

    def __call__(self, outputs: dict[str, npt.NDArray[Any]], *arguments: Any) -> dict[str, Any]:
        """Apply the transform to outputs of layers."""
        tensors = {path: tensorflow().constant(output) for path, output in outputs.items()}
        results: dict[str, Any] = self._function(tensors, *arguments)
        return results

    def find_empty_results(self, *arguments: Any) -> dict[str, Any]:
        """Return the results of the layers for which the transform returns no tensors, by path."""
        if self._empty_results is None:
            tf = tensorflow()
            specs = {
                path: tf.TensorSpec((None, *info.shape[1:]), info.dtype)
                for path, info in self._infos.items()
            }
            results: dict[str, Any] = {}
            trace = GraphFunction(
                lambda outputs, *rest: results.update(self._apply(outputs, *rest))
            )
            trace.trace(specs, *arguments)
            self._empty_results = {
                path: result for path, result in results.items() if not tf.nest.flatten(result)
            }
        return self._empty_results
