"""Rules of operations on values: element by element, reductions, products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from actgrid.models.receptive_fields.axes import remove_axes
from actgrid.models.receptive_fields.operands import Rule, constant, only_places, shape_of
from actgrid.models.receptive_fields.places import WHOLE, CannotFollowError, Places, State

__all__ = ["RULES"]

# Operations whose every output value comes from the input values at the same place.
_ELEMENT_WISE = [
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


def _element_wise(operation: Any, given: Sequence[State]) -> list[State]:
    shape = shape_of(operation.outputs[0])
    places: Places | None = None
    for tensor, state in zip(operation.inputs, given, strict=True):
        if isinstance(state, Places):
            moved = _broadcast(state, shape_of(tensor), shape)
            places = moved if places is None else places.union(moved)
    if places is None:
        raise CannotFollowError
    for tensor, state in zip(operation.inputs, given, strict=True):
        if state is WHOLE and not _is_broadcast(shape_of(tensor), shape, places.axes):
            raise CannotFollowError
    return [places] * len(operation.outputs)


def _broadcast(places: Places, sides: list[int | None], to: list[int | None]) -> Places:
    shift = len(to) - len(sides)
    if any(sides[axis] == 1 != to[axis + shift] for axis in places.axes):
        raise CannotFollowError
    return places.moved(lambda axis: axis + shift)


def _is_broadcast(sides: list[int | None], to: list[int | None], axes: tuple[int, int]) -> bool:
    """Return whether a tensor is broadcast along the axes of places, which are longer than 1."""
    shift = len(to) - len(sides)
    return any(to[axis] != 1 for axis in axes) and all(
        axis < shift or sides[axis - shift] == 1 for axis in axes
    )


def _pass_on(operation: Any, given: Sequence[State]) -> Sequence[State]:
    return given


def _no_part(operation: Any, given: Sequence[State]) -> list[State]:
    """Return the state of what knows shapes only."""
    return [None] * len(operation.outputs)


def _across_channels(operation: Any, given: Sequence[State]) -> list[State]:
    places = only_places(given)
    if len(shape_of(operation.inputs[0])) - 1 in places.axes:
        raise CannotFollowError
    return [places]


def _reduction(operation: Any, given: Sequence[State]) -> list[State]:
    places, axes = only_places(given), constant(operation.inputs[1])
    rank = len(shape_of(operation.inputs[0]))
    removed = {axis % rank for axis in ([axes] if isinstance(axes, int) else axes)}
    found = remove_axes(places, sorted(removed))
    return [places if operation.get_attr("keep_dims") else found]


def _matrix_product(operation: Any, given: Sequence[State]) -> list[State]:
    places = only_places(given)
    rank = len(shape_of(operation.inputs[0]))
    turned = "transpose_a" if operation.type == "MatMul" else "adj_x"
    if operation.get_attr(turned) or rank - 1 in places.axes:
        raise CannotFollowError
    shift = len(shape_of(operation.outputs[0])) - rank
    return [places.moved(lambda axis: axis + shift)]


def _einsum(operation: Any, given: Sequence[State]) -> list[State]:
    position = next(at for at, state in enumerate(given) if state)
    places = only_places(given, position)
    terms, product = operation.get_attr("equation").decode().split("->")
    labels = terms.split(",")
    if "." in terms:
        raise CannotFollowError

    def move(axis: int) -> int:
        label = labels[position][axis]
        if label not in product or terms.count(label) > 1:
            raise CannotFollowError
        return int(product.index(label))

    return [places.moved(move)]


def _batch_norm(operation: Any, given: Sequence[State]) -> list[State]:
    if operation.get_attr("is_training"):
        raise CannotFollowError
    return [only_places(given), *[None] * (len(operation.outputs) - 1)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENT_WISE, _element_wise),
    **dict.fromkeys(["IdentityN"], _pass_on),
    **dict.fromkeys(["Shape", "ShapeN", "Size", "Rank", "OnesLike", "ZerosLike"], _no_part),
    **dict.fromkeys(["Softmax", "LogSoftmax", "LRN"], _across_channels),
    **dict.fromkeys(["Mean", "Sum", "Max", "Min", "Prod", "Any", "All"], _reduction),
    **dict.fromkeys(["MatMul", "BatchMatMulV2"], _matrix_product),
    "Einsum": _einsum,
    **dict.fromkeys(["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"], _batch_norm),
}
