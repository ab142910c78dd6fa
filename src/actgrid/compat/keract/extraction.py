"""Run a model and return the activations of some layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from actgrid.attribution.compiled import compile_function
from actgrid.models.calls import choose_calls
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
    """Predicate that selects a set of layers. Equal sets share compiled functions."""

    layers: tuple[Any, ...]

    def __call__(self, layer: Any) -> bool:
        """Return whether a layer is in the set."""
        return any(layer is member for member in self.layers)


def keep_tensor(tensor: Any) -> Any:
    """Return a tensor unchanged, as a transform for `run_layers`."""
    return tensor


def name_operation(tensor: Any) -> Any:
    """Return operation type and output index of a tensor, such as ``"Relu:0"``."""
    return tensorflow().constant(f"{tensor.op.type}:{tensor.value_index}")


@dataclass(frozen=True)
class LayerActivations:
    """Function that returns the transformed activations of layers by layer path."""

    layers: LayerSet
    transform: Callable[[Any], Any]

    def __call__(self, model: Any, inputs: Any) -> dict[str, Any]:
        """Return the transformed output of each layer by layer path."""
        calls = choose_calls(model, trace_model(model, inputs).calls, Selection(self.layers))
        return {call.info.path: self.transform(call.tensor) for call in calls}


def check_input(model: Any, x: Any) -> Any:
    """Convert `x` to the model's input tensors, and build the model.

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
    """Run a model with a cached function: layer path -> transformed activation."""
    inputs = check_input(model, x)
    if not layers.layers:
        return {}
    function = compile_function(model, LayerActivations(layers, transform))
    activations: dict[str, Any] = function(inputs)
    return activations
