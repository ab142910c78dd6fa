"""Operations of a traced graph: their kinds, and registered gradients for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from actgrid.errors import ModelError
from actgrid.models.calls import Call
from actgrid.models.frameworks import tensorflow

__all__ = [
    "CONVOLUTIONS",
    "ELEMENTWISE",
    "LINEAR",
    "MAXIMA",
    "MINIMA",
    "PRODUCTS",
    "WEIGHTED",
    "PathOperation",
    "collect_dependent",
    "get_attribute",
    "is_linear_call",
    "list_path_operations",
    "make_rule_error",
    "register_gradients",
    "repeat_operation",
    "set_gradient",
]

# Operations that are linear in each input. Those in `PRODUCTS` and `WEIGHTED` multiply inputs.
_MOVES = frozenset(
    [
        *("BatchToSpace", "BatchToSpaceND", "BroadcastTo", "Cast", "CheckNumerics", "Concat"),
        *("ConcatV2", "DepthToSpace", "EnsureShape", "ExpandDims", "Gather", "GatherNd"),
        *("GatherV2", "Identity", "MatrixBandPart", "MirrorPad", "Pack", "Pad", "PadV2"),
        *("Reshape", "Reverse", "ReverseV2", "Roll", "Slice", "Snapshot", "SpaceToBatch"),
        *("SpaceToBatchND", "SpaceToDepth", "Split", "SplitV", "Squeeze", "StridedSlice"),
        *("Tile", "Transpose", "Unpack"),
    ]
)
_SUMS = frozenset(
    [
        *("Add", "AddN", "AddV2", "AvgPool", "AvgPool3D", "BiasAdd", "Cumsum", "FusedBatchNorm"),
        *("FusedBatchNormV2", "FusedBatchNormV3", "Mean", "Neg", "ResizeArea", "ResizeBicubic"),
        *("ResizeBilinear", "ResizeNearestNeighbor", "ScaleAndTranslate", "SegmentSum", "Sub"),
        *("Sum", "UnsortedSegmentSum"),
    ]
)
LINEAR = _MOVES | _SUMS
# Convolutions, whose second input is the kernel.
CONVOLUTIONS = frozenset(
    [
        *("Conv2D", "Conv2DBackpropInput", "Conv3D", "Conv3DBackpropInputV2"),
        "DepthwiseConv2dNative",
    ]
)
_MATRIX_PRODUCTS = frozenset(["BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "MatMul"])
# Operations of layers with weights.
WEIGHTED = CONVOLUTIONS | _MATRIX_PRODUCTS
# Operations that are linear in each of two inputs, or quadratic in one.
PRODUCTS = WEIGHTED | {"Mul", "Square", "SquaredDifference"}
# Functions of each single value. Those of two inputs have one that does not depend on the input.
ELEMENTWISE = frozenset(
    [
        *("Abs", "Acosh", "Asinh", "Atan", "Atanh", "Ceil", "ClipByValue", "Cos", "Cosh", "Elu"),
        *("Erf", "Erfc", "Exp", "Expm1", "Floor", "Inv", "LeakyRelu", "Log", "Log1p", "Maximum"),
        *("Minimum", "Pow", "Reciprocal", "Relu", "Relu6", "Rint", "Round", "Rsqrt", "Selu"),
        *("Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh"),
    ]
)
MAXIMA = frozenset(["Max", "MaxPool", "MaxPool3D", "MaxPoolV2", "Maximum"])
MINIMA = frozenset(["Min", "Minimum"])
# Operations whose result depends on the shape of their input alone.
_SHAPES = frozenset(["OnesLike", "Rank", "Shape", "ShapeN", "Size", "ZerosLike"])
# Operations whose inputs after the first are indices.
_GATHERS = frozenset(["Gather", "GatherNd", "GatherV2"])


class PathOperation(NamedTuple):
    """Record of an operation between explained tensors and the scores.

    Attributes
    ----------
    operation
        The operation of the graph.
    depends
        Whether each input depends on the explained tensors.
    """

    operation: Any
    depends: tuple[bool, ...]


def list_path_operations(
    operations: Iterable[Any],
    explained: Iterable[Any],
    scores: Any,
    is_constant: Callable[[PathOperation], bool] = lambda path_operation: False,
) -> list[PathOperation]:
    """List the operations through which scores depend on explained tensors, in order.

    Parameters
    ----------
    operations
        Operations of the graph, in order.
    is_constant
        Function of an operation that returns True if its results count as constants.
    """
    candidates = _list_dependent(operations, explained, is_constant)
    needed = {scores.name}
    path: list[PathOperation] = []
    for candidate in reversed(candidates):
        if any(tensor.name in needed for tensor in candidate.operation.outputs):
            path.append(candidate)
            pairs = zip(candidate.operation.inputs, candidate.depends, strict=True)
            needed.update(tensor.name for tensor, depends in pairs if depends)
    return path[::-1]


def is_linear_call(entry: PathOperation) -> bool:
    """Return whether an operation calls a function that is linear in the dependent inputs.

    Keras calls such a function for grouped convolutions.
    """
    operation, depends = entry
    if operation.type not in ("PartitionedCall", "StatefulPartitionedCall"):
        return False
    function = operation.graph._get_function(operation.get_attr("f").name)
    graph = getattr(function, "graph", None)
    if graph is None or len(graph.outputs) != 1:
        return False
    explained = [tensor for tensor, flag in zip(graph.inputs, depends, strict=True) if flag]
    path = list_path_operations(graph.get_operations(), explained, graph.outputs[0])
    return all(
        inner.operation.type in LINEAR
        or (inner.operation.type in WEIGHTED | {"Mul"} and sum(inner.depends) == 1)
        for inner in path
    )


def collect_dependent(operations: Iterable[Any], explained: Iterable[Any]) -> set[str]:
    """Return the names of all tensors that depend on explained tensors."""
    dependent = _list_dependent(operations, explained, lambda path_operation: False)
    return {tensor.name for entry in dependent for tensor in entry.operation.outputs}


def _list_dependent(
    operations: Iterable[Any],
    explained: Iterable[Any],
    is_constant: Callable[[PathOperation], bool],
) -> list[PathOperation]:
    """List the operations that depend on explained tensors, in order."""
    dependent = {tensor.name for tensor in explained}
    entries = []
    for operation in operations:
        if operation.type in _SHAPES:
            continue
        count = 1 if operation.type in _GATHERS else len(operation.inputs)
        depends = tuple(
            index < count and tensor.name in dependent
            for index, tensor in enumerate(operation.inputs)
        )
        entry = PathOperation(operation, depends)
        if any(depends) and not is_constant(entry):
            entries.append(entry)
            dependent.update(tensor.name for tensor in operation.outputs)
    return entries


def make_rule_error(method: str, operation: Any, calls: Sequence[Call]) -> ModelError:
    """Return the error for an operation for which a method has no rule.

    Parameters
    ----------
    calls
        The layer calls of the run, of which the innermost that contains the operation is named.
    """
    number = next(
        number
        for number, other in enumerate(operation.graph.get_operations())
        if other is operation
    )
    containing = [call for call in calls if number in call.span]
    layer = min(containing, key=lambda call: len(call.span)).info.path if containing else None
    place = "" if layer is None else f" of the layer {layer}"
    is_loop = "While" in operation.type or operation.type.startswith("TensorList")
    hint = "a recurrent layer with unroll=True, or " if is_loop else ""
    return ModelError(
        f"{method} has no rule for the operation {operation.type}{place}: use {hint}"
        "integrated_gradients, which needs no rules"
    )


def register_gradients(prefix: str, rules: Mapping[str, Callable[..., Any]]) -> dict[str, str]:
    """Register gradient functions with TensorFlow; return their registered names.

    Parameters
    ----------
    prefix
        Start of the registered names, which no other caller uses.
    rules
        Name of a rule -> its gradient function.
    """
    for name, rule in rules.items():
        tensorflow().RegisterGradient(prefix + name)(rule)
    return {name: prefix + name for name in rules}


def set_gradient(operation: Any, name: str, **attributes: str) -> None:
    """Let TensorFlow use a registered gradient function for an operation.

    Parameters
    ----------
    operation
        Operation of a graph, whose gradient is computed later.
    name
        Name that was given to `tf.RegisterGradient`.
    attributes
        Strings that the gradient function reads by `get_attribute`.
    """
    from tensorflow.core.framework.attr_value_pb2 import AttrValue

    operation._set_attr("_gradient_op_type", AttrValue(s=name.encode()))
    for key, value in attributes.items():
        operation._set_attr(f"_actgrid_{key}", AttrValue(s=value.encode()))


def get_attribute(operation: Any, key: str) -> str:
    """Return an attribute that `set_gradient` gave to an operation."""
    value: bytes = operation.get_attr(f"_actgrid_{key}")
    return value.decode()


def repeat_operation(operation: Any, inputs: Sequence[Any]) -> Any:
    """Add a copy of an operation with other inputs to the graph; return its first output.

    The copy has the gradient that TensorFlow knows.
    """
    attributes = {
        key: value for key, value in operation.node_def.attr.items() if not key.startswith("_")
    }
    dtypes = [tensor.dtype for tensor in operation.outputs]
    copy = operation.graph.create_op(
        operation.type, list(inputs), dtypes, attrs=attributes, op_def=operation.op_def
    )
    return copy.outputs[0]
