"""Read the graphs of ONNX models: tensors, scales of quantized values and data formats."""

from __future__ import annotations

import ast
import importlib
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import MissingDependencyError
from actgrid.models.graph_axes import AxesOperation
from actgrid.models.graph_layers import GraphTensor
from actgrid.models.graph_order import sort_depth_first
from actgrid.models.quantization import Scale

__all__ = [
    "DTYPES",
    "OnnxGraph",
    "find_unsafe_data",
    "import_onnx",
    "infer_shapes",
    "is_channel_softmax",
    "list_axes_operations",
    "list_data_files",
    "read_graph",
    "sort_nodes",
]

Array = npt.NDArray[Any]

# Types of tensors that onnxruntime exchanges as NumPy arrays of numbers.
DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({name})": name for name in ("int8", "int16", "int32", "int64")},
    **{f"tensor({name})": name for name in ("uint8", "uint16", "uint32", "uint64")},
}
# Positions of the scale and of the zero point of the output, among the inputs of an operation.
_SCALE_INPUTS = {
    "QuantizeLinear": (1, 2),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QGemm": (7, 8),
    "QLinearConcat": (0, 1),
    "QLinearAveragePool": (3, 4),
    "QLinearGlobalAveragePool": (3, 4),
    "QLinearLeakyRelu": (3, 4),
    "QLinearReduceMean": (3, 4),
    "QLinearSigmoid": (3, 4),
    "QLinearSoftmax": (3, 4),
}
# Version of the operations since which a softmax is that of one axis, by default the last one.
# Before, it is that of several axes together, by default of all but the first.
_SINGLE_AXIS_VERSION = 13
# Operations whose constants are sizes, not weights.
_RESIZINGS = frozenset(["Resize", "Upsample"])
_QUANTIZER_SUFFIX = re.compile(
    r"(_(quant(ized)?|(Quantize|Dequantize)Linear(_(In|Out)put)?|quant_output_scale_mul"
    r"|output_quantized(_cast(_output)?)?)|(:0)?(_bias_add|quant_scaled_output))$"
)
# Operations that return positions or codes, not values of their input.
_INDEX_OPERATIONS = frozenset(["ArgMax", "ArgMin", "Cast", "ConvInteger", "MatMulInteger"])
_WEIGHT_NAME = re.compile(r"bias|kernel|weight", re.IGNORECASE)
_OUTPUT_SUFFIX = re.compile(r"_output_\d+$")
# Ends the names of operations that tf2onnx inserts.
_INSERTED = re.compile(r"__\d+(:0)?$")
_SHAPE_OPERATIONS = frozenset(["NonZero", "Shape", "Size"])
# Operations of which the axis 1 of the first input and of the output is that of the channels.
_CHANNELS_FIRST = frozenset(
    [
        *("AveragePool", "BatchNormalization", "Conv", "ConvInteger", "ConvTranspose"),
        *("DeformConv", "DepthToSpace", "FusedConv", "GlobalAveragePool", "GlobalLpPool"),
        *("GlobalMaxPool", "GridSample", "GroupNormalization", "InstanceNormalization", "LRN"),
        *("LpPool", "MaxPool", "MaxUnpool", "QLinearAveragePool", "QLinearConv"),
        *("QLinearGlobalAveragePool", "SpaceToDepth"),
    ]
)
# Operations whose output has its own axes.
_OTHER_AXES = frozenset(
    [
        *("Attention", "Einsum", "Expand", "Flatten", "GRU", "Gather", "GatherElements"),
        *("GatherND", "If", "LSTM", "Loop", "MultiHeadAttention", "RNN", "Reshape", "Scan"),
        *("ScatterND", "Shape", "Squeeze", "Tile", "Unsqueeze"),
    ]
)
_CHANNELS_LAST = frozenset(["FusedMatMul", "MatMul", "MatMulInteger", "QLinearMatMul"])
# Lists the scopes of PyTorch's modules around an operation.
_SCOPES_KEY = "pkg.torch.onnx.name_scopes"


class OnnxGraph(NamedTuple):
    """Record of the tensors of a graph that depend on its inputs.

    Attributes
    ----------
    records
        A description of each tensor, in the order of execution.
    names
        Name of the tensor that has the values of each record: the tensor itself, or the quantized
        tensor that all other operations take in its place.
    scales
        Name of a tensor of quantized values -> its scale.
    outputs
        Position and name of each output of the graph that is an array of numbers.
    ranges
        Number of an input that is quantized first -> its smallest and largest value.
    """

    records: list[GraphTensor]
    names: list[str]
    scales: Mapping[str, Scale]
    outputs: list[tuple[int, str]]
    ranges: Mapping[int, tuple[float, float]]


