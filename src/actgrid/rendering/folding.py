"""Fold long sequences into lines or strips of a picture of readable size."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.encoding import make_blank_levels

__all__ = [
    "Fold",
    "StripFold",
    "choose_fold",
    "choose_strips",
    "pool_extremes",
    "pool_range",
]

Array = npt.NDArray[Any]
Levels = npt.NDArray[np.uint8]

# A picture of steps by channels is cut if a side has more pixels.
_MAX_UNFOLDED_SIDE = 512
# Steps are pooled if a picture would have more pixels.
_MAX_PIXELS = 1 << 22


class Fold(NamedTuple):
    """Record of how the steps of a sequence are folded into lines.

    Attributes
    ----------
    steps
        Number of steps of the sequence.
    pooled
        Number of steps in a pixel column; 1: each step has its own.
    columns
        Number of columns in a line.
    lines
        Number of lines.
    """

    steps: int
    pooled: int
    columns: int
    lines: int

    @property
    def steps_per_line(self) -> int:
        """Number of steps in a full line."""
        return self.pooled * self.columns

    def describe(self) -> str:
        """Return the number of steps, and how they are folded and pooled, as text."""
        text = f"{self.steps:,} steps"
        if self.lines > 1:
            text += f" in {self.lines} lines of {self.steps_per_line:,}"
        return text + (f", {self.pooled:,} in a column" if self.pooled > 1 else "")


def choose_fold(steps: int, max_columns: int, max_lines: int) -> Fold:
    """Choose the lines of a sequence, which have equal lengths.

    Steps are pooled only if there are too many for the lines.

    Parameters
    ----------
    steps
        Number of steps.
    max_columns
        Largest number of columns in a line.
    max_lines
        Largest number of lines.

    Returns
    -------
    Fold
        The lines and the number of steps in a column.
    """
    pooled = -(-steps // (max_columns * max_lines))
    columns = -(-steps // pooled)
    lines = -(-columns // max_columns)
    return Fold(steps, pooled, -(-columns // lines), lines)


def pool_range(values: Array, pooled: int, axis: int = -1) -> tuple[Array, Array]:
    """Return the smallest and largest of every `pooled` values along an axis."""
    source = np.moveaxis(values, axis, 0)
    low = source[::pooled].copy()
    high = low.copy()
    for offset in range(1, pooled):  # several times faster than `reduceat`
        part = source[offset::pooled]
        np.minimum(low[: len(part)], part, out=low[: len(part)])
        np.maximum(high[: len(part)], part, out=high[: len(part)])
    return np.moveaxis(low, 0, axis), np.moveaxis(high, 0, axis)


def pool_extremes(values: Array, pooled: int, centre: float = 0.0, axis: int = -1) -> Array:
    """Return of every `pooled` values along an axis the one farthest from a centre."""
    if pooled == 1:
        return values
    low, high = pool_range(values, pooled, axis)
    middle = np.float32(centre)  # a float of Python would convert levels to float64
    return np.where(high - middle >= middle - low, high, low)


class StripFold(NamedTuple):
    """Record of how a picture of steps by channels is cut into strips.

    The strips of a tall picture, which has more steps than channels, are side by side, each with
    consecutive steps of all channels. Those of a wide picture are one below the other, each with
    all steps of consecutive channels.

    Attributes
    ----------
    steps, channels
        Height and width of the picture in pixels, before steps are pooled.
    pooled
        Number of steps in a pixel.
    strips
        Number of strips.
    padding
        Pixels between strips.
    """

    steps: int
    channels: int
    pooled: int
    strips: int
    padding: int

    @property
    def _is_wide(self) -> bool:
        return self.channels > self.steps

    @property
    def _sides(self) -> tuple[int, int]:
        """Lengths in pixels of the axis that is cut, and of the other axis."""
        rows = -(-self.steps // self.pooled)
        return (self.channels, rows) if self._is_wide else (rows, self.channels)

    @property
    def _strip_length(self) -> int:
        """Length in pixels of a strip along the axis that is cut."""
        return -(-self._sides[0] // self.strips)

    def describe(self) -> str:
        """Return how the steps or channels are cut and pooled, as text."""
        texts = []
        if self.strips > 1:
            length = self._strip_length * (1 if self._is_wide else self.pooled)
            count, axis = (self.channels, "channels") if self._is_wide else (self.steps, "steps")
            texts.append(f"{count:,} {axis} in {self.strips} strips of {length:,}")
        if self.pooled > 1:
            texts.append(
                f"a pixel shows the level farthest from the mean level of {self.pooled} steps"
            )
        return "; ".join(texts)

    def fold(self, levels: Levels, background: int) -> Levels:
        """Pool a picture, and cut it into strips.

        Parameters
        ----------
        levels
            (steps, channels) uint8.
        background
            Level of the pixels between the strips.

        Returns
        -------
        numpy.ndarray
            (height, width) uint8, made by `make_blank_levels`.
        """
        if self.pooled > 1:
            levels = pool_extremes(levels, self.pooled, float(levels.mean()), 0)
        source = levels.T if self._is_wide else levels
        length, thickness = self._strip_length, self._sides[1]
        sides = (length, self.strips * (thickness + self.padding) - self.padding)
        height, width = sides[::-1] if self._is_wide else sides
        folded = make_blank_levels(height, width, background)
        target = folded.T if self._is_wide else folded
        for index, left in enumerate(range(0, sides[1], thickness + self.padding)):
            strip = source[index * length : (index + 1) * length]
            target[: len(strip), left : left + thickness] = strip
        return folded

    def unfold(self, folded: Levels) -> Levels:
        """Return the picture before it was cut into strips, with pooled steps."""
        source = folded.T if self._is_wide else folded
        count, thickness = self._sides
        lefts = range(0, source.shape[1], thickness + self.padding)
        strips = [source[:, left : left + thickness] for left in lefts]
        joined = np.concatenate(strips)[:count]
        return joined.T if self._is_wide else joined

    def find_pixel(self, y: int, x: int) -> tuple[int, int] | None:
        """Return the pixel (row, channel) of the picture before it was cut.

        Parameters
        ----------
        y, x
            Pixel of the folded picture.

        Returns
        -------
        tuple of int or None
            None: the pixel lies between strips or after the end of the last one.
        """
        if self._is_wide:
            y, x = x, y
        count, thickness = self._sides
        strip, across = divmod(x, thickness + self.padding)
        along = strip * self._strip_length + y
        if across >= thickness or along >= count:
            return None
        return (across, along) if self._is_wide else (along, across)


def choose_strips(
    steps: int, channels: int, padding: int, strips: int | None = None
) -> StripFold | None:
    """Choose how a picture of steps by channels is cut into strips, near to square.

    Parameters
    ----------
    steps, channels
        Height and width of the picture in pixels.
    padding
        Pixels between strips.
    strips
        Number of strips; 1: the picture is not cut. None: chosen, and the steps are pooled if the
        picture has more than 4,194,304 pixels.

    Returns
    -------
    StripFold or None
        None: the picture has no long side and is drawn as it is.
    """
    long, short = max(steps, channels), min(steps, channels)
    if long <= _MAX_UNFOLDED_SIDE:
        return None
    pooled = 1
    if strips is None:
        pooled = -(-steps * channels // _MAX_PIXELS)
        rows = -(-steps // pooled)
        long, short = (channels, rows) if channels > steps else (rows, channels)
        strips = max(1, round(math.sqrt(long / (short + padding))))
    # Equal strips, of which none is empty.
    strips = -(-long // -(-long // min(strips, long)))
    return None if strips == pooled == 1 else StripFold(steps, channels, pooled, strips, padding)
