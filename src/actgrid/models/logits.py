"""Find logits before a softmax or sigmoid, and bounds of tensors, in a graph."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from actgrid.models.frameworks import tensorflow

__all__ = ["Logits", "before_softmax", "bounds_of", "logits_of"]


class Logits(NamedTuple):
    """What a model's output is a softmax or sigmoid of.

    `tensor` has the shape of the output; `activation` is ``"softmax"`` or ``"sigmoid"``.
    """

    tensor: Any
    activation: str


_LOGIT_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
# Operations that keep all values, in their order.
_RESHAPING = frozenset(["ExpandDims", "Reshape", "Squeeze"])
_REDUCING = frozenset(["Max", "Mean", "Min", "Sum"])
# Operations that change the order of values, or leave some out.
_REORDERING = frozenset(["Slice", "StridedSlice", "Transpose"])
_SLICE_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
# Probabilities that are clipped at most so far from 0 and 1 stay what they are.
_CLIPPED = 0.01


def logits_of(tensor: Any) -> Logits | None:
    """Return the logits before a softmax or sigmoid; None if a tensor comes from neither.

    Operations after the activation are applied to the logits if they only move values, such as
    reshapes and transpositions, and ignored if they only clip probabilities near 0 and 1. A
    softmax must keep its classes together. Sigmoids may be concatenated, or be `p` in ``1 - p``.
    """
    operation, moves = tensor.op, []
    while (source := _source(operation)) is not None:
        moves.append(operation)
        operation = source.op
    moves.reverse()
    logits = _logits_before(operation)
    if logits is None:
        return None
    if logits.activation == "softmax" and not _keeps_classes(operation.outputs[0].shape, moves):
        return None
    if not moves:
        return logits
    moved = logits.tensor
    for move in moves:
        moved = _moved(move, moved, list(move.inputs[1:]))
    return logits._replace(tensor=tensorflow().ensure_shape(moved, tensor.shape))


def _logits_before(operation: Any) -> Logits | None:
    """Return the logits of an operation that is an activation, or joins or negates sigmoids."""
    tf = tensorflow()
    if operation.type in _LOGIT_ACTIVATIONS:
        return Logits(operation.inputs[0], _LOGIT_ACTIVATIONS[operation.type])
    if operation.type in ("ConcatV2", "Pack"):
        joined = list(operation.inputs)[: operation.get_attr("N")]
    elif operation.type == "Sub" and _constant(operation.inputs[0]) == 1:
        joined = [operation.inputs[1]]
    else:
        return None
    logits = []
    for tensor in joined:
        found = logits_of(tensor)
        if found is None or found.activation != "sigmoid":
            return None
        logits.append(tf.cast(found.tensor, tf.float32))
    if operation.type == "Sub":
        return Logits(-logits[0], "sigmoid")
    if operation.type == "Pack":
        return Logits(tf.stack(logits, operation.get_attr("axis")), "sigmoid")
    return Logits(tf.concat(logits, operation.inputs[-1]), "sigmoid")


def _source(operation: Any) -> Any:
    """Return the input that an operation only moves or clips near 0 and 1, or None."""
    kind, inputs = operation.type, list(operation.inputs)
    if kind in _RESHAPING or kind in _REORDERING or kind in ("Cast", "Identity"):
        return inputs[0]
    if kind in _REDUCING:
        axes = tensorflow().get_static_value(inputs[1])
        shape = inputs[0].shape
        alone = shape.rank and axes is not None
        return inputs[0] if alone and all(shape[int(axis)] == 1 for axis in axes.flat) else None
    if kind == "ClipByValue":
        low, high = map(_constant, inputs[1:])
        clips = low is None or high is None or low > _CLIPPED or high < 1 - _CLIPPED
        return None if clips else inputs[0]
    if kind in ("Maximum", "Minimum"):
        for tensor, limit in (inputs, inputs[::-1]):
            value = _constant(limit)
            if value is not None and (
                value <= _CLIPPED if kind == "Maximum" else value >= 1 - _CLIPPED
            ):
                return tensor
    return None


def _moved(operation: Any, values: Any, arguments: list[Any]) -> Any:
    """Move values as an operation does; see `_source`."""
    tf = tensorflow()
    if operation.type == "Transpose":
        return tf.transpose(values, *arguments)
    if operation.type == "Slice":
        return tf.slice(values, *arguments)
    if operation.type == "StridedSlice":
        masks = {name: operation.get_attr(name) for name in _SLICE_MASKS}
        return tf.strided_slice(values, *arguments, **masks)
    if operation.type in _RESHAPING or operation.type in _REDUCING:
        output = operation.outputs[0]
        known = _has_sides(output.shape)
        return tf.reshape(values, (-1, *output.shape[1:]) if known else tf.shape(output))
    return values


def _keeps_classes(shape: Any, moves: list[Any]) -> bool:
    """Return whether moves keep the classes of each softmax, on the last axis, together."""
    tf = tensorflow()
    if all(move.type not in _REORDERING for move in moves):
        return True
    if not _has_sides(shape) or not all(_has_sides(move.outputs[0].shape) for move in moves):
        return False
    # Numbers of the values of one sample, moved in their place.
    with tf.init_scope():
        numbers = tf.reshape(tf.range(shape[1:].num_elements()), (1, *shape[1:]))
        for move in moves:
            arguments = [tf.get_static_value(tensor) for tensor in move.inputs[1:]]
            if move.type in _REORDERING and any(value is None for value in arguments):
                return False
            numbers = _moved(move, numbers, arguments)
        found = numbers.numpy().ravel()
    classes = shape[-1]
    if not found.size or found.size % classes:
        return False
    found = np.sort(found.reshape(-1, classes))
    return bool((found == found[:, :1] // classes * classes + np.arange(classes)).all())


def _has_sides(shape: Any) -> bool:
    """Return whether a shape is known but for the number of samples."""
    return bool(shape.rank) and None not in list(shape[1:])


def _constant(tensor: Any) -> float | None:
    """Return the number that a tensor always is; None if it is not one."""
    value = tensorflow().get_static_value(tensor)
    return float(value) if value is not None and np.ndim(value) == 0 else None


_BOUNDS = {
    "Cos": (-1, 1),
    "Erf": (-1, 1),
    "Exp": (0, math.inf),
    "Relu": (0, math.inf),
    "Relu6": (0, 6),
    "Sigmoid": (0, 1),
    "Sin": (-1, 1),
    "Softmax": (0, 1),
    "Softplus": (0, math.inf),
    "Softsign": (-1, 1),
    "Tanh": (-1, 1),
}


def bounds_of(tensor: Any, depth: int = 12) -> tuple[float, float]:
    """Return the least and the largest value that the last operations let a tensor have."""
    operation = tensor.op
    kind, inputs = operation.type, list(operation.inputs)
    value = tensorflow().get_static_value(tensor)
    if value is not None and np.size(value) and np.issubdtype(value.dtype, np.number):
        return float(np.min(value)), float(np.max(value))
    if kind in _BOUNDS:
        return _BOUNDS[kind]
    unknown = (-math.inf, math.inf)
    if depth == 0:
        return unknown
    if kind in _RESHAPING | _REORDERING | {"Cast", "Identity", "Max", "Mean", "Min"}:
        return bounds_of(inputs[0], depth - 1)
    if kind not in {*_ENDS, "ClipByValue", "ConcatV2", "Neg"}:
        return unknown
    count = operation.get_attr("N") if kind == "ConcatV2" else len(inputs)
    bounds = [bounds_of(operand, depth - 1) for operand in inputs[:count]]
    lows, highs = zip(*bounds, strict=True)
    if kind == "ClipByValue":
        return max(lows[0], lows[1]), min(highs[0], highs[2])
    if kind == "ConcatV2":
        return min(lows), max(highs)
    if kind == "Neg":
        return -highs[0], -lows[0]
    if kind == "RealDiv" and lows[1] <= 0 <= highs[1]:
        return unknown
    # An end of the range comes from ends of both ranges.
    ends = [_ENDS[kind](first, second) for first in bounds[0] for second in bounds[1]]
    return unknown if any(map(math.isnan, ends)) else (min(ends), max(ends))


_ENDS: dict[str, Callable[[float, float], float]] = {
    "Add": operator.add,
    "AddV2": operator.add,
    "Maximum": max,
    "Minimum": min,
    "Mul": operator.mul,
    "RealDiv": operator.truediv,
    "Sub": operator.sub,
}


def before_softmax(tensor: Any) -> Any:
    """Return what a symbolic tensor is the softmax of; None if it is not seen to be one."""
    logits = logits_of(tensor)
    return None if logits is None or logits.activation != "softmax" else logits.tensor
