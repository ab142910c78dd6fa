"""Activations of layers in the format of keract."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.keract.extraction import check_input, keep_tensor, run_layers
from actgrid.compat.keract.layer_names import RequestedLayers
from actgrid.errors import (
    LayerError,
    OptionError,
)
from actgrid.models import load_model
from actgrid.models.frameworks import keras
from actgrid.models.inputs import (
    build_submodel,
    map_tensors,
)
from actgrid.models.layers import collect_weights
from actgrid.models.model_errors import summarize_error

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
    """Compute the activations of layers for an input.

    Parameters
    ----------
    model : keras.Model or str
        The model, or anything that `actgrid.load_model` takes.
    x : array_like, dict or list
        The model's input with its batch axis, (N, ...); a list or dict of arrays for several
        inputs.
    layer_names : str or iterable of str, optional
        Names of layers. Layers in nested models are named ``outer/inner``, and inputs by the names
        of their layers. None: all layers.
    nodes_to_evaluate : list, optional
        Symbolic tensors such as ``model.layers[2].output``, and weights, to evaluate instead of
        layers. None: evaluate layers.
    output_format : str, optional
        Format of the keys: ``"simple"``, names of layers; ``"full"``, names with the TensorFlow
        operation of the output, such as ``"conv2d/Relu:0"``; ``"numbered"``, 0, 1, ...
    nested : bool, optional
        Whether to return the layers inside nested models instead of the nested models.
    auto_compile : bool, optional
        Ignored: models need not be compiled.
    layer_name : str or iterable of str, optional
        The name of `layer_names` in keract before version 4. None: `layer_names` is used.

    Returns
    -------
    dict
        Key -> array: the inputs, unmodified, then the layers in the order of ``model.layers``. A
        layer with several outputs has a list of arrays.

    Raises
    ------
    LayerError
        If the model has no such layer or node. Also a KeyError.
    OptionError
        If `nodes_to_evaluate` is empty or given with `layer_names`, or `output_format` is unknown.
        Also a ValueError.
    ShapeError
        If `x` does not fit the model. Also a ValueError.
    ModelError
        If the model cannot be run. Also a ValueError.

    Notes
    -----
    Symbolic tensors of Keras 3 are not named after TensorFlow operations. Keys of ``"full"``
    therefore consist of the layer path and the type of the operation that computes the output,
    which may differ from keract: ``"fc1/AddV2:0"`` instead of ``"fc1/BiasAdd:0"``. The key of a
    node is the name of its layer and the index of the output: ``"block1_conv1:0"``. The second call
    of a layer is ``name:1``.

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
    >>> activations = keract.get_activations(model, np.zeros((1, 8, 8, 3)), ["conv", "dense"])
    >>> [(name, array.shape) for name, array in activations.items()]
    [('conv', (1, 6, 6, 4)), ('dense', (1, 2))]
    """
    network: Any = load_model(model)
    if nodes_to_evaluate is not None:
        if layer_names is not None or layer_name is not None:
            raise OptionError("pass either layer_names or nodes_to_evaluate, not both")
        k = keras()
        is_single = isinstance(nodes_to_evaluate, (k.KerasTensor, k.Variable))
        nodes = [nodes_to_evaluate] if is_single else list(nodes_to_evaluate)
        return _evaluate_nodes(network, x, nodes)
    requested = RequestedLayers.from_names(
        network, x, layer_names if layer_name is None else layer_name, nested
    )
    # Scripts may write to the arrays of keract: copies are writable.
    activations = {
        path: np.array(tensor)
        for path, tensor in run_layers(network, x, requested.layers, keep_tensor).items()
    }
    return requested.format_results(network, x, activations, output_format)


def _evaluate_nodes(model: Any, x: Any, nodes: list[Any]) -> Activations:
    """Compute the values of symbolic tensors and weights of a model.

    Parameters
    ----------
    x
        Input of the model.
    nodes
        Symbolic tensors and weights.

    Returns
    -------
    dict
        Name -> value.
    """
    k = keras()
    if not nodes:
        raise OptionError("nodes_to_evaluate is empty: pass at least one node, or leave it out")
    weights = {id(weight.variable): weight.path for weight in collect_weights(model)}
    tensors = {str(index): node for index, node in enumerate(nodes) if id(node) not in weights}
    for node in tensors.values():
        parts = node if isinstance(node, (list, tuple)) else [node]
        if not all(isinstance(part, k.KerasTensor) for part in parts):
            raise LayerError(f"{node!r} is neither a symbolic tensor nor a weight of this model")
    values: dict[str, Any] = {}
    if tensors:
        inputs = check_input(model, x)
        try:
            outputs = build_submodel(model, tensors)(inputs, training=False)
        except (ValueError, KeyError) as error:  # older versions of Keras raise KeyError
            raise LayerError(
                f"the nodes cannot be computed from the model's inputs: "
                f"{summarize_error(error)}; use layer_names for layers in nested models"
            ) from error
        values = map_tensors(np.array, outputs)
    results: Activations = {}
    for index, node in enumerate(nodes):
        if id(node) in weights:
            results[f"{weights[id(node)]}:0"] = node.numpy()
        else:
            value = values[str(index)]
            results[_make_node_name(node)] = list(value) if isinstance(value, tuple) else value
    return results


def _make_node_name(node: Any) -> str:
    if isinstance(node, (list, tuple)):
        return "_".join(map(_make_node_name, node))
    history = node._keras_history
    return f"{history.operation.name}:{history.tensor_index}"
