"""Propagation rules of operations with windows, such as convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

_ZERO, _HALF = Fraction(0), Fraction(1, 2)


def get_window_axes(operation: Any) -> tuple[int, int]:
    """Return the two axes along which a convolution or pooling moves its window."""
    return (2, 3) if operation.get_attr("data_format") == b"NCHW" else (1, 2)


def _count_leading_pads(
    operation: Any, shape: list[int | None], kernel: int, stride: int, axis: int
) -> int:
    """Return the number of padding pixels before the first pixel of an axis.

    Parameters
    ----------
    operation
        Convolution or pooling.
    shape
        Shape of its input.
    kernel
        Length of the dilated kernel along the axis.
    stride
        Stride along the axis.
    axis
        Number of the axis.

    Returns
    -------
    int
        Number of pixels.
    """
    # `kernel` is the length of the dilated kernel.
    padding = operation.get_attr("padding")
    if padding == b"EXPLICIT":
        return int(operation.get_attr("explicit_paddings")[2 * axis])
    if padding == b"VALID":
        return 0
    total = kernel - 1
    if stride > 1:
        (length,) = require_fixed_sides([shape[axis]])
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2


def _propagate_window(
    operation: Any, image_spans: ImageSpans, kernel: Sequence[int], is_dilated: bool
) -> list[State]:
    axes = get_window_axes(operation)
    shape, strides = read_shape(operation.inputs[0]), operation.get_attr("strides")
    dilations = operation.get_attr("dilations") if is_dilated else [1] * 4

    def read(span: Span, index: int) -> Span:
        axis = axes[index]
        length = (kernel[index] - 1) * dilations[axis] + 1
        pads = _count_leading_pads(operation, shape, length, strides[axis], axis)
        return span.read(strides[axis], -pads, length - 1 - pads)

    return [image_spans.read(axes, read)] * len(operation.outputs)


def _propagate_convolution(operation: Any, input_states: Sequence[State]) -> list[State]:
    kernel = require_fixed_sides(read_shape(operation.inputs[1])[:2])
    return _propagate_window(operation, get_only_spans(input_states), kernel, is_dilated=True)


def _propagate_pooling(operation: Any, input_states: Sequence[State]) -> list[State]:
    sides = operation.get_attr("ksize")
    kernel = [sides[axis] for axis in get_window_axes(operation)]
    return _propagate_window(operation, get_only_spans(input_states), kernel, is_dilated=False)


def _propagate_transposed_convolution(operation: Any, input_states: Sequence[State]) -> list[State]:
    axes = get_window_axes(operation)
    kernel = require_fixed_sides(read_shape(operation.inputs[1])[:2])
    shape, strides = read_shape(operation.outputs[0]), operation.get_attr("strides")
    dilations = operation.get_attr("dilations")

    def read(span: Span, index: int) -> Span:
        # Input index i contributes to `length` output indices from i * stride - pads on.
        axis = axes[index]
        stride, length = strides[axis], (kernel[index] - 1) * dilations[axis] + 1
        pads = _count_leading_pads(operation, shape, length, stride, axis)
        return span.read(
            Fraction(1, stride), Fraction(pads - length + 1, stride), Fraction(pads, stride)
        )

    return [get_only_spans(input_states, 2).read(axes, read)]


def _propagate_padding(operation: Any, input_states: Sequence[State]) -> list[State]:
    image_spans, pads = get_only_spans(input_states), read_constant(operation.inputs[1])
    return [
        image_spans.read(
            image_spans.axes, lambda span, index: span.read(1, -pads[image_spans.axes[index]][0])
        )
    ]


def _propagate_space_to_batch(operation: Any, input_states: Sequence[State]) -> list[State]:
    block, pads = (read_constant(tensor) for tensor in operation.inputs[1:])
    if len(block) != 2:
        raise UntrackableError

    def read(span: Span, index: int) -> Span:
        if span.dilation > 1:
            raise UntrackableError
        return replace(span.read(1, -pads[index][0]), dilation=block[index])

    return [get_only_spans(input_states).read((1, 2), read)]


def _propagate_batch_to_space(operation: Any, input_states: Sequence[State]) -> list[State]:
    block, crops = (read_constant(tensor) for tensor in operation.inputs[1:])
    if len(block) != 2:
        raise UntrackableError

    def read(span: Span, index: int) -> Span:
        if span.dilation != block[index]:
            raise UntrackableError
        return replace(span, dilation=1).read(1, crops[index][0])

    return [get_only_spans(input_states).read((1, 2), read)]


def _propagate_depth_to_space(operation: Any, input_states: Sequence[State]) -> list[State]:
    step = Fraction(1, operation.get_attr("block_size"))
    read = get_only_spans(input_states).read(
        get_window_axes(operation), lambda span, index: span.read_floor(step, _ZERO)
    )
    return [read]


def _propagate_space_to_depth(operation: Any, input_states: Sequence[State]) -> list[State]:
    block = operation.get_attr("block_size")
    axes = get_window_axes(operation)
    return [
        get_only_spans(input_states).read(axes, lambda span, index: span.read(block, 0, block - 1))
    ]


def _make_resize_rule(
    margins: tuple[int, int], is_nearest: bool = False
) -> Callable[..., list[State]]:
    """Return the propagation rule of an operation that resizes images.

    Parameters
    ----------
    margins
        Numbers of pixels read before and after the source position, rounded down, of the centre of
        an output pixel.
    is_nearest
        Whether the operation selects the nearest pixel.

    Returns
    -------
    callable
        Function of an operation and the states of its inputs that returns the states of its
        outputs.
    """

    def resize(operation: Any, input_states: Sequence[State]) -> list[State]:
        old_sides, new_sides = (
            require_fixed_sides(read_shape(tensor)[1:3])
            for tensor in (operation.inputs[0], operation.outputs[0])
        )
        align_corners, half_pixel_centers = (
            operation.get_attr(name) for name in ("align_corners", "half_pixel_centers")
        )
        if is_nearest and align_corners:
            raise UntrackableError  # this mode rounds instead of taking the floor

        def read(span: Span, index: int) -> Span:
            old_side, new_side = old_sides[index], new_sides[index]
            if old_side == new_side:
                return span
            step = (
                Fraction(old_side - 1, max(new_side - 1, 1))
                if align_corners
                else Fraction(old_side, new_side)
            )
            first = (_HALF * step - (0 if is_nearest else _HALF)) if half_pixel_centers else _ZERO
            is_exact = step.denominator == first.denominator == 1
            return span.read_floor(step, first, (0, 0) if is_exact else margins)

        return [get_only_spans(input_states).read((1, 2), read)]

    return resize


RULES: dict[str, Rule] = {
    **dict.fromkeys(["Conv2D", "DepthwiseConv2dNative"], _propagate_convolution),
    **dict.fromkeys(["MaxPool", "AvgPool"], _propagate_pooling),
    "Conv2DBackpropInput": _propagate_transposed_convolution,
    **dict.fromkeys(["Pad", "PadV2", "MirrorPad"], _propagate_padding),
    "SpaceToBatchND": _propagate_space_to_batch,
    "BatchToSpaceND": _propagate_batch_to_space,
    "DepthToSpace": _propagate_depth_to_space,
    "SpaceToDepth": _propagate_space_to_depth,
    "ResizeNearestNeighbor": _make_resize_rule((0, 0), is_nearest=True),
    "ResizeBilinear": _make_resize_rule((0, 1)),
    "ResizeBicubic": _make_resize_rule((1, 2)),
}
