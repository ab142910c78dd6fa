"""Where on the canvas each tile goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import blank_levels

__all__ = [
    "Layout",
    "near_square",
]


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
