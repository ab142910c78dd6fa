"""Read the operands of TensorFlow operations: shapes, constants, image spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from actgrid.models.frameworks import tensorflow
from actgrid.models.receptive_fields.spans import ImageSpans, State, UntrackableError

__all__ = ["Rule", "get_only_spans", "read_constant", "read_shape", "require_fixed_sides"]

# Function from a TensorFlow operation and the states of its inputs to the states of its outputs. A
# rule raises UntrackableError if the pixels that the operation reads cannot be tracked.
Rule: TypeAlias = Callable[[Any, Sequence[State]], Sequence[State]]


def get_only_spans(input_states: Sequence[State], position: int = 0) -> ImageSpans:
    """Return the image spans of an input, which alone may depend on the image.

    Parameters
    ----------
    input_states
        State of each input of an operation.
    position
        Number of the input.

    Raises
    ------
    UntrackableError
        If the input has no image spans, or another input depends on the image.
    """
    state = input_states[position]
    if not isinstance(state, ImageSpans) or any(
        other for index, other in enumerate(input_states) if index != position
    ):
        raise UntrackableError
    return state


def read_constant(tensor: Any) -> Any:
    """Return the value of a constant tensor as a list or number.

    Raises
    ------
    UntrackableError
        If the tensor is not constant.
    """
    value = tensorflow().get_static_value(tensor)
    if value is None:
        raise UntrackableError
    return value.tolist()


def read_shape(tensor: Any) -> list[int | None]:
    """Return the shape of a symbolic tensor as a list.

    Returns
    -------
    list of int or None
        Length of each axis. None: the length is not fixed.

    Raises
    ------
    UntrackableError
        If the rank is not known.
    """
    if tensor.shape.rank is None:
        raise UntrackableError
    shape: list[int | None] = tensor.shape.as_list()
    return shape


def require_fixed_sides(sides: Sequence[int | None]) -> list[int]:
    """Return axis lengths as a list; raise UntrackableError if a length is not fixed."""
    if None in sides:
        raise UntrackableError
    return list(sides)  # type: ignore[arg-type]
