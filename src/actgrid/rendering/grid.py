"""A drawn grid: levels, what they show, and ways out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError
from actgrid.rendering.colormaps import palette
from actgrid.rendering.layout import Layout
from actgrid.rendering.picture import Picture
from actgrid.rendering.stats import ChannelStats

__all__ = ["Grid"]


@dataclass(frozen=True, eq=False, repr=False)
class Grid(Picture):
    """Every channel of an activation, tiled into one picture. Made by `actgrid.render`.

    Attributes
    ----------
    levels
        (height, width) uint8: the picture before colour.
    stats
        `ChannelStats` of each channel of the activation, by channel (not by tile), whichever are
        drawn. A dense layer, whose channels are single values, has one entry for all of them.
    channels
        (tiles,) int: the channel that each tile shows, in the order of the tiles.
    cmap
        Name of the colormap.

    Examples
    --------
    >>> grid = actgrid.render(np.random.rand(1, 8, 8, 16))
    >>> grid.levels.shape
    (35, 35)
    >>> grid.save("activations.png")
    """

    levels: npt.NDArray[np.uint8]
    stats: ChannelStats
    channels: npt.NDArray[np.intp]
    cmap: str
    _layout: Layout
    _zoom: int

    def __repr__(self) -> str:
        height, width = self.levels.shape
        return f"<Grid {width} x {height}, {len(self.channels)} tiles, {self.cmap}>"

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the picture in colour, (height, width, 3) uint8."""
        return palette(self.cmap)[self.levels]

    def _indexed(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        return self.levels, palette(self.cmap)

    def tile(self, channel: int, part: int = 0) -> npt.NDArray[np.uint8]:
        """Return the levels of one tile, as drawn: a view of `levels`.

        Parameters
        ----------
        channel
            A channel that is drawn.
        part
            Which of the channel's tiles, where it has several (the depth slice of a volume, the
            input channel of a kernel).

        Raises
        ------
        OptionError
            If that tile is not drawn.
        """
        cells = np.flatnonzero(self.channels == channel)
        if not cells.size:
            raise OptionError(f"channel {channel} is not drawn; {len(self.channels)} tiles are")
        if not 0 <= part < cells.size:
            raise OptionError(f"channel {channel} has {cells.size} tiles, no tile {part}")
        y, x = self._layout.corner(int(cells[part]))
        return self.levels[
            y * self._zoom : (y + self._layout.tile_height) * self._zoom,
            x * self._zoom : (x + self._layout.tile_width) * self._zoom,
        ]

    def locate(self, x: int, y: int) -> int | None:
        """Return the channel drawn at a pixel, None in padding and unused cells.

        Parameters
        ----------
        x, y
            Pixels from the left and from the top.

        Raises
        ------
        OptionError
            If the pixel is outside the picture.
        """
        height, width = self.levels.shape
        if not (0 <= x < width and 0 <= y < height):
            raise OptionError(f"pixel ({x}, {y}) is outside the {width} x {height} picture")
        cell = self._layout.cell(y // self._zoom, x // self._zoom)
        return None if cell is None else int(self.channels[cell])
