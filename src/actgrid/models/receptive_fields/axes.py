"""Propagation rules of operations that move, cut or join axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from actgrid.models.receptive_fields.operands import (
    Rule,
    get_only_spans,
    read_constant,
    read_shape,
    require_fixed_sides,
)
from actgrid.models.receptive_fields.spans import ImageSpans, Span, State, UntrackableError

__all__ = ["RULES"]


def _propagate_strided_slice(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans, shape = get_only_spans(input_states), read_shape(operation.inputs[0])
    if image_spans.width is not None:
        raise UntrackableError
    begin, steps = (read_constant(operation.inputs[index]) for index in (1, 3))

    def is_masked(name: str, bit: int) -> bool:
        return bool(operation.get_attr(f"{name}_mask") >> bit & 1)

    if any(is_masked("new_axis", bit) for bit in range(len(begin))):
        raise UntrackableError
    spans = dict(zip(image_spans.axes, image_spans.spans, strict=True))
    moves: dict[int, int] = {}
    axis = output_axis = 0
    for bit in range(len(begin)):
        axis_count = 1
        if is_masked("ellipsis", bit):
            axis_count = len(shape) - len(begin) + 1
        elif axis in spans:
            if is_masked("shrink_axis", bit) or steps[bit] < 1:
                raise UntrackableError
            first = 0 if is_masked("begin", bit) else begin[bit]
            if first < 0:
                first = max(first + require_fixed_sides([shape[axis]])[0], 0)
            spans[axis] = spans[axis].read(steps[bit], first)
        elif is_masked("shrink_axis", bit):
            axis += 1
            continue
        moves |= {axis + offset: output_axis + offset for offset in range(axis_count)}
        axis, output_axis = axis + axis_count, output_axis + axis_count
    moves |= {axis + offset: output_axis + offset for offset in range(len(shape) - axis)}
    y, x = image_spans.axes
    return [replace(image_spans, spans=(spans[y], spans[x])).map_axes(moves.__getitem__)]


def _propagate_slice(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans, begin = get_only_spans(input_states), read_constant(operation.inputs[1])
    if image_spans.width is not None:
        return [
            check_axes_unchanged(
                image_spans, read_shape(operation.inputs[0]), read_shape(operation.outputs[0])
            )
        ]
    return [
        image_spans.read(
            image_spans.axes, lambda span, index: span.read(1, begin[image_spans.axes[index]])
        )
    ]


def check_axes_unchanged(
    image_spans: ImageSpans, old_shape: list[int | None], new_shape: list[int | None]
) -> ImageSpans:
    """Return image spans unchanged if an operation keeps the image axes.

    Parameters
    ----------
    image_spans
        Range of image pixels on which each position of the operation's input depends.
    old_shape, new_shape
        Shapes of the operation's input and output.

    Raises
    ------
    UntrackableError
        If the length of an image axis differs between the shapes.
    """
    if any(old_shape[axis] != new_shape[axis] for axis in image_spans.axes):
        raise UntrackableError
    return image_spans


def _propagate_unchanged(
    operation: Any, input_states: Sequence[State], position: int = 0
) -> list[State]:
    """Return the image spans of the outputs of an operation that keeps positions.

    Each output has the spans of the input, if the image axes have the same lengths.
    """
    image_spans = get_only_spans(input_states, position)
    old_shape = read_shape(operation.inputs[position])
    return [
        check_axes_unchanged(image_spans, old_shape, read_shape(tensor))
        for tensor in operation.outputs
    ]


def _propagate_split(operation: Any, input_states: Sequence[State]) -> list[State]:
    return _propagate_unchanged(operation, input_states, 1)


def _propagate_concatenation(operation: Any, input_states: Sequence[State]) -> list[State]:
    *tensors, axis = operation.inputs
    union: ImageSpans | None = None
    for tensor, state in zip(tensors, input_states, strict=False):
        if state is None:
            continue
        if not isinstance(state, ImageSpans):
            raise UntrackableError
        if read_constant(axis) % len(read_shape(tensor)) in state.axes:
            raise UntrackableError
        union = state if union is None else union.union(state)
    return [union]


def _propagate_stack(operation: Any, input_states: Sequence[State]) -> list[State]:
    rank = len(read_shape(operation.outputs[0]))
    new_axis = operation.get_attr("axis") % rank
    union: ImageSpans | None = None
    for state in input_states:
        if state is None:
            continue
        if not isinstance(state, ImageSpans):
            raise UntrackableError
        moved_spans = state.map_axes(lambda axis: axis + (axis >= new_axis))
        union = moved_spans if union is None else union.union(moved_spans)
    return [union]


def _propagate_unstack(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans = get_only_spans(input_states)
    removed = operation.get_attr("axis") % len(read_shape(operation.inputs[0]))
    return [remove_axes(image_spans, [removed])] * len(operation.outputs)


def remove_axes(image_spans: ImageSpans, removed: Sequence[int]) -> ImageSpans:
    """Renumber the image axes in image spans after other axes are removed.

    Raises
    ------
    UntrackableError
        If an image axis is removed.
    """
    if set(removed) & set(image_spans.axes):
        raise UntrackableError
    return image_spans.map_axes(
        lambda axis: axis - sum(removed_axis < axis for removed_axis in removed)
    )


def _propagate_transpose(operation: Any, input_states: Sequence[State]) -> list[State]:
    return [get_only_spans(input_states).map_axes(read_constant(operation.inputs[1]).index)]


def _propagate_expand_dims(operation: Any, input_states: Sequence[State]) -> list[State]:
    new_axis = read_constant(operation.inputs[1])
    new_axis = (new_axis[0] if isinstance(new_axis, list) else new_axis) % len(
        read_shape(operation.outputs[0])
    )
    return [get_only_spans(input_states).map_axes(lambda axis: axis + (axis >= new_axis))]


def _propagate_squeeze(operation: Any, input_states: Sequence[State]) -> list[State]:
    shape = read_shape(operation.inputs[0])
    removed = [axis % len(shape) for axis in operation.get_attr("squeeze_dims")]
    return [
        remove_axes(
            get_only_spans(input_states),
            removed or [axis for axis, side in enumerate(shape) if side == 1],
        )
    ]


def _propagate_gather(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans, axis = get_only_spans(input_states), read_constant(operation.inputs[2])
    axis %= len(read_shape(operation.inputs[0]))
    if axis in image_spans.axes or operation.get_attr("batch_dims"):
        raise UntrackableError
    added_axes = len(read_shape(operation.inputs[1])) - 1
    return [image_spans.map_axes(lambda image_axis: image_axis + added_axes * (image_axis > axis))]


def _propagate_reshape(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans = get_only_spans(input_states)
    old_shape, new_shape = read_shape(operation.inputs[0]), read_shape(operation.outputs[0])
    if old_shape == new_shape:
        return [image_spans]
    new_spans: dict[int, tuple[int, Span]] = {}
    width: int | None = None
    spans = dict(zip(image_spans.axes, image_spans.spans, strict=True))
    for old_axes, new_axes in _group_axes(
        require_fixed_sides(old_shape), require_fixed_sides(new_shape)
    ):
        image_axes = [axis for axis in old_axes if axis in spans]
        if not image_axes:
            continue
        if image_spans.width is not None:
            # The rows of the image followed each other along one axis.
            if len(old_axes) > 1:
                raise UntrackableError
            if len(new_axes) == 2 and new_shape[new_axes[1]] == image_spans.width:
                return [ImageSpans(image_spans.spans, (new_axes[0], new_axes[1]))]
            if len(new_axes) != 1:
                raise UntrackableError
            return [replace(image_spans, axes=(new_axes[0], new_axes[0]))]
        if old_axes == list(image_spans.axes) and len(new_axes) == 1:
            return [
                ImageSpans(image_spans.spans, (new_axes[0], new_axes[0]), old_shape[old_axes[1]])
            ]
        if len(image_axes) > 1 or old_axes[0] not in spans:
            raise UntrackableError
        span = spans[old_axes[0]]
        if len(old_axes) == 1:  # an axis is split: the first part keeps the image positions
            factor = math.prod(require_fixed_sides([new_shape[axis] for axis in new_axes[1:]]))
            new_spans[old_axes[0]] = (
                new_axes[0],
                span.read(factor, 0, factor - 1) if factor > 1 else span,
            )
        elif len(new_axes) == 1:  # axes are joined: positions are repeated or interleaved
            factor = math.prod(require_fixed_sides([old_shape[axis] for axis in old_axes[1:]]))
            new_spans[old_axes[0]] = new_axes[0], span.read_floor(Fraction(1, factor), Fraction(0))
        else:
            raise UntrackableError
    if set(new_spans) != set(image_spans.axes):
        raise UntrackableError  # an image axis of length 1 cannot be told from other such axes
    (y, y_span), (x, x_span) = (new_spans[axis] for axis in image_spans.axes)
    return [ImageSpans((y_span, x_span), (y, x), width)]


def _group_axes(
    old_shape: list[int], new_shape: list[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the groups of axes that a reshape maps to each other.

    Axes of length 1 are left out.

    Yields
    ------
    tuple of list of int
        Axes of the old shape, and axes of the new shape of the same total size.
    """
    old_axes = [axis for axis, side in enumerate(old_shape) if side != 1]
    new_axes = [axis for axis, side in enumerate(new_shape) if side != 1]
    while old_axes and new_axes:
        old_group, new_group = [old_axes.pop(0)], [new_axes.pop(0)]
        sizes = old_shape[old_group[0]], new_shape[new_group[0]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                old_group.append(old_axes.pop(0))
                sizes = sizes[0] * old_shape[old_group[-1]], sizes[1]
            else:
                new_group.append(new_axes.pop(0))
                sizes = sizes[0], sizes[1] * new_shape[new_group[-1]]
        yield old_group, new_group


RULES: dict[str, Rule] = {
    "StridedSlice": _propagate_strided_slice,
    "Slice": _propagate_slice,
    **dict.fromkeys(["SplitV", "Tile"], _propagate_unchanged),
    "Split": _propagate_split,
    "ConcatV2": _propagate_concatenation,
    "Pack": _propagate_stack,
    "Unpack": _propagate_unstack,
    "Transpose": _propagate_transpose,
    "ExpandDims": _propagate_expand_dims,
    "Squeeze": _propagate_squeeze,
    "GatherV2": _propagate_gather,
    "Reshape": _propagate_reshape,
}