def import_onnx() -> tuple[Any, Any]:
    """Import the modules `onnx` and `onnxruntime`.

    Raises
    ------
    MissingDependencyError
        If a module cannot be imported. Also an ImportError.
    """
    try:
        return importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingDependencyError(
            f"ONNX models need onnx and onnxruntime ({error}); to install them, "
            "pip install 'actgrid[onnx]'"
        ) from error


def list_data_files(model: Any) -> list[str]:
    """Return the locations of files with weights that an ONNX model names."""
    locations = {
        entry.value
        for tensor in _iterate_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(locations)


def find_unsafe_data(model: Any, folder: Path) -> str | None:
    """Describe weights of an ONNX model in a file outside of the folder of the model.

    Returns
    -------
    str or None
        None: all weights are in this folder.
    """
    root = folder.resolve()
    for location in list_data_files(model):
        if not (folder / location).resolve().is_relative_to(root):
            return f"weights in {location!r}, which is outside the folder of the model"
    return None


def _iterate_tensors(model: Any) -> Iterator[Any]:
    """Yield every constant in the graphs and functions of an ONNX model."""
    pending = [model.graph, *model.functions]
    while pending:
        graph = pending.pop()
        yield from getattr(graph, "initializer", ())
        for sparse in getattr(graph, "sparse_initializer", ()):
            yield from (sparse.values, sparse.indices)
        for attribute in (attribute for node in graph.node for attribute in node.attribute):
            pending += [attribute.g, *attribute.graphs]
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def infer_shapes(model: Any) -> dict[str, tuple[int | str | None, ...]]:
    """Return the shapes that `onnx` infers, also from the values of computed shapes."""
    onnx, _ = import_onnx()
    try:
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except Exception:  # such as for a model of more than 2 GB
        return {}
    return {
        value.name: tuple(
            side.dim_value if side.HasField("dim_value") else side.dim_param or None
            for side in value.type.tensor_type.shape.dim
        )
        for value in graph.value_info
    }


def read_graph(
    model: Any, nodes: Sequence[Any], inputs: Sequence[str], types: Mapping[str, str]
) -> OnnxGraph:
    """Read the tensors of the graph of a model that depend on its inputs.

    Parameters
    ----------
    nodes
        The operations of the graph, each after those of its inputs.
    inputs
        Names of the inputs of the graph.
    types
        Name of a tensor -> its type, such as ``"tensor(float)"``.
    """
    graph = model.graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    constants = {name: {name: _count_values(tensor)} for name, tensor in values.items()}
    numbers = {name: -1 - number for number, name in enumerate(inputs)}
    scales: dict[str, Scale] = {}
    shapes: set[str] = set()  # tensors that contain shapes, not values
    records: list[GraphTensor] = []
    names: list[str] = []
    takers: dict[int, set[str]] = defaultdict(set)  # position -> quantized tensor, "" for others
    for node in nodes:
        operands = [*node.input, *_list_captured(node)]
        sources = [name for name in operands if name in numbers]
        if not sources:
            constants |= dict.fromkeys(node.output, _collect_constants(node, values, constants))
            continue
        quantized = _describe_quantized(node, types, values, scales)
        if quantized is not None:
            scales[node.output[0]] = quantized
        # Quantized values stand for the real values, and are no tensors of their own.
        if (node.op_type == "QuantizeLinear" and quantized) or (
            node.op_type == "DequantizeLinear" and sources[0] in scales
        ):
            numbers[node.output[0]] = numbers[sources[0]]
            if node.op_type == "QuantizeLinear":
                takers[numbers[sources[0]]].add(node.output[0])
            continue
        if node.op_type == "DynamicQuantizeLinear":  # its scale depends on the values
            numbers[node.output[0]] = numbers[sources[0]]
            takers[numbers[sources[0]]].add("")
            continue
        for name in sources:
            if name in inputs or (numbers[name] >= 0 and name == names[numbers[name]]):
                takers[numbers[name]].add("")
        is_shape = node.op_type in _SHAPE_OPERATIONS or shapes.issuperset(sources)
        node_constants: dict[str, int] = {}
        for name in operands if node.op_type not in _RESIZINGS else ():
            node_constants |= constants.get(name, {})
        if node.op_type in _SCALE_INPUTS or node.op_type.endswith("Integer"):
            counts = {name: _count_quantized_values(values.get(name)) for name in operands}
            node_constants = {_strip_suffix(name): count for name, count in counts.items() if count}
        for name in filter(None, node.output):
            if is_shape:
                shapes.add(name)
            dtype = np.dtype(DTYPES.get(types.get(name, ""), "bool"))
            is_real = name in scales or dtype.kind == "f"
            is_inserted = node.op_type == "Transpose" and _INSERTED.search(node.name)
            numbers[name] = len(records)
            names.append(name)
            records.append(
                GraphTensor(
                    _list_names(node, name),
                    node.op_type,
                    tuple(numbers[source] for source in sources),
                    node_constants,
                    is_hidden=bool(is_shape or not is_real or is_inserted),
                    softmax_axis=_read_softmax_axis(model, node),
                )
            )
    ranges: dict[int, tuple[float, float]] = {}
    for position, quantized_names in takers.items():
        quantized_name = min(quantized_names)
        if not quantized_name:  # some operation takes the values before they are quantized
            continue
        if position >= 0:
            names[position] = quantized_name
        elif ends := scales[quantized_name].get_range(np.dtype(DTYPES[types[quantized_name]])):
            ranges[-1 - position] = ends
    outputs = [
        (numbers[name], name)
        for name in _list_outputs(graph)
        if numbers.get(name, -1) >= 0 and types.get(name) in DTYPES
    ]
    for position, _ in outputs:
        records[position] = records[position]._replace(is_output=True)
    return OnnxGraph(records, names, scales, outputs, ranges)


def sort_nodes(graph: Any) -> list[Any]:
    """Return the operations of a graph in the order of `sort_depth_first`."""
    makers = {
        name: number
        for number, node in enumerate(graph.node)
        for name in node.output
        if name  # an optional output that is left out has no name
    }

    def list_sources(number: int) -> list[int]:
        node = graph.node[number]
        return [
            makers[name] for name in (*node.input, *sorted(_list_captured(node))) if name in makers
        ]

    ends = [makers[name] for name in _list_outputs(graph) if name in makers]
    numbers = dict.fromkeys([*sort_depth_first(ends, list_sources), *range(len(graph.node))])
    return [graph.node[number] for number in numbers]


def _collect_constants(
    node: Any, values: dict[str, Any], constants: Mapping[str, dict[str, int]]
) -> dict[str, int]:
    """Return the constants in the output of an operation that does not depend on inputs.

    The value of an operation `Constant` is added to `values`.
    """
    if node.op_type == "Constant" and (tensor := _get_attribute(node, "value")) is not None:
        values[node.output[0]] = tensor
        return {node.output[0]: _count_values(tensor)}
    if node.op_type == "DequantizeLinear" and node.input[0] in values:
        return {_strip_suffix(node.input[0]): math.prod(values[node.input[0]].dims)}
    return {
        name: count for operand in node.input for name, count in constants.get(operand, {}).items()
    }


def _describe_quantized(
    node: Any,
    types: Mapping[str, str],
    values: Mapping[str, Any],
    scales: Mapping[str, Scale],
) -> Scale | None:
    """Return the scale of the first output of an operation; None if it is not quantized."""
    if np.dtype(DTYPES.get(types.get(node.output[0], ""), "bool")).kind not in "iu":
        return None
    if node.op_type in _SCALE_INPUTS:
        return _read_scale(node, values)
    # Such as pooling of quantized values.
    return scales.get(node.input[0]) if node.op_type not in _INDEX_OPERATIONS else None


def _read_softmax_axis(model: Any, node: Any) -> int:
    axis = _get_attribute(node, "axis") if node.op_type.endswith("Softmax") else -1
    if axis is None:
        axis = 1 if _joins_softmax_axes(model) else -1
    return int(axis)


def _joins_softmax_axes(model: Any) -> bool:
    """Return whether a softmax is that of an axis and of all axes behind it together."""
    versions = [entry.version for entry in model.opset_import if not entry.domain]
    return max(versions, default=0) < _SINGLE_AXIS_VERSION


def is_channel_softmax(
    model: Any, axis: int, shape: Sequence[int | str | None] | None, is_first: bool
) -> bool:
    """Return whether the softmax of an axis is that of the channels of a tensor.

    Parameters
    ----------
    shape
        Shape of the tensor; None: the number of axes is not known.
    is_first
        Whether the channels of the tensor are first.
    """
    if shape is None:
        return axis == -1
    axis %= len(shape)
    is_single = not _joins_softmax_axes(model) or all(side == 1 for side in shape[axis + 1 :])
    return is_single and axis == (1 if is_first else len(shape) - 1)


def _list_outputs(graph: Any) -> list[str]:
    """Return the names of the outputs of a graph.

    A classifier of scikit-learn returns dicts of probabilities; their array stands for them.
    """
    arrays = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "ZipMap"}
    return [arrays.get(output.name, output.name) for output in graph.output]


