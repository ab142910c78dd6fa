"""Activations of layers, as keract returns them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.keract.extraction import check_input, run_layers, unchanged_tensor
from actgrid.compat.keract.layer_names import RequestedLayers
from actgrid.errors import (
    LayerError,
    OptionError,
)
from actgrid.models import load_model
from actgrid.models.frameworks import keras
from actgrid.models.inputs import (
    map_tensors,
    partial_model,
)
from actgrid.models.layers import model_weights
from actgrid.models.refusals import reason

__all__ = ["get_activations"]

Array = npt.NDArray[Any]
Activations = dict[Any, Any]


def get_activations(
    model: Any,
    x: Any,
    layer_names: str | Iterable[str] | None = None,
    nodes_to_evaluate: Any = None,
    output_format: str = "simple",
    nested: bool = False,
    auto_compile: bool = True,
    *,
    layer_name: str | Iterable[str] | None = None,
) -> Activations:
    """Return the activations of layers for an input.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    x
        The model's input with its batch axis; a list of them for several inputs.
    layer_names
        A layer's name or several; None: all layers. Layers in nested models are named
        ``outer/inner``, and inputs by the names of their layers.
    nodes_to_evaluate
        Instead of layers: symbolic tensors such as ``model.layers[2].output``, and weights.
    output_format
        What the keys are: ``"simple"``, layers' names; ``"full"``, these with the TensorFlow
        operation that gives the output, such as ``"conv2d/Relu:0"``; ``"numbered"``, 0, 1, ...
    nested
        Whether the layers inside nested models are given instead of these models.
    auto_compile
        Without effect: no model needs to be compiled.
    layer_name
        What keract before version 4 called `layer_names`.

    Returns
    -------
    dict
        Key -> array: the inputs as they were given, then the layers in the order of
        ``model.layers``. A layer with several outputs has a list of arrays.

    Raises
    ------
    LayerError
        If there is no such layer, or a node is none of this model. Also a KeyError.
    OptionError
        If `nodes_to_evaluate` is empty or given with `layer_names`, or `output_format` is none of
        the three. Also a ValueError.
    ShapeError, ModelError
        If the model cannot be run on `x`. Both are ValueErrors.

    Notes
    -----
    Symbolic tensors of Keras 3 have no names by TensorFlow's operations, so keys of ``"full"`` are
    made of the layer's path and the type of the operation that runs today: it may be
    ``"fc1/AddV2:0"`` where there was ``"fc1/BiasAdd:0"``, and a nested model has its own path. A
    node's key is the name of its layer and the number of the output: ``"block1_conv1:0"``. The
    second call of a layer is ``name:1``.

    Examples
    --------
    >>> activations = get_activations(model, images, layer_names=["conv", "pool"])
    >>> [(name, array.shape) for name, array in activations.items()]
    [('conv', (1, 26, 26, 32)), ('pool', (1, 13, 13, 32))]
    """
    network: Any = load_model(model)
    if nodes_to_evaluate is not None:
        if layer_names is not None or layer_name is not None:
            raise OptionError("give layer_names or nodes_to_evaluate, not both")
        k = keras()
        alone = isinstance(nodes_to_evaluate, (k.KerasTensor, k.Variable))
        nodes = [nodes_to_evaluate] if alone else list(nodes_to_evaluate)
        return _evaluated(network, x, nodes)
    wanted = RequestedLayers.of(
        network, x, layer_names if layer_name is None else layer_name, nested
    )
    # Copies: what a script gets from keract it may write to.
    found = {
        path: np.array(tensor)
        for path, tensor in run_layers(network, x, wanted.layers, unchanged_tensor).items()
    }
    return wanted.keyed(network, x, found, output_format)


def _evaluated(model: Any, x: Any, nodes: list[Any]) -> Activations:
    """Return the values of symbolic tensors, or lists of them, and of weights, by name."""
    k = keras()
    if not nodes:
        raise OptionError("nodes_to_evaluate is empty: give at least one, or leave it out")
    weights = {id(weight.variable): weight.path for weight in model_weights(model)}
    tensors = {str(place): node for place, node in enumerate(nodes) if id(node) not in weights}
    for node in tensors.values():
        parts = node if isinstance(node, (list, tuple)) else [node]
        if not all(isinstance(part, k.KerasTensor) for part in parts):
            raise LayerError(f"{node!r} is neither a symbolic tensor nor a weight of this model")
    values: dict[str, Any] = {}
    if tensors:
        inputs = check_input(model, x)
        try:
            outputs = partial_model(model, tensors)(inputs, training=False)
        except (ValueError, KeyError) as error:  # the latter in older versions of Keras
            raise LayerError(
                f"the nodes cannot be had from the model's inputs alone: {reason(error)}; layers "
                "in nested models are had by layer_names"
            ) from error
        values = map_tensors(np.array, outputs)
    results: Activations = {}
    for place, node in enumerate(nodes):
        if id(node) in weights:
            results[f"{weights[id(node)]}:0"] = node.numpy()
        else:
            value = values[str(place)]
            results[_node_name(node)] = list(value) if isinstance(value, tuple) else value
    return results


def _node_name(node: Any) -> str:
    if isinstance(node, (list, tuple)):
        return "_".join(map(_node_name, node))
    history = node._keras_history
    return f"{history.operation.name}:{history.tensor_index}"
