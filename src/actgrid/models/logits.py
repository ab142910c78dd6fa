"""Find logits and value ranges of tensors in a TensorFlow graph."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from actgrid.models.frameworks import tensorflow

__all__ = ["Logits", "compute_bounds", "find_logits", "find_softmax_logits"]


class Logits(NamedTuple):
    """Record of the logits whose softmax or sigmoid is the output of a model.

    Attributes
    ----------
    tensor
        The logits, in the shape of the output.
    activation
        ``"softmax"`` or ``"sigmoid"``.
    """

    tensor: Any
    activation: str


_LOGIT_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
# Operations that keep all values in their order.
_RESHAPING = frozenset(["ExpandDims", "Reshape", "Squeeze"])
_REDUCING = frozenset(["Max", "Mean", "Min", "Sum"])
# Operations that reorder values or drop some.
_REORDERING = frozenset(["Slice", "StridedSlice", "Transpose"])
_SLICE_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
# Clipping of probabilities within this distance of 0 and 1 is ignored.
_CLIP_TOLERANCE = 0.01


def find_logits(tensor: Any) -> Logits | None:
    """Find the logits before a final softmax or sigmoid in a TensorFlow graph.

    Operations after the activation that only move values, such as reshapes and transpositions, are
    applied to the logits. Operations that only clip probabilities near 0 and 1 are ignored. The
    classes of a softmax must stay together. Sigmoids may be concatenated, or be `p` in ``1 - p``.

    Returns
    -------
    Logits or None
        None: the tensor is not the output of a softmax or sigmoid.
    """
    operation, moves = tensor.op, []
    while (source := _find_source(operation)) is not None:
        moves.append(operation)
        operation = source.op
    moves.reverse()
    logits = _read_logits(operation)
    if logits is None:
        return None
    if logits.activation == "softmax" and not _keeps_classes(operation.outputs[0].shape, moves):
        return None
    if not moves:
        return logits
    values = logits.tensor
    for move in moves:
        values = _apply_move(move, values, list(move.inputs[1:]))
    return logits._replace(tensor=tensorflow().ensure_shape(values, tensor.shape))


def _read_logits(operation: Any) -> Logits | None:
    """Return the input of a softmax or sigmoid operation as `Logits`.

    Concatenated sigmoids, and 1 - sigmoid, are also recognized. The result is None for any other
    operation.
    """
    tf = tensorflow()
    if operation.type in _LOGIT_ACTIVATIONS:
        return Logits(operation.inputs[0], _LOGIT_ACTIVATIONS[operation.type])
    if operation.type in ("ConcatV2", "Pack"):
        joined = list(operation.inputs)[: operation.get_attr("N")]
    elif operation.type == "Sub" and _get_constant(operation.inputs[0]) == 1:
        joined = [operation.inputs[1]]
    else:
        return None
    logits = []
    for tensor in joined:
        part = find_logits(tensor)
        if part is None or part.activation != "sigmoid":
            return None
        logits.append(tf.cast(part.tensor, tf.float32))
    if operation.type == "Sub":
        return Logits(-logits[0], "sigmoid")
    if operation.type == "Pack":
        return Logits(tf.stack(logits, operation.get_attr("axis")), "sigmoid")
    return Logits(tf.concat(logits, operation.inputs[-1]), "sigmoid")


def _find_source(operation: Any) -> Any:
    """Return the input tensor of an operation that does not change its values.

    Such operations reshape, reorder, copy or cast the values, or clip them to almost 0 to 1. The
    result is None for any other operation.
    """
    operation_type, inputs = operation.type, list(operation.inputs)
    if (
        operation_type in _RESHAPING
        or operation_type in _REORDERING
        or operation_type in ("Cast", "Identity")
    ):
        return inputs[0]
    if operation_type in _REDUCING:
        axes = tensorflow().get_static_value(inputs[1])
        shape = inputs[0].shape
        is_known = shape.rank and axes is not None
        return inputs[0] if is_known and all(shape[int(axis)] == 1 for axis in axes.flat) else None
    if operation_type == "ClipByValue":
        low, high = map(_get_constant, inputs[1:])
        clips = low is None or high is None or low > _CLIP_TOLERANCE or high < 1 - _CLIP_TOLERANCE
        return None if clips else inputs[0]
    if operation_type in ("Maximum", "Minimum"):
        for tensor, limit in (inputs, inputs[::-1]):
            value = _get_constant(limit)
            if value is not None and (
                value <= _CLIP_TOLERANCE
                if operation_type == "Maximum"
                else value >= 1 - _CLIP_TOLERANCE
            ):
                return tensor
    return None


def _apply_move(operation: Any, values: Any, arguments: list[Any]) -> Any:
    """Apply an operation that only moves values, such as a transpose, to other values.

    Operations of other types return the values unchanged.

    Parameters
    ----------
    operation
        Operation of the graph whose type and attributes are used.
    values
        Tensor to apply the operation to.
    arguments
        Inputs of the operation after the first, such as the permutation.

    Returns
    -------
    tensor
        The moved values.
    """
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
        has_fixed_sides = _has_fixed_sides(output.shape)
        return tf.reshape(values, (-1, *output.shape[1:]) if has_fixed_sides else tf.shape(output))
    return values


def _keeps_classes(shape: Any, moves: list[Any]) -> bool:
    """Return whether operations after a softmax leave its classes on the last axis.

    Parameters
    ----------
    shape
        Shape of the softmax output, whose last axis has the probabilities of the classes.
    moves
        Operations that reshape, transpose or slice the softmax output, in order.

    Returns
    -------
    bool
        True if the flattened result consists of whole rows of the softmax output, in any order.
        False also if this cannot be decided.
    """
    tf = tensorflow()
    if all(move.type not in _REORDERING for move in moves):
        return True
    if not _has_fixed_sides(shape) or not all(
        _has_fixed_sides(move.outputs[0].shape) for move in moves
    ):
        return False
    # The indices of the values of one sample, moved instead of the values.
    with tf.init_scope():
        indices = tf.reshape(tf.range(shape[1:].num_elements()), (1, *shape[1:]))
        for move in moves:
            arguments = [tf.get_static_value(tensor) for tensor in move.inputs[1:]]
            if move.type in _REORDERING and any(value is None for value in arguments):
                return False
            indices = _apply_move(move, indices, arguments)
        moved_indices = indices.numpy().ravel()
    classes = shape[-1]
    if not moved_indices.size or moved_indices.size % classes:
        return False
    moved_indices = np.sort(moved_indices.reshape(-1, classes))
    return bool(
        (moved_indices == moved_indices[:, :1] // classes * classes + np.arange(classes)).all()
    )


def _has_fixed_sides(shape: Any) -> bool:
    """Return whether all axes of a tensor shape but the batch axis have known lengths."""
    return bool(shape.rank) and None not in list(shape[1:])


def _get_constant(tensor: Any) -> float | None:
    """Return the value of a constant scalar tensor; None for any other tensor."""
    value = tensorflow().get_static_value(tensor)
    return float(value) if value is not None and np.ndim(value) == 0 else None


_OUTPUT_BOUNDS = {
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


def compute_bounds(tensor: Any, depth: int = 12) -> tuple[float, float]:
    """Return bounds of the values of a symbolic tensor, from its operations.

    Parameters
    ----------
    depth
        Number of operations to follow backward.

    Returns
    -------
    tuple of float
        (low, high), infinite if not known.
    """
    operation = tensor.op
    operation_type, inputs = operation.type, list(operation.inputs)
    value = tensorflow().get_static_value(tensor)
    if value is not None and np.size(value) and np.issubdtype(value.dtype, np.number):
        return float(np.min(value)), float(np.max(value))
    if operation_type in _OUTPUT_BOUNDS:
        return _OUTPUT_BOUNDS[operation_type]
    unknown = (-math.inf, math.inf)
    if depth == 0:
        return unknown
    if operation_type in _RESHAPING | _REORDERING | {"Cast", "Identity", "Max", "Mean", "Min"}:
        return compute_bounds(inputs[0], depth - 1)
    if operation_type not in {*_BOUND_OPERATORS, "ClipByValue", "ConcatV2", "Neg"}:
        return unknown
    count = operation.get_attr("N") if operation_type == "ConcatV2" else len(inputs)
    bounds = [compute_bounds(operand, depth - 1) for operand in inputs[:count]]
    lows, highs = zip(*bounds, strict=True)
    if operation_type == "ClipByValue":
        return max(lows[0], lows[1]), min(highs[0], highs[2])
    if operation_type == "ConcatV2":
        return min(lows), max(highs)
    if operation_type == "Neg":
        return -highs[0], -lows[0]
    if operation_type == "RealDiv" and lows[1] <= 0 <= highs[1]:
        return unknown
    # The bounds of the result come from combinations of the bounds of both operands.
    candidates = [
        _BOUND_OPERATORS[operation_type](first, second)
        for first in bounds[0]
        for second in bounds[1]
    ]
    return unknown if any(map(math.isnan, candidates)) else (min(candidates), max(candidates))


_BOUND_OPERATORS: dict[str, Callable[[float, float], float]] = {
    "Add": operator.add,
    "AddV2": operator.add,
    "Maximum": max,
    "Minimum": min,
    "Mul": operator.mul,
    "RealDiv": operator.truediv,
    "Sub": operator.sub,
}


def find_softmax_logits(tensor: Any) -> Any:
    """Return the input tensor of the softmax that produced a tensor.

    The result is None if the tensor is not the output of a softmax.
    """
    logits = find_logits(tensor)
    return None if logits is None or logits.activation != "softmax" else logits.tensor