def _list_captured(node: Any) -> set[str]:
    """Return the names of tensors that the subgraphs of a node take from outside."""
    captured: set[str] = set()
    for attribute in node.attribute:
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            own = {value.name for value in (*graph.input, *graph.initializer)}
            operands = {output.name for output in graph.output}
            for inner in graph.node:
                operands |= {*inner.input, *_list_captured(inner)}
                own |= set(inner.output)
            captured |= operands - own
    return captured


def _list_names(node: Any, tensor_name: str) -> tuple[str, ...]:
    """Return the names of an operation and its output, the best first."""
    # Fused operations keep the tensor of the last one, and the name of any.
    names = [_strip_suffix(tensor_name), _strip_suffix(node.name)]
    for entry in node.metadata_props:
        if entry.key == _SCOPES_KEY:
            try:
                scopes = ast.literal_eval(entry.value)
            except (SyntaxError, ValueError):
                continue
            names.insert(0, "/".join(filter(None, map(str, scopes))))
    return tuple(filter(None, names))


def _strip_suffix(name: str) -> str:
    """Return a name without the suffixes of PyTorch and of the quantization tools."""
    return _OUTPUT_SUFFIX.sub("", _QUANTIZER_SUFFIX.sub("", name))


def _count_values(tensor: Any) -> int:
    """Return the number of values of a constant that may be a weight, else 0.

    A constant of one value is usually a part of the program, such as an epsilon. Weights and biases
    of one value are known by their names.
    """
    count = math.prod(tensor.dims)
    floats = (tensor.FLOAT, tensor.FLOAT16, tensor.BFLOAT16, tensor.DOUBLE)
    is_weight = count > 1 or (tensor.dims and _WEIGHT_NAME.search(tensor.name))
    return count if tensor.data_type in floats and is_weight else 0


