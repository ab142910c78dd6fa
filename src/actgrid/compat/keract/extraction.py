"""Run a model and return what some of its layers give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from actgrid.attribution.compiled import compiled
from actgrid.models.calls import choose_calls
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import (
    prepare_inputs,
)
from actgrid.models.layers import Selection
from actgrid.models.tracing import build, trace_model

__all__ = [
    "AnyOf",
    "LayerActivations",
    "check_input",
    "operation_of",
    "run_layers",
    "unchanged_tensor",
]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class AnyOf:
    """Tells whether a layer is one of these. Equal ones share compiled functions."""

    layers: tuple[Any, ...]

    def __call__(self, layer: Any) -> bool:
        """Return whether a layer is one of these."""
        return any(layer is one for one in self.layers)


def unchanged_tensor(tensor: Any) -> Any:
    """Return a tensor as it is: a transform for `run_layers`."""
    return tensor


def operation_of(tensor: Any) -> Any:
    """Return which output of what kind of operation a symbolic tensor is."""
    return tensorflow().constant(f"{tensor.op.type}:{tensor.value_index}")


@dataclass(frozen=True)
class LayerActivations:
    """What a transform makes of the activations of layers, by layer path."""

    layers: AnyOf
    transform: Callable[[Any], Any]

    def __call__(self, model: Any, inputs: Any) -> dict[str, Any]:
        """Return the transformed output of each layer, by path."""
        calls = choose_calls(model, trace_model(model, inputs).calls, Selection(self.layers))
        return {call.info.path: self.transform(call.tensor) for call in calls}


def check_input(model: Any, x: Any) -> Any:
    """Return what a model takes as tensors; its layers and the names of its inputs are known then.

    Raises
    ------
    ShapeError, ModelError
        If the model does not take it.
    """
    inputs = prepare_inputs(model, x)
    build(model, inputs)
    return inputs


def run_layers(
    model: Any, x: Any, layers: AnyOf, transform: Callable[[Any], Any]
) -> dict[str, Any]:
    """Run a model, by a function that is kept: scripts ask for one image after the other."""
    inputs = check_input(model, x)
    if not layers.layers:
        return {}
    found: dict[str, Any] = compiled(model, LayerActivations(layers, transform))(inputs)
    return found
