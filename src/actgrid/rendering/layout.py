"""Compute the positions of tiles in a grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import make_blank_levels

__all__ = [
    "Layout",
    "choose_columns",
]


@dataclass(frozen=True)
class Layout:
    """Layout of a grid of equally large cells, which tiles fill row by row.

    Attributes
    ----------
    count
        Number of tiles.
    tile_height, tile_width
        Size of a tile in pixels.
    columns
        Number of cells in a row.
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
        """Number of rows of the grid, including a partly filled last row."""
        return -(-self.count // self.columns)

    @property
    def height(self) -> int:
        """Height of the grid in pixels."""
        return self.rows * (self.tile_height + self.padding) - self.padding

    @property
    def width(self) -> int:
        """Width of the grid in pixels."""
        return self.columns * (self.tile_width + self.padding) - self.padding

    def find_corner(self, cell: Any) -> tuple[Any, Any]:
        """Return the position (y, x) of the top left pixel of a cell of the grid.

        Parameters
        ----------
        cell
            Number of the cell, or an array of numbers.
        """
        row, column = divmod(cell, self.columns)
        return row * (self.tile_height + self.padding), column * (self.tile_width + self.padding)

    @lru_cache(maxsize=256)  # noqa: B019  (layouts are small)
    def compute_origins(self) -> npt.NDArray[np.int64]:
        """Return the byte offset in the canvas of the top left pixel of each cell.

        Returns
        -------
        numpy.ndarray
            (count,) int64, read-only.
        """
        y, x = self.find_corner(np.arange(self.count))
        stride = self.width + 1  # rows of `make_blank_levels` have one more byte
        origins: npt.NDArray[np.int64] = y * stride + x
        origins.setflags(write=False)
        return origins

    def find_cell(self, y: int, x: int) -> int | None:
        """Return the number of the cell of the grid at a pixel.

        Returns
        -------
        int or None
            None: the pixel lies in the padding or in an unused cell.
        """
        row, down = divmod(y, self.tile_height + self.padding)
        column, right = divmod(x, self.tile_width + self.padding)
        if down >= self.tile_height or right >= self.tile_width:
            return None
        cell = row * self.columns + column
        return cell if cell < self.count else None

    def make_canvas(self, background: int) -> npt.NDArray[np.uint8]:
        """Return an array of levels to draw the tiles of the grid on.

        Pixels outside the tiles have the level `background`. Pixels of tiles are not initialized.
        """
        is_covered = self.padding == 0 and self.rows * self.columns == self.count
        return make_blank_levels(self.height, self.width, None if is_covered else background)


@lru_cache(maxsize=4096)
def choose_columns(count: int, height: int, width: int, padding: int) -> int:
    """Return the number of columns for which a grid of tiles is nearest to square.

    Parameters
    ----------
    count
        Number of tiles.
    height, width
        Size of a tile in pixels.
    padding
        Pixels between tiles.

    Returns
    -------
    int
        From 1 to `count`.
    """
    columns = np.arange(
        count, 0, -1
    )  # descending, so that argmin prefers the wider of two equally square pictures
    picture_width = columns * (width + padding) - padding
    picture_height = -(-count // columns) * (height + padding) - padding
    return int(
        columns[
            np.argmin(
                np.maximum(picture_width, picture_height)
                / np.minimum(picture_width, picture_height)
            )
        ]
    )
