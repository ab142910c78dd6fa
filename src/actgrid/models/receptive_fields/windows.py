"""Rules of operations whose windows read several pixels: convolutions, pooling, resizing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from actgrid.models.receptive_fields.operands import (
    Rule,
    constant,
    known_sides,
    only_places,
    shape_of,
)
from actgrid.models.receptive_fields.places import CannotFollowError, Places, Span, State

__all__ = ["RULES"]

_ZERO, _HALF = Fraction(0), Fraction(1, 2)


def window_axes(operation: Any) -> tuple[int, int]:
    """Return which axes a convolution or a pooling goes along."""
    return (2, 3) if operation.get_attr("data_format") == b"NCHW" else (1, 2)


def _pads(operation: Any, shape: list[int | None], kernel: int, stride: int, axis: int) -> int:
    """Return how many pixels are added before the first; `kernel` with its holes."""
    padding = operation.get_attr("padding")
    if padding == b"EXPLICIT":
        return int(operation.get_attr("explicit_paddings")[2 * axis])
    if padding == b"VALID":
        return 0
    total = kernel - 1
    if stride > 1:
        (length,) = known_sides([shape[axis]])
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2


def _window(operation: Any, places: Places, kernel: Sequence[int], holes: bool) -> list[State]:
    axes = window_axes(operation)
    shape, strides = shape_of(operation.inputs[0]), operation.get_attr("strides")
    dilations = operation.get_attr("dilations") if holes else [1] * 4

    def read(span: Span, at: int) -> Span:
        axis = axes[at]
        length = (kernel[at] - 1) * dilations[axis] + 1
        pads = _pads(operation, shape, length, strides[axis], axis)
        return span.read(strides[axis], -pads, length - 1 - pads)

    return [places.read(axes, read)] * len(operation.outputs)


def _convolution(operation: Any, given: Sequence[State]) -> list[State]:
    kernel = known_sides(shape_of(operation.inputs[1])[:2])
    return _window(operation, only_places(given), kernel, holes=True)


def _pooling(operation: Any, given: Sequence[State]) -> list[State]:
    sides = operation.get_attr("ksize")
    kernel = [sides[axis] for axis in window_axes(operation)]
    return _window(operation, only_places(given), kernel, holes=False)


def _transposed_convolution(operation: Any, given: Sequence[State]) -> list[State]:
    axes = window_axes(operation)
    kernel = known_sides(shape_of(operation.inputs[1])[:2])
    shape, strides = shape_of(operation.outputs[0]), operation.get_attr("strides")
    dilations = operation.get_attr("dilations")

    def read(span: Span, at: int) -> Span:
        # Index i of the input goes to those from i * stride - pads on.
        axis = axes[at]
        stride, length = strides[axis], (kernel[at] - 1) * dilations[axis] + 1
        pads = _pads(operation, shape, length, stride, axis)
        return span.read(
            Fraction(1, stride), Fraction(pads - length + 1, stride), Fraction(pads, stride)
        )

    return [only_places(given, 2).read(axes, read)]


def _padded(operation: Any, given: Sequence[State]) -> list[State]:
    places, pads = only_places(given), constant(operation.inputs[1])
    return [places.read(places.axes, lambda span, at: span.read(1, -pads[places.axes[at]][0]))]


def _space_to_batch(operation: Any, given: Sequence[State]) -> list[State]:
    block, pads = (constant(tensor) for tensor in operation.inputs[1:])
    if len(block) != 2:
        raise CannotFollowError

    def read(span: Span, at: int) -> Span:
        if span.dilation > 1:
            raise CannotFollowError
        return replace(span.read(1, -pads[at][0]), dilation=block[at])

    return [only_places(given).read((1, 2), read)]


def _batch_to_space(operation: Any, given: Sequence[State]) -> list[State]:
    block, crops = (constant(tensor) for tensor in operation.inputs[1:])
    if len(block) != 2:
        raise CannotFollowError

    def read(span: Span, at: int) -> Span:
        if span.dilation != block[at]:
            raise CannotFollowError
        return replace(span, dilation=1).read(1, crops[at][0])

    return [only_places(given).read((1, 2), read)]


def _depth_to_space(operation: Any, given: Sequence[State]) -> list[State]:
    step = Fraction(1, operation.get_attr("block_size"))
    read = only_places(given).read(
        window_axes(operation), lambda span, at: span.read_floor(step, _ZERO)
    )
    return [read]


def _space_to_depth(operation: Any, given: Sequence[State]) -> list[State]:
    block = operation.get_attr("block_size")
    axes = window_axes(operation)
    return [only_places(given).read(axes, lambda span, at: span.read(block, 0, block - 1))]


def _resizing(more: tuple[int, int], nearest: bool = False) -> Callable[..., list[State]]:
    """Return what a resize reads about the floor of where a pixel's centre comes from."""

    def resize(operation: Any, given: Sequence[State]) -> list[State]:
        before, after = (
            known_sides(shape_of(tensor)[1:3])
            for tensor in (operation.inputs[0], operation.outputs[0])
        )
        corners, centres = (
            operation.get_attr(name) for name in ("align_corners", "half_pixel_centers")
        )
        if nearest and corners:
            raise CannotFollowError  # it rounds

        def read(span: Span, at: int) -> Span:
            old, new = before[at], after[at]
            if old == new:
                return span
            step = Fraction(old - 1, max(new - 1, 1)) if corners else Fraction(old, new)
            first = (_HALF * step - (0 if nearest else _HALF)) if centres else _ZERO
            exact = step.denominator == first.denominator == 1
            return span.read_floor(step, first, (0, 0) if exact else more)

        return [only_places(given).read((1, 2), read)]

    return resize


RULES: dict[str, Rule] = {
    **dict.fromkeys(["Conv2D", "DepthwiseConv2dNative"], _convolution),
    **dict.fromkeys(["MaxPool", "AvgPool"], _pooling),
    "Conv2DBackpropInput": _transposed_convolution,
    **dict.fromkeys(["Pad", "PadV2", "MirrorPad"], _padded),
    "SpaceToBatchND": _space_to_batch,
    "BatchToSpaceND": _batch_to_space,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "ResizeNearestNeighbor": _resizing((0, 0), nearest=True),
    "ResizeBilinear": _resizing((0, 1)),
    "ResizeBicubic": _resizing((1, 2)),
}
