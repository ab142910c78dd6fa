"""List the layers of functional models from their symbolic tensors, without a trace."""

from __future__ import annotations

from collections import Counter
from typing import Any

from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import is_real_dtype
from actgrid.models.layers import LayerInfo, collect_operations
from actgrid.models.tracing import DataFormats, describe_output

__all__ = ["list_symbolic_layers"]


# Modules of layers, models and operations whose output shape Keras computes exactly.
_MODULES = ("keras.src.layers.", "keras.src.models.", "keras.src.ops.")


# Layers and operations that compute attention scores.
_ATTENTION = frozenset(["AdditiveAttention", "Attention", "Dot", "Einsum", "Matmul"])


class _UnknownShapeError(Exception):
    """The outputs of a model are known only after a trace."""


def list_symbolic_layers(model: Any) -> list[LayerInfo] | None:
    """List every layer output of a functional model from its symbolic tensors.

    Returns
    -------
    list of LayerInfo or None
        The same list as that of a trace. None: some outputs are known only after a trace, because a
        layer contains other layers or code of the user, or because a shape is not fixed.
    """
    graph = _get_graph(model)
    if graph is None:
        return None
    try:
        return _SymbolicLayers(model, graph).list_infos()
    except _UnknownShapeError:
        return None


class _SymbolicLayers:
    """The layer calls of a functional model, in the order in which Keras runs them."""

    def __init__(self, model: Any, graph: Any) -> None:
        self._graph = graph
        self._nodes = {id(node.layer): node for node in collect_operations(model)}
        self._formats = DataFormats(model, graph.inputs)
        self._counts: Counter[str] = Counter()
        self._infos: list[LayerInfo] = []

    def list_infos(self) -> list[LayerInfo]:
        """Return the `LayerInfo` of each layer output.

        Raises
        ------
        _UnknownShapeError
            If an output is known only after a trace.
        """
        self._add_calls(self._graph)
        return self._infos

    def _add_calls(self, graph: Any) -> None:
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for symbolic_call in graph._nodes_by_depth[depth]:
                if not symbolic_call.is_input:
                    self._add_call(symbolic_call)

    def _add_call(self, symbolic_call: Any) -> None:
        node = self._nodes.get(id(symbolic_call.operation))
        if node is None or len(symbolic_call.outputs) != 1:
            raise _UnknownShapeError
        inner_graph = _get_graph(node.layer)
        if inner_graph is not None:
            self._add_inner_calls(inner_graph, symbolic_call.input_tensors)
        elif node.is_composite or not _is_keras_code(node.layer):
            raise _UnknownShapeError
        (output,) = symbolic_call.outputs
        args, kwargs = symbolic_call.arguments.args, symbolic_call.arguments.kwargs
        if _may_have_tokens(node.layer, symbolic_call.input_tensors, output):
            raise _UnknownShapeError  # the names of the axes are known only after a trace
        if None in output.shape[1:] or not (
            node.is_layer or _is_tensor(node.layer.compute_output_spec(*args, **kwargs))
        ):
            raise _UnknownShapeError
        data_format = self._formats.assign(node.layer, (args, kwargs), output)
        dtype = tensorflow().as_dtype(output.dtype)
        if is_real_dtype(dtype):
            repeat = node.call_number(self._counts[node.path])
            self._counts[node.path] += 1
            self._infos.append(
                describe_output(node, repeat, "", output.shape, dtype.name, data_format)
            )

    def _add_inner_calls(self, graph: Any, inputs: list[Any]) -> None:
        """Add the calls in a nested model that runs on an input of its own shape."""
        shapes = [tuple(tensor.shape) for tensor in inputs]
        has_same_shape = [tuple(tensor.shape) for tensor in graph.inputs] == shapes
        if len(inputs) != 1 or not has_same_shape or not _is_tensor(graph._outputs_struct):
            raise _UnknownShapeError
        self._formats.copy(inputs[0], graph.inputs[0])
        self._add_calls(graph)


def _get_graph(model: Any) -> Any:
    """Return the Keras Function whose nodes a model runs; None if it runs other code."""
    if not _is_keras_code(model):
        return None
    graph = getattr(model, "_functional", model)  # of a Sequential
    return graph if isinstance(graph, keras().Function) else None


def _may_have_tokens(layer: Any, inputs: list[Any], output: Any) -> bool:
    """Return whether an output may have tokens or attention heads, see `find_attention`."""
    if type(layer).__name__ in _ATTENTION:
        return True
    return len(output.shape) == 3 and any(len(tensor.shape) > 3 for tensor in inputs)


def _is_tensor(value: object) -> bool:
    return isinstance(value, keras().KerasTensor)


def _is_keras_code(layer: Any) -> bool:
    """Return whether a layer only runs code of Keras, which knows the shape of its output.

    Layers that run functions or saved models of the user are in other modules of Keras.
    """
    layer_class = next(base for base in type(layer).__mro__ if "call" in vars(base))
    return (
        layer_class.__module__.startswith(_MODULES)
        and "call" not in vars(layer)
        and not isinstance(layer, keras().layers.Lambda)
    )
