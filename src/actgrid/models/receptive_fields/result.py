"""The receptive field of a layer's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

__all__ = ["Box", "Length", "ReceptiveField"]

Length: TypeAlias = int | Fraction
# top, left, bottom, right; the last two are the first row and column outside.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels that each place of an activation sees, in the model's input.

    Lengths are whole numbers, or fractions where layers enlarge.

    Attributes
    ----------
    size
        (height, width) of what one place sees.
    stride
        (y, x): how far apart what two neighbours see is.
    start
        (y, x): where what place (0, 0) sees begins; negative in the padding.

    Examples
    --------
    >>> field = ReceptiveField(size=(3, 3), stride=(2, 2), start=(-1, -1))
    >>> field.window((0, 4))
    (-1, 7, 2, 10)
    >>> field.box((0, 4), (224, 224))
    (0, 7, 2, 10)
    """

    size: tuple[Length, Length]
    stride: tuple[Length, Length]
    start: tuple[Length, Length]

    def window(self, place: Sequence[int]) -> Box:
        """Return what the place (y, x) sees, as if the image went on beyond its edges."""
        at_y, at_x = (
            start + int(at) * stride
            for at, stride, start in zip(place, self.stride, self.start, strict=True)
        )
        height, width = self.size
        # Of the pixels at the bounds none is seen in part.
        return math.ceil(at_y), math.ceil(at_x), math.floor(at_y + height), math.floor(at_x + width)

    def box(self, place: Sequence[int], size: tuple[int, int]) -> Box:
        """Return what the place (y, x) sees of an image of this (height, width).

        It is empty where that is padding alone.
        """
        height, width = size
        top, left, bottom, right = self.window(place)
        return (
            min(max(top, 0), height),
            min(max(left, 0), width),
            min(max(bottom, 0), height),
            min(max(right, 0), width),
        )
