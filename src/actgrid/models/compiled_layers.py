"""Compute outputs of selected layers of a model in a compiled TensorFlow function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.models.calls import choose_calls
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import prepare_inputs
from actgrid.models.layers import LayerInfo, Selection, collect_operations
from actgrid.models.model_cache import BoundedCache
from actgrid.models.network import is_differentiable, is_network
from actgrid.models.networks import get_network
from actgrid.models.tracing import build_model

__all__ = ["CompiledLayers"]

# Function of a layer's activation inside the compiled function; see `CompiledLayers.run`.
Transform = Callable[..., Any]


class CompiledLayers:
    """Callable that runs a compiled model and returns outputs of some layers.

    Implements `LayerFunction`.

    Raises
    ------
    LayerError
        If an item of the selection matches no layer.
    """

    def __init__(self, model: Any, selection: Selection, training: bool) -> None:
        self.model = model
        self.trace_count = 0
        self._selection = selection
        self._training = training
        self._infos: dict[str, LayerInfo] = {}
        self._functions = BoundedCache()
        if not is_network(model) and model.built:
            selection.check_model(model, collect_operations(model))

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
        return {
            path: _convert_output(tensor) for path, tensor in self.run(x, _keep_activation).items()
        }

    def trace(self, specs: Any, transform: Transform | None = None) -> dict[str, LayerInfo]:
        """Trace the model without running it, and describe the selected layers.

        Parameters
        ----------
        specs
            The model's input as TensorSpecs; the batch axis may be None. Later calls with inputs
            that fit these specs need no further trace.
        transform
            The transform of later calls of `run`; None for calls of the function itself.

        Returns
        -------
        dict
            Layer path -> `LayerInfo`.

        Raises
        ------
        ShapeError, LayerError, ModelError
            As for a call.
        """
        inputs = prepare_inputs(self.model, specs)
        self._get_function(transform or _keep_activation).trace(inputs)
        return self.layers

    def run(self, x: Any, transform: Transform, *arguments: Any) -> dict[str, Any]:
        """Run the model and apply a transform to the output of each selected layer.

        Only the results of the transform leave the device. Equal transforms share one compiled
        function, which is cached.

        Parameters
        ----------
        x
            As for a call.
        transform
            Hashable function of a `LayerInfo`, the activation as a symbolic tensor, and
            `arguments`. It returns a structure of tensors.
        *arguments
            Tensors passed to `transform`. Their values may differ from call to call.

        Returns
        -------
        dict of {str: structure of tf.Tensor}
            Layer path -> result of the transform.

        Raises
        ------
        ShapeError, LayerError, ModelError
            As for a call.
        """
        inputs = prepare_inputs(self.model, x)
        build_model(self.model, inputs)
        outputs: dict[str, Any] = self._get_function(transform)(inputs, *arguments)
        return outputs

    def _get_function(self, transform: Transform) -> GraphFunction:
        return self._functions.get_or_compute(transform, lambda: self._compile(transform))

    def _compile(self, transform: Transform) -> GraphFunction:
        def trace(inputs: Any, *arguments: Any) -> dict[str, Any]:
            self.trace_count += 1
            network = get_network(self.model)
            assert is_differentiable(network)
            calls = network.trace(inputs, self._training).calls
            calls = choose_calls(self.model, calls, self._selection)
            self._infos = {call.info.path: call.info for call in calls}
            return {call.info.path: transform(call.info, call.tensor, *arguments) for call in calls}

        # With relaxed shapes a last, smaller batch needs no trace of its own.
        return GraphFunction(trace, relax_shapes=True)


def _keep_activation(info: LayerInfo, tensor: Any) -> Any:
    """Return an activation unchanged.

    This is the transform of a call that returns activations as they are.
    """
    return tensor


def _convert_output(tensor: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.asarray(tensor)
    # Layers that return their input share its memory: a write would change both activations.
    array.setflags(write=False)
    return array
