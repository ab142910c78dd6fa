"""Read the operands of an operation for the rules: shapes, constants, the input with places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from actgrid.models.frameworks import tensorflow
from actgrid.models.receptive_fields.places import CannotFollowError, Places, State

__all__ = ["Rule", "constant", "known_sides", "only_places", "shape_of"]

# From an operation of TensorFlow and the states of its inputs to those of its outputs. A rule
# raises CannotFollowError where it cannot tell.
Rule: TypeAlias = Callable[[Any, Sequence[State]], Sequence[State]]


def only_places(given: Sequence[State], position: int = 0) -> Places:
    """Return the state of the one input that depends on the image."""
    state = given[position]
    if not isinstance(state, Places) or any(
        other for at, other in enumerate(given) if at != position
    ):
        raise CannotFollowError
    return state


def constant(tensor: Any) -> Any:
    """Return the value of a tensor as a list or number."""
    value = tensorflow().get_static_value(tensor)
    if value is None:
        raise CannotFollowError
    return value.tolist()


def shape_of(tensor: Any) -> list[int | None]:
    """Return the sides of a symbolic tensor, None where a side is not fixed."""
    if tensor.shape.rank is None:
        raise CannotFollowError
    shape: list[int | None] = tensor.shape.as_list()
    return shape


def known_sides(sides: Sequence[int | None]) -> list[int]:
    """Return sides that must all be fixed."""
    if None in sides:
        raise CannotFollowError
    return list(sides)  # type: ignore[arg-type]
