"""Run a model and return the activations of some layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from actgrid.models.calls import choose_calls
from actgrid.models.compiled import compile_function
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import (
    prepare_inputs,
)
from actgrid.models.layers import Selection
from actgrid.models.tracing import build_model, trace_model

__all__ = [
    "LayerActivations",
    "LayerSet",
    "check_input",
    "keep_tensor",
    "name_operation",
    "run_layers",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class LayerSet:
    """Predicate that is True for the layers of a set.

    Equal sets share compiled functions.
    """

    layers: tuple[Any, ...]

    def __call__(self, layer: Any) -> bool:
        """Return whether a layer is in the set of layers."""
        return any(layer is member for member in self.layers)


def keep_tensor(tensor: Any) -> Any:
    """Return a tensor unchanged.

    This is the transform for `run_layers` that returns activations as they are.
    """
    return tensor


def name_operation(tensor: Any) -> Any:
    """Return the operation type and output index of a tensor, such as ``"Relu:0"``."""
    return tensorflow().constant(f"{tensor.op.type}:{tensor.value_index}")


@dataclass(frozen=True)
class LayerActivations:
    """Function of a model and its input that returns activations of layers.

    Each activation is changed by `transform`.
    """

    layers: LayerSet
    transform: Callable[[Any], Any]

    def __call__(self, model: Any, inputs: Any) -> dict[str, Any]:
        """Run the model: layer path -> transformed output of each layer of the set."""
        calls = choose_calls(model, trace_model(model, inputs).calls, Selection(self.layers))
        return {call.info.path: self.transform(call.tensor) for call in calls}


def check_input(model: Any, x: Any) -> Any:
    """Convert data to the input tensors of a model, and build the model.

    Returns
    -------
    structure of tensor
        The inputs.

    Raises
    ------
    ShapeError
        If `x` does not fit the model.
    ModelError
        If the model cannot be run.
    """
    inputs = prepare_inputs(model, x)
    build_model(model, inputs)
    return inputs


def run_layers(
    model: Any, x: Any, layers: LayerSet, transform: Callable[[Any], Any]
) -> dict[str, Any]:
    """Run a model in a cached compiled function, and return activations of layers.

    Parameters
    ----------
    layers
        The layers.
    transform
        Function of the activation of a layer that returns a tensor.

    Returns
    -------
    dict
        Layer path -> transformed activation.
    """
    inputs = check_input(model, x)
    if not layers.layers:
        return {}
    function = compile_function(model, LayerActivations(layers, transform))
    activations: dict[str, Any] = function(inputs)
    return activations
