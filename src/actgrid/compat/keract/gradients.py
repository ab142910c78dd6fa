"""Gradients with respect to activations and weights in the format of keract."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

from actgrid.attribution.loss_gradients import gradients
from actgrid.compat.keract.layer_names import RequestedLayers, select_any_layer
from actgrid.errors import (
    LayerError,
    OptionError,
    ShapeError,
)
from actgrid.models import load_model
from actgrid.models.inputs import (
    map_tensors,
)
from actgrid.models.model_errors import summarize_error

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
    """Compute the gradients of the loss with respect to the activations of layers.

    Parameters
    ----------
    model : keras.Model or str
        A model that was compiled with a loss, or anything that `actgrid.load_model` takes.
    x : array_like, dict or list
        The model's input with its batch axis, (N, ...), as for ``model.fit``.
    y : array_like, dict or list
        The targets, as for ``model.fit``.
    layer_names : str or iterable of str, optional
        Names of layers, as in `get_activations`. None: all layers.
    output_format : str, optional
        Format of the keys, as in `get_activations`.
    nested : bool, optional
        Whether to return the layers inside nested models instead of the nested models.
    layer_name : str or iterable of str, optional
        The name of `layer_names` in keract before version 4. None: `layer_names` is used.

    Returns
    -------
    dict
        Key -> gradient, with the shape of the activation. Inputs, and activations that are not of
        floating point, are left out. Activations that do not affect the loss have zero gradients.

    Raises
    ------
    LayerError
        If the model has no such layer, or only inputs are named. Also a KeyError.
    OptionError
        If the model was not compiled with a loss, or `output_format` is unknown. Also a ValueError.
    ShapeError
        If `x` does not fit the model, or `y` the loss. Also a ValueError.
    ModelError
        If the model cannot be run. Also a ValueError.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat import keract
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, name="conv"),
    ...     keras.layers.Flatten(name="flatten"),
    ...     keras.layers.Dense(2, name="dense"),
    ... ])
    >>> model.compile(loss="mse")
    >>> x, y = np.ones((1, 8, 8, 3)), np.ones((1, 2))
    >>> gradients = keract.get_gradients_of_activations(model, x, y, "conv")
    >>> gradients["conv"].shape
    (1, 6, 6, 4)
    """
    network: Any = load_model(model)
    requested = RequestedLayers.from_names(
        network, x, layer_names if layer_name is None else layer_name, nested
    )
    if not requested.nodes:
        raise LayerError("layer_names must name at least one layer: got only inputs")
    loss = _TotalLoss.from_model(network)
    activations = gradients(network, x, y, loss=loss, layers=requested.layers).activations
    return replace(requested, inputs={}).format_results(network, x, activations, output_format)


def get_gradients_of_trainable_weights(model: Any, x: Any, y: Any) -> dict[str, Array]:
    """Compute the gradients of the loss with respect to the trainable weights.

    Parameters
    ----------
    model : keras.Model or str
        A model that was compiled with a loss, or anything that `actgrid.load_model` takes.
    x : array_like, dict or list
        The model's input with its batch axis, (N, ...), as for ``model.fit``.
    y : array_like, dict or list
        The targets, as for ``model.fit``.

    Returns
    -------
    dict of str to ndarray
        Name of the weight, such as ``"conv2d/kernel:0"`` -> gradient, with the weight's shape.

    Raises
    ------
    OptionError
        If the model was not compiled with a loss. Also a ValueError.
    ShapeError
        If `x` does not fit the model, or `y` the loss. Also a ValueError.
    ModelError
        If the model cannot be run. Also a ValueError.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat import keract
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, name="conv"),
    ...     keras.layers.Flatten(name="flatten"),
    ...     keras.layers.Dense(2, name="dense"),
    ... ])
    >>> model.compile(loss="mse")
    >>> x, y = np.ones((1, 8, 8, 3)), np.ones((1, 2))
    >>> list(keract.get_gradients_of_trainable_weights(model, x, y))
    ['conv/kernel:0', 'conv/bias:0', 'dense/kernel:0', 'dense/bias:0']
    """
    network: Any = load_model(model)
    loss = _TotalLoss.from_model(network)
    weights = gradients(network, x, y, loss=loss, layers=select_any_layer).weights
    return {f"{path}:0": gradient for path, gradient in weights.items()}


@dataclass(frozen=True)
class _TotalLoss:
    """Loss function of a compiled model, over all outputs and with regularization.

    Attributes
    ----------
    model
        The compiled model.
    compile_loss
        Keras's loss object, which changes if the model is compiled again.
    """

    model: Any
    compile_loss: Any

    @classmethod
    def from_model(cls, model: Any) -> _TotalLoss:
        """Create the loss function from a compiled model.

        Returns
        -------
        _TotalLoss
            The loss over all outputs.

        Raises
        ------
        OptionError
            If the model was not compiled with a loss.
        """
        if getattr(model, "loss", None) is None:
            raise OptionError(
                "the model was not compiled with a loss: compile the model first, for instance by "
                "model.compile(loss='mse', optimizer='adam')"
            )
        return cls(model, getattr(model, "_compile_loss", None))

    def __call__(self, targets: Any, outputs: Any) -> Any:
        """Return the loss of model outputs for targets, as a symbolic scalar."""
        try:
            return self.model.compute_loss(y=targets, y_pred=outputs)
        except (ValueError, TypeError, KeyError) as error:
            shapes = map_tensors(lambda tensor: tuple(tensor.shape), targets)
            raise ShapeError(
                f"y of shape {shapes} does not fit the model's loss: {summarize_error(error)}"
            ) from error
