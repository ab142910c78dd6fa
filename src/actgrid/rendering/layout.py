"""Where on the canvas each tile goes."""

from __future__ import annotations

import math
import operator
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import blank_levels
from actgrid.errors import OptionError

__all__ = [
    "MAX_PADDING",
    "MAX_ZOOM",
    "Layout",
    "integer_option",
    "level_option",
    "near_square",
    "number_option",
    "sample_option",
    "thread_count",
]

# In pixels. The whole picture has a limit of its own, see `check_picture_size`.
MAX_PADDING = 1024
MAX_ZOOM = 4096
_MOST_THREADS = 1024


@dataclass(frozen=True)
class Layout:
    """A grid of equal cells, filled row by row.

    Attributes
    ----------
    count
        Tiles drawn.
    tile_height, tile_width
        Size of a tile in pixels.
    columns
        Cells in a row.
    padding
        Pixels between neighbouring cells.
    """

    count: int
    tile_height: int
    tile_width: int
    columns: int
    padding: int

    @property
    def rows(self) -> int:
        """Rows of cells; the last may be part-filled."""
        return -(-self.count // self.columns)

    @property
    def height(self) -> int:
        """Height of the picture in pixels."""
        return self.rows * (self.tile_height + self.padding) - self.padding

    @property
    def width(self) -> int:
        """Width of the picture in pixels."""
        return self.columns * (self.tile_width + self.padding) - self.padding

    def corner(self, cell: Any) -> tuple[Any, Any]:
        """Return (y, x) of the top left pixel of a cell, or of each cell of an array."""
        row, column = divmod(cell, self.columns)
        return row * (self.tile_height + self.padding), column * (self.tile_width + self.padding)

    def origins(self) -> npt.NDArray[np.int64]:
        """Return the offset on the canvas of each cell's top left pixel, cell by cell."""
        y, x = self.corner(np.arange(self.count))
        stride = self.width + 1  # of `blank_levels`
        origins: npt.NDArray[np.int64] = y * stride + x
        return origins

    def cell(self, y: int, x: int) -> int | None:
        """Return the cell that holds a pixel; None for padding and unused cells."""
        row, down = divmod(y, self.tile_height + self.padding)
        column, right = divmod(x, self.tile_width + self.padding)
        if down >= self.tile_height or right >= self.tile_width:
            return None
        cell = row * self.columns + column
        return cell if cell < self.count else None

    def canvas(self, background: int) -> npt.NDArray[np.uint8]:
        """Return a canvas on which all that no tile covers is `background`."""
        covered = self.padding == 0 and self.rows * self.columns == self.count
        return blank_levels(self.height, self.width, None if covered else background)


def near_square(count: int, height: int, width: int, padding: int) -> int:
    """Return how many tiles in a row make the picture of `count` tiles nearest to square."""
    columns = np.arange(count, 0, -1)  # of equally square pictures the wider one is found first
    wide = columns * (width + padding) - padding
    high = -(-count // columns) * (height + padding) - padding
    return int(columns[np.argmin(np.maximum(wide, high) / np.minimum(wide, high))])


def integer_option(
    name: str, value: object, least: int | None = None, max_value: int | None = None
) -> int:
    """Return an option as an int from `least` to `max_value`.

    Raises
    ------
    OptionError
        If it is not.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise OptionError(f"{name} must be an integer, not {value!r}") from None
    if least is not None and number < least:
        raise OptionError(f"{name} must be at least {least}, not {number}")
    if max_value is not None and number > max_value:
        raise OptionError(f"{name} must be at most {max_value:,}, not {number}")
    return number


def number_option(name: str, value: Any, least: float = 0, most: float = math.inf) -> float:
    """Return an option as a finite number from `least` to `most`.

    Raises
    ------
    OptionError
        If it is none.
    """
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most or math.isinf(number):
        wanted = f"of at least {least}" if math.isinf(most) else f"from {least} to {most}"
        raise OptionError(f"{name} must be a number {wanted}, not {value!r}")
    return number


def sample_option(sample: object, count: int) -> int:
    """Return an option that names one of so many samples, from the end if it is negative.

    Raises
    ------
    OptionError
        If there is no such sample.
    """
    number = integer_option("sample", sample)
    if not -count <= number < count:
        raise OptionError(f"sample {number} was asked for, but there are only {count}")
    return number % count


def level_option(name: str, value: object) -> int:
    """Return an option as a level, 0 to 255.

    Raises
    ------
    OptionError
        If it is none.
    """
    level = integer_option(name, value, 0)
    if level > 255:
        raise OptionError(f"{name} must be a level, 0 to 255, not {level}")
    return level


def thread_count(wanted: object) -> int:
    """Return how many threads to use; None stands for the processors this process may use.

    Raises
    ------
    OptionError
        If it is neither None nor a positive integer.
    """
    if wanted is not None:
        return min(integer_option("threads", wanted, 1), _MOST_THREADS)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
