"""Describe the receptive field of a layer's output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

__all__ = ["Box", "Length", "ReceptiveField"]

Length: TypeAlias = int | Fraction
# Top, left, bottom, right. Bottom and right are exclusive.
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """The receptive fields of the positions of an activation, in input pixels.

    Lengths are integers, or fractions behind layers that enlarge the image.

    Parameters
    ----------
    size : tuple of (int or fractions.Fraction)
        (height, width) of the receptive field of one position.
    stride : tuple of (int or fractions.Fraction)
        (y, x) distance between the receptive fields of neighbouring positions.
    start : tuple of (int or fractions.Fraction)
        (y, x) of the top left corner of the receptive field of position (0, 0); negative in the
        padding.

    Examples
    --------
    >>> from actgrid.models import ReceptiveField
    >>> field = ReceptiveField(size=(3, 3), stride=(2, 2), start=(-1, -1))
    >>> field.window((0, 4))
    (-1, 7, 2, 10)
    >>> field.box((0, 4), (224, 224))
    (0, 7, 2, 10)
    """

    size: tuple[Length, Length]
    stride: tuple[Length, Length]
    start: tuple[Length, Length]

    def window(self, position: Sequence[int]) -> Box:
        """Return the receptive field of a position as a box, not clipped to the image.

        Parameters
        ----------
        position : sequence of int
            (y, x) in the activation.

        Returns
        -------
        tuple of int
            Top, left, bottom and right in pixels; bottom and right are exclusive.
        """
        first_y, first_x = (
            start + int(index) * stride
            for index, stride, start in zip(position, self.stride, self.start, strict=True)
        )
        height, width = self.size
        # Fractional bounds are rounded inwards: a pixel counts only if it lies inside completely.
        return (
            math.ceil(first_y),
            math.ceil(first_x),
            math.floor(first_y + height),
            math.floor(first_x + width),
        )

    def box(self, position: Sequence[int], size: tuple[int, int]) -> Box:
        """Return the receptive field of a position as a box, clipped to the image.

        Parameters
        ----------
        position : sequence of int
            (y, x) in the activation.
        size : tuple of int
            (height, width) of the image in pixels.

        Returns
        -------
        tuple of int
            Top, left, bottom and right in pixels; bottom and right are exclusive. The box is empty
            if the receptive field lies in the padding.
        """
        height, width = size
        top, left, bottom, right = self.window(position)
        return (
            min(max(top, 0), height),
            min(max(left, 0), width),
            min(max(bottom, 0), height),
            min(max(right, 0), width),
        )
