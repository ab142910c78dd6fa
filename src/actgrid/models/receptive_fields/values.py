"""Propagation rules of operations on values: element-wise, reductions, products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actgrid.models.receptive_fields.axes import remove_axes
from actgrid.models.receptive_fields.operands import Rule, get_only_spans, read_constant, read_shape
from actgrid.models.receptive_fields.spans import UNTRACKED, ImageSpans, State, UntrackableError

__all__ = ["RULES"]

# Operations whose output values each depend only on the input values at the same position.
_ELEMENT_WISE_OPERATIONS = [
    *("Abs", "Acos", "Add", "AddN", "AddV2", "Asin", "Asinh", "Atan", "Atan2", "Atanh"),
    *("BiasAdd", "BroadcastTo", "Cast", "Ceil", "CheckNumerics", "ClipByValue", "Cos"),
    *("Cosh", "Digamma", "Div", "DivNoNan", "Elu", "EnsureShape", "Equal", "Erf", "Erfc"),
    *("Erfinv", "Exp", "Expm1", "FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars"),
    *("Floor", "FloorDiv", "FloorMod", "Greater", "GreaterEqual", "Identity", "Inv"),
    *("IsFinite", "IsInf", "IsNan", "LeakyRelu", "Less", "LessEqual", "Lgamma", "Log"),
    *("Log1p", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum", "Mod", "Mul"),
    *("MulNoNan", "Neg", "NotEqual", "Pow", "PreventGradient", "RealDiv", "Reciprocal"),
    *("Relu", "Relu6", "Rint", "Round", "Rsqrt", "Select", "SelectV2", "Selu", "Sigmoid"),
    *("Sign", "Sin", "Sinh", "Snapshot", "Softplus", "Softsign", "Sqrt", "Square"),
    *("SquaredDifference", "StopGradient", "Sub", "Tan", "Tanh", "TruncateDiv", "Xdivy"),
    *("Xlog1py", "Xlogy"),
]


def _propagate_element_wise(operation: Any, input_states: Sequence[State]) -> list[State]:
    shape = read_shape(operation.outputs[0])
    image_spans: ImageSpans | None = None
    for tensor, state in zip(operation.inputs, input_states, strict=True):
        if isinstance(state, ImageSpans):
            broadcast_spans = _broadcast_spans(state, read_shape(tensor), shape)
            image_spans = (
                broadcast_spans if image_spans is None else image_spans.union(broadcast_spans)
            )
    if image_spans is None:
        raise UntrackableError
    for tensor, state in zip(operation.inputs, input_states, strict=True):
        if state is UNTRACKED and not _is_broadcast_along(
            read_shape(tensor), shape, image_spans.axes
        ):
            raise UntrackableError
    return [image_spans] * len(operation.outputs)


def _broadcast_spans(
    image_spans: ImageSpans, sides: list[int | None], target: list[int | None]
) -> ImageSpans:
    shift = len(target) - len(sides)
    if any(sides[axis] == 1 != target[axis + shift] for axis in image_spans.axes):
        raise UntrackableError
    return image_spans.map_axes(lambda axis: axis + shift)


def _is_broadcast_along(
    sides: list[int | None], target: list[int | None], axes: tuple[int, int]
) -> bool:
    """Return whether an operand is broadcast along all image axes.

    Parameters
    ----------
    sides
        Shape of the operand.
    target
        Shape of the result.
    axes
        Numbers of the image axes of the result.
    """
    shift = len(target) - len(sides)
    return any(target[axis] != 1 for axis in axes) and all(
        axis < shift or sides[axis - shift] == 1 for axis in axes
    )


def _propagate_identity(operation: Any, input_states: Sequence[State]) -> Sequence[State]:
    return input_states


def _propagate_shape_query(operation: Any, input_states: Sequence[State]) -> list[State]:
    """Return the states of the outputs of an operation such as `tf.shape`.

    A state describes how a tensor depends on the pixels of the image. Each output has the state
    None, because a shape does not depend on the pixels.
    """
    return [None] * len(operation.outputs)


def _propagate_across_channels(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans = get_only_spans(input_states)
    if len(read_shape(operation.inputs[0])) - 1 in image_spans.axes:
        raise UntrackableError
    return [image_spans]


def _propagate_reduction(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans, axes = get_only_spans(input_states), read_constant(operation.inputs[1])
    rank = len(read_shape(operation.inputs[0]))
    removed = {axis % rank for axis in ([axes] if isinstance(axes, int) else axes)}
    reduced_spans = remove_axes(image_spans, sorted(removed))
    return [image_spans if operation.get_attr("keep_dims") else reduced_spans]


def _propagate_matrix_product(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans = get_only_spans(input_states)
    rank = len(read_shape(operation.inputs[0]))
    transpose_attribute = "transpose_a" if operation.type == "MatMul" else "adj_x"
    if operation.get_attr(transpose_attribute) or rank - 1 in image_spans.axes:
        raise UntrackableError
    shift = len(read_shape(operation.outputs[0])) - rank
    return [image_spans.map_axes(lambda axis: axis + shift)]


def _propagate_einsum(operation: Any, input_states: Sequence[State]) -> list[State]:
    position = next(index for index, state in enumerate(input_states) if state)
    image_spans = get_only_spans(input_states, position)
    terms, product = operation.get_attr("equation").decode().split("->")
    labels = terms.split(",")
    if "." in terms:
        raise UntrackableError

    def find_output_axis(axis: int) -> int:
        label = labels[position][axis]
        if label not in product or terms.count(label) > 1:
            raise UntrackableError
        return int(product.index(label))

    return [image_spans.map_axes(find_output_axis)]


def _propagate_batch_norm(operation: Any, input_states: Sequence[State]) -> list[State]:
    if operation.get_attr("is_training"):
        raise UntrackableError
    return [get_only_spans(input_states), *[None] * (len(operation.outputs) - 1)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENT_WISE_OPERATIONS, _propagate_element_wise),
    **dict.fromkeys(["IdentityN"], _propagate_identity),
    **dict.fromkeys(
        ["Shape", "ShapeN", "Size", "Rank", "OnesLike", "ZerosLike"], _propagate_shape_query
    ),
    **dict.fromkeys(["Softmax", "LogSoftmax", "LRN"], _propagate_across_channels),
    **dict.fromkeys(["Mean", "Sum", "Max", "Min", "Prod", "Any", "All"], _propagate_reduction),
    **dict.fromkeys(["MatMul", "BatchMatMulV2"], _propagate_matrix_product),
    "Einsum": _propagate_einsum,
    **dict.fromkeys(
        ["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"], _propagate_batch_norm
    ),
}
