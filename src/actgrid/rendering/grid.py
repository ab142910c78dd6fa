"""A rendered grid of tiles with its statistics."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError
from actgrid.rendering.colormaps import palette
from actgrid.rendering.folding import StripFold
from actgrid.rendering.layout import Layout
from actgrid.rendering.picture import Picture
from actgrid.rendering.stats import ChannelStats

__all__ = ["Grid"]


@dataclass(frozen=True, eq=False, repr=False)
class Grid(Picture):  # numpydoc ignore=PR01
    """Picture in which every channel of an activation is one tile.

    `actgrid.render` returns a grid.

    Parameters
    ----------
    levels : numpy.ndarray
        The picture before colour, (height, width) uint8.
    stats : ChannelStats
        Statistics of each channel of the activation, by channel index, not by tile. A dense layer,
        whose channels are single values, has one entry for all channels.
    channels : numpy.ndarray
        Channel index of each tile, (tiles,) int, in the order of the tiles.
    cmap : str
        Name of the colormap.

    Examples
    --------
    >>> grid = actgrid.render(np.random.rand(1, 8, 8, 16))
    >>> grid.levels.shape
    (35, 35)
    >>> grid.channels[:4]
    array([0, 1, 2, 3])
    >>> grid.save("activations.png")
    """

    levels: npt.NDArray[np.uint8]
    stats: ChannelStats
    channels: npt.NDArray[np.intp]
    cmap: str
    _layout: Layout
    _zoom: int
    _fold: StripFold | None = None
    _remark: str = ""

    def __repr__(self) -> str:
        height, width = self.levels.shape
        facts = [f"{width} x {height}", f"{len(self.channels)} tiles", self.cmap, self.note]
        return f"<Grid {', '.join(filter(None, facts))}>"

    @property
    def note(self) -> str:
        """Text that explains the picture; ``""`` if there is nothing to explain.

        It says how a long sequence was cut into strips and pooled, which axes the tiles of
        attention scores have, and that the grid of an image's tokens is not known.
        """
        fold = "" if self._fold is None else self._fold.describe()
        return "; ".join(filter(None, [self._remark, fold]))

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Convert the grid to RGB pixels by applying its colormap to its levels.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        return palette(self.cmap)[self.levels]

    def _to_indexed(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        return self.levels, palette(self.cmap)

    def tile(self, channel: int, part: int = 0) -> npt.NDArray[np.uint8]:
        """Return the levels of one tile of the grid.

        Parameters
        ----------
        channel : int
            Index of a channel that is drawn.
        part : int, default 0
            Index among the tiles of the channel, if it has several: the depth slice of a volume, or
            the input channel of a kernel.

        Returns
        -------
        numpy.ndarray
            (height, width) uint8: a view of `levels`, or a copy if the tile is cut into strips. The
            tile of a channel of a sequence has a row for each step, or for each pooled steps.

        Raises
        ------
        OptionError
            If this tile is not drawn.
        """
        cells = np.flatnonzero(self.channels == channel)
        if not cells.size:
            raise OptionError(
                f"channel {channel} is not drawn: the grid has {len(self.channels)} tiles"
            )
        if not 0 <= part < cells.size:
            raise OptionError(f"channel {channel} has {cells.size} tiles: there is no part {part}")
        y, x = self._layout.find_corner(int(cells[part]))
        if self._fold is not None:
            small = self._fold.unfold(self.levels[:: self._zoom, :: self._zoom])
            return small[:, x : x + 1].repeat(self._zoom, 0).repeat(self._zoom, 1)
        return self.levels[
            y * self._zoom : (y + self._layout.tile_height) * self._zoom,
            x * self._zoom : (x + self._layout.tile_width) * self._zoom,
        ]

    def locate(self, x: int, y: int) -> int | None:
        """Return the channel drawn at a pixel of the grid; None outside of all tiles.

        Parameters
        ----------
        x, y : int
            Pixel coordinates from the left and from the top.

        Returns
        -------
        int or None
            Channel index.

        Raises
        ------
        OptionError
            If the pixel is outside the picture.
        """
        height, width = self.levels.shape
        if not (0 <= x < width and 0 <= y < height):
            raise OptionError(f"pixel ({x}, {y}) is outside the {width} x {height} picture")
        pixel: tuple[int, int] | None = (y // self._zoom, x // self._zoom)
        if self._fold is not None and pixel is not None:
            pixel = self._fold.find_pixel(*pixel)
        cell = None if pixel is None else self._layout.find_cell(*pixel)
        return None if cell is None else int(self.channels[cell])
