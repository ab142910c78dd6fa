"""Represent the pixels of the model input that each index of a tensor depends on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeAlias

__all__ = ["UNTRACKED", "ImageSpans", "Span", "State", "States", "UntrackableError", "Untracked"]


class UntrackableError(Exception):
    """Raised if the pixels that an operation reads cannot be tracked."""


@dataclass(frozen=True)
class Span:
    """Record of the input pixels that the indices of a tensor axis depend on.

    Index i depends on `size` pixels from ``start + i * stride`` on. Between SpaceToBatchND and
    BatchToSpaceND, which implement dilated convolutions, neighbouring pixels are `dilation` indices
    apart.
    """

    size: Fraction = Fraction(1)
    stride: Fraction = Fraction(1)
    start: Fraction = Fraction(0)
    dilation: int = 1

    def read(
        self, step: Fraction | int, first: Fraction | int, last: Fraction | int | None = None
    ) -> Span:
        """Return the span of the output of an operation that reads windows of indices.

        Output index i reads the integers from ``i * step + first`` to ``i * step + last`` along
        this axis.

        Returns
        -------
        Span
            Pixels that the windows from `first` to `last` depend on.
        """
        if self.dilation > 1 and step != 1:
            raise UntrackableError
        last = first if last is None else last
        spacing = self.stride * self.dilation
        return replace(
            self,
            size=self.size + spacing * (last - first),
            stride=self.stride * step,
            start=self.start + spacing * first,
        )

    def read_floor(
        self, step: Fraction, first: Fraction, margins: tuple[int, int] = (0, 0)
    ) -> Span:
        """Return the span of the output of an operation that reads at rounded positions.

        `margins` are the numbers of indices read before and after the floor. The bounds are the
        tightest pair of lines, one below and one above all these floors.

        Returns
        -------
        Span
            Pixels that the indices around ``floor(i * step + first)`` depend on.
        """
        denominator = math.lcm(step.denominator, first.denominator)
        common_divisor = math.gcd(int(step * denominator), denominator)
        remainder = int(first * denominator) % common_divisor
        return self.read(
            step,
            first - Fraction(denominator - common_divisor + remainder, denominator) - margins[0],
            first - Fraction(remainder, denominator) + margins[1],
        )

    def union(self, other: Span) -> Span:
        """Return the smallest span that contains this span and another.

        Raises
        ------
        UntrackableError
            If the spans differ in stride or dilation.
        """
        if (self.stride, self.dilation) != (other.stride, other.dilation):
            raise UntrackableError
        start = min(self.start, other.start)
        end = max(self.start + self.size, other.start + other.size)
        return replace(self, start=start, size=end - start)


@dataclass(frozen=True)
class ImageSpans:
    """Record of the spans of input pixels along the two image axes of a tensor.

    If `width` is set, the rows of the image follow each other along one axis, which is listed twice
    in `axes`.
    """

    spans: tuple[Span, Span]
    axes: tuple[int, int]
    width: int | None = None

    def map_axes(self, axes: Callable[[int], int]) -> ImageSpans:
        """Return the same spans along axes of other numbers.

        Parameters
        ----------
        axes
            Function from an old axis number to the new number.
        """
        y, x = self.axes
        return replace(self, axes=(axes(y), axes(x)))

    def read(self, axes: tuple[int, int], change: Callable[[Span, int], Span]) -> ImageSpans:
        """Apply a function to the spans of both image axes.

        Parameters
        ----------
        axes
            Numbers of the two image axes that the operation expects.
        change
            Function of a span and its index, 0 (vertical) or 1 (horizontal), that returns the new
            span.

        Raises
        ------
        UntrackableError
            If the image axes are others, or are joined to one axis.
        """
        if self.axes != axes or self.width is not None:
            raise UntrackableError
        y, x = self.spans
        return replace(self, spans=(change(y, 0), change(x, 1)))

    def union(self, other: ImageSpans) -> ImageSpans:
        """Return the smallest image spans that contain these and other image spans.

        Raises
        ------
        UntrackableError
            If the image axes differ.
        """
        if (self.axes, self.width) != (other.axes, other.width):
            raise UntrackableError
        (y, x), (other_y, other_x) = self.spans, other.spans
        return replace(self, spans=(y.union(other_y), x.union(other_x)))


class Untracked:
    """Tracking state of a tensor that depends on the image in an unsupported way.

    `ImageSpans` cannot describe which pixels the tensor depends on.
    """


UNTRACKED = Untracked()
# State of a tensor; None if the tensor does not depend on the image.
State: TypeAlias = "ImageSpans | Untracked | None"
States: TypeAlias = "dict[str, ImageSpans | Untracked]"
