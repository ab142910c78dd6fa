"""Gradients of activations and weights, as keract returns them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from actgrid.attribution.loss_gradients import gradients
from actgrid.compat.keract.layer_names import RequestedLayers, any_layer
from actgrid.errors import (
    LayerError,
    OptionError,
    ShapeError,
)
from actgrid.models import load_model
from actgrid.models.inputs import (
    map_tensors,
)
from actgrid.models.refusals import reason

__all__ = ["get_gradients_of_activations", "get_gradients_of_trainable_weights"]

Array = npt.NDArray[Any]
Activations = dict[Any, Any]


def get_gradients_of_activations(
    model: Any,
    x: Any,
    y: Any,
    layer_names: str | Iterable[str] | None = None,
    output_format: str = "simple",
    nested: bool = False,
    *,
    layer_name: str | Iterable[str] | None = None,
) -> Activations:
    """Return the gradients of the loss with respect to the activations of layers.

    Parameters
    ----------
    model
        A model that was compiled with a loss.
    x, y
        Inputs and what the outputs should be, as for ``model.fit``.
    layer_names, output_format, nested, layer_name
        As for `get_activations`.

    Returns
    -------
    dict
        Like that of `get_activations` without the inputs. What is not of floating point has no
        gradient and is left out; what the loss does not depend on has zeros.

    Raises
    ------
    LayerError, OptionError, ShapeError, ModelError
        As for `get_activations`; OptionError also if the model was not compiled with a loss.
    """
    network: Any = load_model(model)
    wanted = RequestedLayers.of(
        network, x, layer_names if layer_name is None else layer_name, nested
    )
    if not wanted.nodes:
        raise LayerError("gradients are those of layers, and only inputs are named")
    found = gradients(network, x, y, loss=_TotalLoss.of(network), layers=wanted.layers)
    return replace(wanted, inputs={}).keyed(network, x, found.activations, output_format)


def get_gradients_of_trainable_weights(model: Any, x: Any, y: Any) -> dict[str, Array]:
    """Return the gradients of the loss with respect to the trainable weights.

    Parameters
    ----------
    model
        A model that was compiled with a loss.
    x, y
        Inputs and what the outputs should be, as for ``model.fit``.

    Returns
    -------
    dict
        Name of the weight, such as ``"conv2d/kernel:0"``, -> gradient, of the weight's shape.

    Raises
    ------
    OptionError
        If the model was not compiled with a loss. Also a ValueError.
    ShapeError, ModelError
        If the model cannot be run on `x`, or `y` does not fit. Both are ValueErrors.
    """
    network: Any = load_model(model)
    found = gradients(network, x, y, loss=_TotalLoss.of(network), layers=any_layer)
    return {f"{path}:0": gradient for path, gradient in found.weights.items()}


@dataclass(frozen=True)
class _TotalLoss:
    """The loss that a model was compiled with: of all its outputs, with regularization.

    Attributes
    ----------
    compiled
        Keras's own loss: another one once the model is compiled anew.
    """

    model: Any
    compiled: Any

    @classmethod
    def of(cls, model: Any) -> _TotalLoss:
        """Return that of a model.

        Raises
        ------
        OptionError
            If it has none.
        """
        if getattr(model, "loss", None) is None:
            raise OptionError(
                "gradients are those of the loss: compile the model first, as by "
                "model.compile(loss='mse', optimizer='adam')"
            )
        return cls(model, getattr(model, "_compile_loss", None))

    def __call__(self, truth: Any, outputs: Any) -> Any:
        """Return the loss as a symbolic scalar."""
        try:
            return self.model.compute_loss(y=truth, y_pred=outputs)
        except (ValueError, TypeError, KeyError) as error:
            shapes = map_tensors(lambda tensor: tuple(tensor.shape), truth)
            raise ShapeError(
                f"y of {shapes} does not fit the model's loss: {reason(error)}"
            ) from error