def _count_quantized_values(tensor: Any) -> int:
    """Return the number of values of a quantized weight or bias; 0 for scales."""
    if tensor is None:
        return 0
    is_weight = tensor.data_type in (tensor.INT8, tensor.UINT8) and len(tensor.dims) > 1
    is_bias = tensor.data_type == tensor.INT32 and len(tensor.dims) == 1
    return math.prod(tensor.dims) if is_weight or is_bias else 0


def _get_attribute(node: Any, name: str) -> Any:
    onnx, _ = import_onnx()
    values = (
        onnx.helper.get_attribute_value(attribute)
        for attribute in node.attribute
        if attribute.name == name
    )
    return next(values, None)


def _read_scale(node: Any, values: Mapping[str, Any]) -> Scale | None:
    """Return the scale of the output of an operation; None if it is not a constant."""
    onnx, _ = import_onnx()
    operands = [
        values.get(node.input[position]) if position < len(node.input) else None
        for position in _SCALE_INPUTS[node.op_type]
    ]
    if operands[0] is None or _get_attribute(node, "block_size"):
        return None
    scales, zero_points = (
        np.zeros(1) if tensor is None else onnx.numpy_helper.to_array(tensor) for tensor in operands
    )
    axis = _get_attribute(node, "axis") if node.op_type == "QuantizeLinear" else 1
    return Scale(scales, zero_points, 1 if axis is None else axis)


def list_axes_operations(graph: Any, shapes: Mapping[str, Any]) -> list[AxesOperation]:
    """Describe what the operations of a graph do to the axes of tensors.

    Parameters
    ----------
    shapes
        Name of a tensor -> its shape, for tensors of known rank.
    """
    operations: list[AxesOperation] = []
    for node in graph.node:
        inputs, outputs, kind = list(node.input), list(node.output), node.op_type
        if kind in _CHANNELS_FIRST:
            is_first = not _get_attribute(node, "channels_last")
            operations.append(AxesOperation(inputs, outputs, is_first))
        elif kind in _CHANNELS_LAST:  # the last axis of its input is not always that of channels
            operations.append(AxesOperation([], outputs, is_first=False))
        elif kind == "Transpose":
            rank = len(shapes.get(inputs[0], ()))
            axes = _get_attribute(node, "perm") or range(rank)[::-1]
            operations.append(AxesOperation(inputs, outputs, permutation=axes))
        else:
            keeps_axes = kind not in _OTHER_AXES
            operations.append(AxesOperation(inputs, outputs, keeps_axes=keeps_axes))
    return operations
