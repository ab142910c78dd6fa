"""Find the network of a model among the kinds of networks."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from actgrid.errors import ModelError
from actgrid.models.calls import Trace
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import LayerInfo
from actgrid.models.network import Network, NetworkKind, is_differentiable, is_network
from actgrid.models.refusals import running

__all__ = [
    "find_network",
    "list_network_layers",
    "network_kinds",
    "network_of",
    "run_network",
    "trace_network",
    "usable_model",
]


@lru_cache(maxsize=1)
def network_kinds() -> tuple[NetworkKind, ...]:
    """Return the ``KIND`` of each module of this folder whose name ends in ``_network``."""
    room = importlib.import_module(str(__package__))
    modules = sorted(module.name for module in pkgutil.iter_modules(room.__path__))
    return tuple(
        importlib.import_module(f"{__package__}.{name}").KIND
        for name in modules
        if name.endswith("_network")
    )


def find_network(model: object) -> Network | None:
    """Return the network of a model object; None if the object is a model of no kind."""
    if is_network(model):
        return model
    return next(filter(None, (kind.wrap(model) for kind in network_kinds())), None)


def usable_model(model: object) -> Any:
    """Return what functions work on: a Keras model itself, of other kinds the network.

    An object that is a model of no kind is returned as it is.
    """
    if is_network(model):
        return model
    for kind in network_kinds():
        network = kind.wrap(model)
        if network is not None:
            return model if kind.keeps_model else network
    return model


def network_of(model: object) -> Network:
    """Return the network of a model that `load_model` returned."""
    network = find_network(model)
    if network is None:
        raise ModelError(f"a {type(model).__name__} is a model of no kind that actgrid knows")
    return network


def run_network(network: Network, inputs: Any, paths: Sequence[str]) -> dict[str, Any]:
    """Run a network that TensorFlow cannot follow, and return the outputs of layers as arrays.

    Parameters
    ----------
    inputs
        Arrays or tensors in the structure that `prepare_inputs` returns.

    Raises
    ------
    ModelError
        If the network fails.
    """
    arrays = _input_arrays(network, inputs)
    with running(inputs):
        outputs = network.run(arrays, paths)
        return {path: np.asarray(outputs[path]) for path in paths}


def list_network_layers(network: Network, inputs: Any) -> list[LayerInfo]:
    """Return what the layers of a network give for inputs that `prepare_inputs` returned."""
    arrays = _input_arrays(network, inputs)
    with running(inputs):
        return network.list_layers(arrays)


def _input_arrays(network: Network, inputs: Any) -> Any:
    """Return inputs as NumPy's arrays, in the dtypes that the network takes."""
    tensors = tensorflow().nest.flatten(inputs)
    if not network.inputs:
        arrays = [np.asarray(tensor) for tensor in tensors]
    else:
        pairs = zip(tensors, network.inputs, strict=True)
        arrays = [np.asarray(tensor).astype(info.dtype, copy=False) for tensor, info in pairs]
    return tensorflow().nest.pack_sequence_as(inputs, arrays)


def trace_network(model: object, inputs: Any) -> Trace:
    """Run a model of any kind on symbolic inputs, while a `tf.function` is traced.

    A network that TensorFlow cannot follow becomes a single operation without a gradient, which
    runs the network when the function is run. Then no calls of layers are recorded.
    """
    network = network_of(model)
    if is_differentiable(network):
        return network.trace(inputs)
    tf = tensorflow()
    infos = _output_infos(network, inputs)
    paths = [info.path for info in infos]

    def run(*arrays: Any) -> list[Any]:
        outputs = run_network(network, tf.nest.pack_sequence_as(inputs, arrays), paths)
        return [outputs[info.path].astype(info.dtype, copy=False) for info in infos]

    dtypes = [tf.as_dtype(info.dtype) for info in infos]
    results = tf.numpy_function(run, tf.nest.flatten(inputs), dtypes)
    outputs = [
        tf.ensure_shape(result, (None, *info.shape[1:]))
        for result, info in zip(results, infos, strict=True)
    ]
    return Trace(outputs if len(outputs) > 1 else outputs[0], [])


def _output_infos(network: Network, inputs: Any) -> list[LayerInfo]:
    """Return the outputs of a network for symbolic inputs."""
    try:
        layers = network.list_layers()
    except ModelError:  # shapes are known only after a run: on one sample of zeros
        zeros = tensorflow().nest.map_structure(
            lambda tensor: np.zeros((1, *tensor.shape[1:]), tensor.dtype.as_numpy_dtype), inputs
        )
        layers = list_network_layers(network, zeros)
    by_path = {info.path: info for info in layers}
    return [by_path[path] for path in network.outputs]
