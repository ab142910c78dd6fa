"""The outputs of chosen layers of a Keras model, from one compiled function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.models.calls import choose_calls
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import prepare_inputs
from actgrid.models.layers import LayerInfo, Selection, model_operations
from actgrid.models.tracing import build, trace_model

__all__ = ["KerasLayerFunction"]

# What becomes of a layer's activation inside the compiled function, see `KerasLayerFunction.run`.
Transform = Callable[..., Any]


class KerasLayerFunction:
    """Runs a Keras model and returns the outputs of chosen layers: a `LayerFunction`.

    Raises
    ------
    LayerError
        If no layer matches an item of the selection.
    """

    def __init__(self, model: Any, selection: Selection, training: bool) -> None:
        self.model = model
        self.trace_count = 0
        self._selection = selection
        self._training = training
        self._infos: dict[str, LayerInfo] = {}
        self._functions: dict[Transform, GraphFunction] = {}
        if model.built:
            selection.check(model, model_operations(model))

    @property
    def layers(self) -> dict[str, LayerInfo]:
        """Chosen layers by path; empty until the first call or `trace`."""
        return dict(self._infos)

    def __call__(self, x: Any) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs for a batch, as read-only arrays that share TensorFlow's memory."""
        return {path: _as_output(tensor) for path, tensor in self.run(x, _activation).items()}

    def trace(self, specs: Any, transform: Transform | None = None) -> dict[str, LayerInfo]:
        """Return what a call will extract, without running the model.

        Parameters
        ----------
        specs
            The model's input as TensorSpecs, whose batch axis may be free: calls that fit them
            trace the model no more.
        transform
            That of the calls of `run` that are to come; None: calls of the function itself.

        Raises
        ------
        ShapeError, LayerError, ModelError
            As for a call.
        """
        inputs = prepare_inputs(self.model, specs)
        self._function(transform or _activation).trace(inputs)
        return self.layers

    def run(self, x: Any, transform: Transform, *arguments: Any) -> dict[str, Any]:
        """Return what a transform makes of each activation, inside the compiled function.

        Only that leaves the function, and the device. Equal transforms share one compiled
        function, which is kept.

        Parameters
        ----------
        x
            As for a call.
        transform
            Hashable; takes a `LayerInfo`, the activation as a symbolic tensor, and `arguments`,
            and returns a structure of tensors.
        arguments
            Tensors, whose values may differ from call to call.

        Returns
        -------
        dict
            Layer path -> structure of TensorFlow's tensors.

        Raises
        ------
        ShapeError, LayerError, ModelError
            As for a call.
        """
        inputs = prepare_inputs(self.model, x)
        build(self.model, inputs)
        outputs: dict[str, Any] = self._function(transform)(inputs, *arguments)
        return outputs

    def _function(self, transform: Transform) -> GraphFunction:
        if transform not in self._functions:
            self._functions.setdefault(transform, self._compiled(transform))
        return self._functions[transform]

    def _compiled(self, transform: Transform) -> GraphFunction:
        def trace(inputs: Any, *arguments: Any) -> dict[str, Any]:
            self.trace_count += 1
            calls = trace_model(self.model, inputs, self._training).calls
            calls = choose_calls(self.model, calls, self._selection)
            self._infos = {call.info.path: call.info for call in calls}
            return {call.info.path: transform(call.info, call.tensor, *arguments) for call in calls}

        # Relaxed shapes keep a last, smaller batch from being traced anew each time.
        return GraphFunction(trace, relax_shapes=True)


def _activation(info: LayerInfo, tensor: Any) -> Any:
    """Take an activation as it is: the transform of a call."""
    return tensor


def _as_output(tensor: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.asarray(tensor)
    # Layers that pass their input on share its memory: writing to one would change the other.
    array.setflags(write=False)
    return array
