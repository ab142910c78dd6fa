"""Rules of operations that move, cut or join axes: slices, transpositions, reshapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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


def _strided_slice(operation: Any, given: Sequence[State]) -> list[State]:
    places, shape = only_places(given), shape_of(operation.inputs[0])
    if places.width is not None:
        raise CannotFollowError
    begin, steps = (constant(operation.inputs[at]) for at in (1, 3))

    def masked(name: str, bit: int) -> bool:
        return bool(operation.get_attr(f"{name}_mask") >> bit & 1)

    if any(masked("new_axis", bit) for bit in range(len(begin))):
        raise CannotFollowError
    spans = dict(zip(places.axes, places.spans, strict=True))
    moves: dict[int, int] = {}
    axis = kept = 0
    for bit in range(len(begin)):
        skipped = 1
        if masked("ellipsis", bit):
            skipped = len(shape) - len(begin) + 1
        elif axis in spans:
            if masked("shrink_axis", bit) or steps[bit] < 1:
                raise CannotFollowError
            first = 0 if masked("begin", bit) else begin[bit]
            if first < 0:
                first = max(first + known_sides([shape[axis]])[0], 0)
            spans[axis] = spans[axis].read(steps[bit], first)
        elif masked("shrink_axis", bit):
            axis += 1
            continue
        moves |= {axis + offset: kept + offset for offset in range(skipped)}
        axis, kept = axis + skipped, kept + skipped
    moves |= {axis + offset: kept + offset for offset in range(len(shape) - axis)}
    y, x = places.axes
    return [replace(places, spans=(spans[y], spans[x])).moved(moves.__getitem__)]


def _slice(operation: Any, given: Sequence[State]) -> list[State]:
    places, begin = only_places(given), constant(operation.inputs[1])
    if places.width is not None:
        return [check_axes(places, shape_of(operation.inputs[0]), shape_of(operation.outputs[0]))]
    return [places.read(places.axes, lambda span, at: span.read(1, begin[places.axes[at]]))]


def check_axes(places: Places, before: list[int | None], after: list[int | None]) -> Places:
    """Return places that are unchanged if their axes are."""
    if any(before[axis] != after[axis] for axis in places.axes):
        raise CannotFollowError
    return places


def _same_places(operation: Any, given: Sequence[State], position: int = 0) -> list[State]:
    """Return the places of an operation that leaves their axes at the same length."""
    places, before = only_places(given, position), shape_of(operation.inputs[position])
    return [check_axes(places, before, shape_of(tensor)) for tensor in operation.outputs]


def _split(operation: Any, given: Sequence[State]) -> list[State]:
    return _same_places(operation, given, 1)


def _concatenation(operation: Any, given: Sequence[State]) -> list[State]:
    *tensors, axis = operation.inputs
    found: Places | None = None
    for tensor, state in zip(tensors, given, strict=False):
        if state is None:
            continue
        if not isinstance(state, Places):
            raise CannotFollowError
        if constant(axis) % len(shape_of(tensor)) in state.axes:
            raise CannotFollowError
        found = state if found is None else found.union(state)
    return [found]


def _stacked(operation: Any, given: Sequence[State]) -> list[State]:
    rank = len(shape_of(operation.outputs[0]))
    new = operation.get_attr("axis") % rank
    found: Places | None = None
    for state in given:
        if state is None:
            continue
        if not isinstance(state, Places):
            raise CannotFollowError
        moved = state.moved(lambda axis: axis + (axis >= new))
        found = moved if found is None else found.union(moved)
    return [found]


def _unstacked(operation: Any, given: Sequence[State]) -> list[State]:
    places = only_places(given)
    removed = operation.get_attr("axis") % len(shape_of(operation.inputs[0]))
    return [remove_axes(places, [removed])] * len(operation.outputs)


def remove_axes(places: Places, removed: Sequence[int]) -> Places:
    """Return places along the axes that are left."""
    if set(removed) & set(places.axes):
        raise CannotFollowError
    return places.moved(lambda axis: axis - sum(earlier < axis for earlier in removed))


def _transposition(operation: Any, given: Sequence[State]) -> list[State]:
    return [only_places(given).moved(constant(operation.inputs[1]).index)]


def _expansion(operation: Any, given: Sequence[State]) -> list[State]:
    new = constant(operation.inputs[1])
    new = (new[0] if isinstance(new, list) else new) % len(shape_of(operation.outputs[0]))
    return [only_places(given).moved(lambda axis: axis + (axis >= new))]


def _squeeze(operation: Any, given: Sequence[State]) -> list[State]:
    shape = shape_of(operation.inputs[0])
    removed = [axis % len(shape) for axis in operation.get_attr("squeeze_dims")]
    return [
        remove_axes(
            only_places(given), removed or [axis for axis, side in enumerate(shape) if side == 1]
        )
    ]


def _gathered(operation: Any, given: Sequence[State]) -> list[State]:
    places, axis = only_places(given), constant(operation.inputs[2])
    axis %= len(shape_of(operation.inputs[0]))
    if axis in places.axes or operation.get_attr("batch_dims"):
        raise CannotFollowError
    more = len(shape_of(operation.inputs[1])) - 1
    return [places.moved(lambda at: at + more * (at > axis))]


def _reshaping(operation: Any, given: Sequence[State]) -> list[State]:
    places = only_places(given)
    before, after = shape_of(operation.inputs[0]), shape_of(operation.outputs[0])
    if before == after:
        return [places]
    found: dict[int, tuple[int, Span]] = {}
    width: int | None = None
    spans = dict(zip(places.axes, places.spans, strict=True))
    for old, new in _groups(known_sides(before), known_sides(after)):
        here = [axis for axis in old if axis in spans]
        if not here:
            continue
        if places.width is not None:
            # Rows that followed each other along one axis.
            if len(old) > 1:
                raise CannotFollowError
            if len(new) == 2 and after[new[1]] == places.width:
                return [Places(places.spans, (new[0], new[1]))]
            if len(new) != 1:
                raise CannotFollowError
            return [replace(places, axes=(new[0], new[0]))]
        if old == list(places.axes) and len(new) == 1:
            return [Places(places.spans, (new[0], new[0]), before[old[1]])]
        if len(here) > 1 or old[0] not in spans:
            raise CannotFollowError
        span = spans[old[0]]
        if len(old) == 1:  # an axis is cut into several: the first still counts places
            within = math.prod(known_sides([after[axis] for axis in new[1:]]))
            found[old[0]] = new[0], span.read(within, 0, within - 1) if within > 1 else span
        elif len(new) == 1:  # each place is repeated, or places interleave
            within = math.prod(known_sides([before[axis] for axis in old[1:]]))
            found[old[0]] = new[0], span.read_floor(Fraction(1, within), Fraction(0))
        else:
            raise CannotFollowError
    if set(found) != set(places.axes):
        raise CannotFollowError  # an axis of one pixel, which cannot be told from any other
    (y, y_span), (x, x_span) = (found[axis] for axis in places.axes)
    return [Places((y_span, x_span), (y, x), width)]


def _groups(before: list[int], after: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield which axes become which when an array is reshaped, without those of length 1."""
    old = [axis for axis, side in enumerate(before) if side != 1]
    new = [axis for axis, side in enumerate(after) if side != 1]
    while old and new:
        first, second = [old.pop(0)], [new.pop(0)]
        sizes = before[first[0]], after[second[0]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                first.append(old.pop(0))
                sizes = sizes[0] * before[first[-1]], sizes[1]
            else:
                second.append(new.pop(0))
                sizes = sizes[0], sizes[1] * after[second[-1]]
        yield first, second


RULES: dict[str, Rule] = {
    "StridedSlice": _strided_slice,
    "Slice": _slice,
    **dict.fromkeys(["SplitV", "Tile"], _same_places),
    "Split": _split,
    "ConcatV2": _concatenation,
    "Pack": _stacked,
    "Unpack": _unstacked,
    "Transpose": _transposition,
    "ExpandDims": _expansion,
    "Squeeze": _squeeze,
    "GatherV2": _gathered,
    "Reshape": _reshaping,
}
