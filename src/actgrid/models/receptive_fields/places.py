"""Spans and places: the pixels of the input that each index of a tensor reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

__all__ = ["WHOLE", "CannotFollowError", "Places", "Span", "State", "States", "Whole"]


class CannotFollowError(Exception):
    """A rule cannot tell which pixels an operation reads."""


@dataclass(frozen=True)
class Span:
    """Along one axis: index i reads the input from ``start + i * stride`` on, `size` pixels.

    Between SpaceToBatchND and BatchToSpaceND, which make dilated convolutions out of others,
    neighbours are `dilation` indices apart.
    """

    size: Fraction = Fraction(1)
    stride: Fraction = Fraction(1)
    start: Fraction = Fraction(0)
    dilation: int = 1

    def read(
        self, step: Fraction | int, first: Fraction | int, last: Fraction | int | None = None
    ) -> Span:
        """Return the span of what reads, for index i, from ``i * step + first`` to ``... + last``.

        Of these only the whole numbers are read.
        """
        if self.dilation > 1 and step != 1:
            raise CannotFollowError
        last = first if last is None else last
        apart = self.stride * self.dilation
        return replace(
            self,
            size=self.size + apart * (last - first),
            stride=self.stride * step,
            start=self.start + apart * first,
        )

    def read_floor(self, step: Fraction, first: Fraction, more: tuple[int, int] = (0, 0)) -> Span:
        """Return the span of what reads about ``floor(i * step + first)``: `more` on either side.

        Bounds are as close as one line below and one above all these floors can be.
        """
        denominator = math.lcm(step.denominator, first.denominator)
        shared = math.gcd(int(step * denominator), denominator)
        remainder = int(first * denominator) % shared
        return self.read(
            step,
            first - Fraction(denominator - shared + remainder, denominator) - more[0],
            first - Fraction(remainder, denominator) + more[1],
        )

    def union(self, other: Span) -> Span:
        """Return the smallest span that holds this one and another one of the same stride."""
        if (self.stride, self.dilation) != (other.stride, other.dilation):
            raise CannotFollowError
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return replace(self, start=start, size=end - start)


@dataclass(frozen=True)
class Places:
    """A tensor that has places of the image along two of its axes.

    Where `width` is set, rows follow each other along one axis, which is both.
    """

    spans: tuple[Span, Span]
    axes: tuple[int, int]
    width: int | None = None

    def moved(self, axes: Callable[[int], int]) -> Places:
        """Return the same along other axes."""
        y, x = self.axes
        return replace(self, axes=(axes(y), axes(x)))

    def read(self, axes: tuple[int, int], how: Callable[[Span, int], Span]) -> Places:
        """Return what reads along these axes: `how` takes a span and 0 or 1."""
        if self.axes != axes or self.width is not None:
            raise CannotFollowError
        y, x = self.spans
        return replace(self, spans=(how(y, 0), how(x, 1)))

    def union(self, other: Places) -> Places:
        """Return the smallest places that hold these and other places along the same axes."""
        if (self.axes, self.width) != (other.axes, other.width):
            raise CannotFollowError
        (y, x), (other_y, other_x) = self.spans, other.spans
        return replace(self, spans=(y.union(other_y), x.union(other_x)))


class Whole:
    """A tensor that depends on the image in any other way."""


WHOLE = Whole()
# Of a tensor; None where it does not depend on the image.
State: TypeAlias = "Places | Whole | None"
States: TypeAlias = "dict[str, Places | Whole]"
