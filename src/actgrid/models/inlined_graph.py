"""Read the operations of a TensorFlow function, and run a part of them in another graph."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from actgrid.models.fingerprint import hash_variables
from actgrid.models.frameworks import tensorflow
from actgrid.models.graph_axes import AxesOperation, find_data_formats
from actgrid.models.graph_layers import GraphLayer, GraphTensor, find_layers, find_output_layer
from actgrid.models.graph_order import have_further_calls, sort_depth_first

__all__ = ["InlinedGraph"]

# Name of a call of a function, which inlining puts before the names of the called operations.
_CALLS = re.compile(r"(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
# Whether an operation's attribute `data_format` puts the channels first.
_CHANNELS_FIRST = {b"NHWC": False, b"NDHWC": False, b"NCHW": True, b"NCDHW": True}
# Names of the operations that inlining adds.
_ADDED = re.compile(r"Func/.*")


class InlinedGraph:
    """Graph of a function, without calls of other functions.

    Each call is replaced by the operations of the called function.

    Parameters
    ----------
    function
        A `ConcreteFunction`. Its variables are not copied, and the caller must keep them: the graph
        reads their current values.

    Attributes
    ----------
    layers
        The layers of the graph.
    tensor_names
        For each layer, the name of the tensor that it returns.
    output_layers
        For each output of the function, the number of its layer; None for an output that does not
        depend on an input.
    data_formats
        For each layer, ``"channels_last"`` or ``"channels_first"``.
    input_formats
        The data format of each input.
    """

    layers: list[GraphLayer]
    tensor_names: list[str]
    output_layers: list[int | None]
    data_formats: list[str]
    input_formats: list[str]

    def __init__(self, function: Any) -> None:
        # The public function for this, which makes constants of the variables, cannot be used for
        # graphs of more than 2 GB.
        converter = importlib.import_module("tensorflow.python.framework.convert_to_constants")
        self._definition = converter._run_inline_graph_optimization(
            function, lower_control_flow=False, aggressive_inlining=True
        )
        _remove_custom_gradients(self._definition)
        self._node_names = {node.name for node in self._definition.node}
        self._function = function
        count = len(function.inputs) - len(function.captured_inputs)
        self._input_names = [tensor.op.name for tensor in function.inputs[:count]]
        self._captured_names = [tensor.op.name for tensor in function.inputs[count:]]
        output_names = [tensor.name for tensor in function.outputs]
        operations = self._list_operations()
        self._find_layers(operations, output_names)
        if have_further_calls(self.layers):
            self._find_layers(_sort_operations(operations, output_names), output_names)

    def import_tensors(
        self, inputs: Sequence[Any], names: Sequence[str], replacements: Mapping[str, Any]
    ) -> list[Any]:
        """Add the graph to the graph that is being traced.

        Parameters
        ----------
        inputs
            Tensors that become the inputs of the graph.
        names
            Names of tensors of this graph.
        replacements
            Name of a tensor of this graph -> tensor that replaces it.

        Returns
        -------
        list of tensor
            The tensor of each name; a replaced tensor as the graph computes it.
        """
        tf = tensorflow()
        graph = tf.compat.v1.get_default_graph()
        captures = [graph.capture(tensor) for tensor in self._function.captured_inputs]
        dtypes = [tensor.dtype for tensor in self._function.inputs]
        inputs = [tf.cast(tensor, dtype) for tensor, dtype in zip(inputs, dtypes, strict=False)]
        arguments = zip(
            (*self._input_names, *self._captured_names), (*inputs, *captures), strict=True
        )
        # Inlining removes the inputs that no operation takes.
        mapped = {name: tensor for name, tensor in arguments if name in self._node_names}
        mapped |= replacements
        tensors: list[Any] = tf.graph_util.import_graph_def(
            self._definition, mapped, list(names), name="saved_model"
        )
        return tensors

    def fingerprint(self) -> str:
        """Return a hash of the operations and of the values of the variables."""
        bodies = [function.node_def for function in self._definition.library.function]
        nodes = [node for body in (self._definition.node, *bodies) for node in body]
        definition = b"".join(map(_serialize_node, nodes))
        return hash_variables(definition, self._function.graph.variables)

    def _list_operations(self) -> list[Any]:
        """Return the operations of the graph, with inferred shapes, in the order of execution."""
        tf = tensorflow()
        with tf.Graph().as_default() as graph:
            tf.graph_util.import_graph_def(self._definition, name="")
        operations: list[Any] = graph.get_operations()
        return operations

    def _find_layers(self, operations: Sequence[Any], output_names: Sequence[str]) -> None:
        arguments = self._function.inputs[: len(self._input_names)]
        has_free_batch = any(tensor.shape.rank and tensor.shape[0] is None for tensor in arguments)
        sizes = self._measure_captures()
        numbers = {f"{name}:0": -1 - number for number, name in enumerate(self._input_names)}
        constants: dict[str, dict[str, int]] = {}
        records: list[GraphTensor] = []
        names: list[str] = []
        axes_operations: list[AxesOperation] = []
        for operation in operations:
            derived = [tensor.name for tensor in operation.inputs if tensor.name in numbers]
            values: dict[str, int] = {}
            for tensor in operation.inputs:
                values.update(constants.get(tensor.op.name, {}))
            if not derived:
                if operation.name not in self._input_names:
                    constants[operation.name] = values | _measure_constant(operation, sizes)
                continue
            axes_operations.append(_describe_axes(operation, derived))
            operation_name = _ADDED.sub("", _CALLS.sub("", operation.name))
            for tensor in operation.outputs:
                is_output = tensor.name in output_names
                # Recurrent layers exchange the axes of time and samples.
                has_other_axis = has_free_batch and tensor.shape.rank and tensor.shape[0]
                record = GraphTensor(
                    (operation_name,),
                    operation.type,
                    tuple(numbers[name] for name in derived),
                    values,
                    is_output,
                    not tensor.dtype.is_floating or tensor.shape.rank == 0 or bool(has_other_axis),
                )
                numbers[tensor.name] = len(records)
                records.append(record)
                names.append(tensor.name)
        self.layers = find_layers(records)
        self.tensor_names = [names[layer.position] for layer in self.layers]
        self.output_layers = [
            find_output_layer(records, self.layers, numbers[name])
            if numbers.get(name, -1) >= 0
            else None
            for name in output_names
        ]
        tensors = (tensor for operation in operations for tensor in operation.outputs)
        shapes = {tensor.name: tuple(tensor.shape) for tensor in tensors if tensor.shape.rank}
        formats = find_data_formats(axes_operations, shapes)
        self.data_formats, self.input_formats = (
            ["channels_first" if formats.get(name) else "channels_last" for name in names]
            for names in (self.tensor_names, [f"{name}:0" for name in self._input_names])
        )

    def _measure_captures(self) -> dict[str, int]:
        """Return the number of values of each captured variable, by the name of its placeholder."""
        tf = tensorflow()
        sizes = {
            id(variable.handle): variable.shape.num_elements()
            for variable in self._function.graph.variables
        }
        captured = zip(self._captured_names, self._function.captured_inputs, strict=True)
        return {
            name: sizes.get(id(tensor), 0)
            if tensor.dtype == tf.resource
            else _count_values(tensor.shape, tensor.dtype)
            for name, tensor in captured
        }


def _sort_operations(operations: Sequence[Any], output_names: Sequence[str]) -> list[Any]:
    """Return the operations of a graph in the order of `sort_depth_first`."""
    by_name = {operation.name: operation for operation in operations}
    names = sort_depth_first(
        [name.partition(":")[0] for name in output_names],
        lambda name: [tensor.op.name for tensor in by_name[name].inputs],
    )
    return [by_name[name] for name in dict.fromkeys([*names, *by_name])]


def _remove_custom_gradients(definition: Any) -> None:
    """Let TensorFlow differentiate the operations of custom gradients, such as that of swish.

    Custom gradients use tensors of the graph in which they were created.
    """
    bodies = [function.node_def for function in definition.library.function]
    for node in (node for body in (definition.node, *bodies) for node in body):
        if node.op in ("Identity", "IdentityN"):
            node.attr.pop("_gradient_op_type", None)


def _serialize_node(node: Any) -> bytes:
    """Return a text of a node that does not change from one loading of the graph to another."""
    copy = type(node)()
    copy.CopyFrom(node)
    copy.ClearField("experimental_debug_info")
    for name, value in node.attr.items():
        # The names of functions end in numbers that count all functions of the process.
        if value.HasField("func") or value.list.func:
            del copy.attr[name]
    text: bytes = copy.SerializeToString(deterministic=True)
    return text


def _measure_constant(operation: Any, sizes: Mapping[str, int]) -> dict[str, int]:
    """Return the number of trained values of a constant or placeholder, by its name."""
    if operation.name in sizes:
        return {operation.name: sizes[operation.name]}
    if operation.type != "Const":
        return {}
    (tensor,) = operation.outputs
    return {operation.name: _count_values(tensor.shape, tensor.dtype)}


def _count_values(shape: Any, dtype: Any) -> int:
    """Return the number of values of a constant that may be a weight, else 0.

    A constant of one value is usually a part of the program, such as an epsilon.
    """
    count = shape.num_elements() or 0
    return count if dtype.is_floating and count > 1 else 0


def _describe_axes(operation: Any, inputs: Sequence[str]) -> AxesOperation:
    """Describe what an operation does to the axes of its tensors.

    Parameters
    ----------
    inputs
        Names of the tensors that the operation takes, without weights.
    """
    outputs = [tensor.name for tensor in operation.outputs]
    if operation.type == "Transpose":
        axes = tensorflow().get_static_value(operation.inputs[1])
        return AxesOperation(inputs, outputs, permutation=axes, keeps_axes=axes is not None)
    attributes = operation.node_def.attr
    data_format = attributes["data_format"].s if "data_format" in attributes else b""
    is_first = _CHANNELS_FIRST.get(data_format)
    return AxesOperation(inputs, outputs, is_first, keeps_axes=operation.type != "Reshape")
