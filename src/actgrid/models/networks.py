"""Wrap models as networks of a known kind, and run or trace networks."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from actgrid.errors import CapabilityError, ModelError
from actgrid.models.calls import Call, Trace
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import LayerInfo, Node
from actgrid.models.model_errors import raise_model_errors
from actgrid.models.network import (
    Network,
    NetworkKind,
    check_compiled,
    describe_network,
    has_logits,
    is_compiled,
    is_differentiable,
    is_network,
)

__all__ = [
    "check_keras_model",
    "count_parameters",
    "describe_network_layers",
    "find_network",
    "get_network",
    "list_known_layers",
    "list_network_kinds",
    "list_network_layers",
    "run_network",
    "trace_network",
    "unwrap_model",
]


@lru_cache(maxsize=1)
def list_network_kinds() -> tuple[NetworkKind, ...]:
    """Return the supported kinds of networks, such as Keras models.

    Each module of this package whose name ends in ``_network`` defines a `NetworkKind`.
    """
    package = importlib.import_module(str(__package__))
    modules = sorted(module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(
        importlib.import_module(f"{__package__}.{name}").KIND
        for name in modules
        if name.endswith("_network")
    )


def find_network(model: object) -> Network | None:
    """Wrap a model object as a `Network`.

    A model that is a network already is returned unchanged. The result is None if the object is no
    supported model.
    """
    if is_network(model):
        return model
    return next(filter(None, (kind.wrap(model) for kind in list_network_kinds())), None)


def unwrap_model(model: object) -> Any:
    """Return the object that represents a model in actgrid's functions.

    Returns
    -------
    object
        A Keras model itself; for other kinds of models, the `Network` that wraps the model. An
        object of no known kind is returned unchanged.
    """
    if is_network(model):
        return model
    for kind in list_network_kinds():
        network = kind.wrap(model)
        if network is not None:
            return model if kind.returns_model else network
    return model


def get_network(model: object) -> Network:
    """Wrap a model that `load_model` returned as a `Network`.

    Raises
    ------
    ModelError
        If the object is no supported model.
    """
    network = find_network(model)
    if network is None:
        raise ModelError(
            f"model of unknown kind: got a {type(model).__name__}; expected a Keras model or a "
            "network"
        )
    return network


def check_keras_model(model: object, purpose: str) -> None:
    """Raise CapabilityError unless a loaded model is a Keras model.

    Parameters
    ----------
    purpose
        Name of the function that needs a Keras model; the error message starts with this name.
    """
    if is_network(model):
        raise CapabilityError(f"{purpose} needs a Keras model: got {describe_network(model)}")


def count_parameters(model: Any) -> int:
    """Return the number of trained values of a model; those of its layers for a network."""
    if not is_network(model):
        return int(model.count_params())
    return sum(info.parameters for info in list_known_layers(model) or ())


def list_known_layers(network: Network) -> list[LayerInfo] | None:
    """Return the layers of a network; None if they are not known without an input."""
    try:
        return network.list_layers()
    except ModelError:
        return None


def run_network(network: Network, inputs: Any, paths: Sequence[str]) -> dict[str, Any]:
    """Run a network outside TensorFlow; return layer outputs as NumPy arrays.

    Parameters
    ----------
    inputs
        Arrays or tensors in the structure that `prepare_inputs` returns.
    paths
        Paths of the layers.

    Returns
    -------
    dict
        Layer path -> array.

    Raises
    ------
    ModelError
        If the network fails.
    """
    arrays = _convert_inputs(network, inputs)
    with raise_model_errors(inputs):
        outputs = network.run(arrays, paths)
        return {path: np.asarray(outputs[path]) for path in paths}


def list_network_layers(network: Network, inputs: Any) -> list[LayerInfo]:
    """List the `LayerInfo` of each layer output of a network.

    Parameters
    ----------
    inputs
        Inputs that `prepare_inputs` returned.
    """
    arrays = _convert_inputs(network, inputs)
    with raise_model_errors(inputs):
        return network.list_layers(arrays)


def _convert_inputs(network: Network, inputs: Any) -> Any:
    """Convert input tensors to NumPy arrays of the dtypes that a network expects.

    The arrays are read-only, because they may share the memory of the tensors.
    """
    tensors = tensorflow().nest.flatten(inputs)
    if not network.inputs:
        arrays = [np.asarray(tensor) for tensor in tensors]
    else:
        pairs = zip(tensors, network.inputs, strict=True)
        arrays = [np.asarray(tensor).astype(info.dtype, copy=False) for tensor, info in pairs]
    arrays = [array.view() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    return tensorflow().nest.pack_sequence_as(inputs, arrays)


def trace_network(
    model: object,
    inputs: Any,
    replacements: Mapping[str, Any] | None = None,
    layers: Sequence[str] = (),
    training: bool = False,
) -> Trace:
    """Run a model of any kind on symbolic inputs while a `tf.function` is traced.

    A network that TensorFlow cannot trace becomes a single operation without a gradient, which runs
    the network when the function runs.

    Parameters
    ----------
    replacements
        Layer path -> tensor that replaces this output of a layer call, or function of the output
        that returns this tensor.
    layers
        Paths of the layers whose calls are recorded, if TensorFlow cannot trace the network. All
        calls of other networks are recorded.
    training
        Whether to run the network in training mode.

    Returns
    -------
    Trace
        Outputs of the model, and its layer calls.
    """
    network = get_network(model)
    if replacements:
        check_compiled(network, "an explanation of tokens")
        assert is_compiled(network)
        return network.trace_with_replacements(inputs, replacements)
    if is_differentiable(network):
        return network.trace(inputs, training)
    tf = tensorflow()
    infos = {info.path: info for info in describe_network_layers(network, inputs)}
    logits = network.list_logits() if has_logits(network) else {}
    # The layer that describes each value to compute, by the path of the value.
    described = {
        logits[path][0] if path in logits else path: infos[path] for path in network.outputs
    } | {path: infos[path] for path in layers}

    def run(*arrays: Any) -> list[Any]:
        values = run_network(network, tf.nest.pack_sequence_as(inputs, arrays), list(described))
        return [values[path].astype(info.dtype, copy=False) for path, info in described.items()]

    dtypes = [tf.as_dtype(info.dtype) for info in described.values()]
    results = tf.numpy_function(run, tf.nest.flatten(inputs), dtypes)
    tensors = {
        path: tf.ensure_shape(result, (None, *info.shape[1:]))
        for (path, info), result in zip(described.items(), results, strict=True)
    }
    activations = {
        "log_softmax": tf.nn.log_softmax,
        "sigmoid": lambda x, axis: tf.nn.sigmoid(x),
        "softmax": tf.nn.softmax,
    }
    outputs = []
    for path in network.outputs:
        if path in logits:
            source, activation = logits[path]
            axis = 1 if infos[path].data_format == "channels_first" else -1
            outputs.append(activations[activation](tensors[source], axis=axis))
        else:
            outputs.append(tensors[path])
    calls = [
        Call(Node(None, path, infos[path].index, False, False), infos[path], tensors[path], inputs)
        for path in layers
    ]
    return Trace(outputs if len(outputs) > 1 else outputs[0], calls)


def describe_network_layers(network: Network, inputs: Any) -> list[LayerInfo]:
    """List the `LayerInfo` of each layer output of a network for inputs of some shape.

    A network that cannot describe its layers without a run is run on a sample of zeros.

    Parameters
    ----------
    inputs
        Tensors, which may be symbolic, in the structure that `prepare_inputs` returns.
    """
    try:
        return network.list_layers()
    except ModelError:  # shapes are known only after a run: run a sample of zeros
        zeros = tensorflow().nest.map_structure(
            lambda tensor: np.zeros((1, *tensor.shape[1:]), tensor.dtype.as_numpy_dtype), inputs
        )
        return list_network_layers(network, zeros)
