"""A drawn grid: levels, what they show, and ways out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import encode, encode_png, write_file
from actgrid.encoding.png import to_pillow
from actgrid.errors import OptionError
from actgrid.option_types import thread_count
from actgrid.rendering.colormaps import palette
from actgrid.rendering.layout import Layout
from actgrid.rendering.stats import ChannelStats

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Grid"]


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
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

    def to_image(self) -> Image.Image:
        """Return a Pillow image: mode P with the colormap as palette, or L for ``"gray"``."""
        return to_pillow(self.levels, palette(self.cmap))

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the picture in colour, (height, width, 3) uint8."""
        return palette(self.cmap)[self.levels]

    def to_png(self, compression: str = "fast", threads: int | None = None) -> bytes:
        """Return the picture as an indexed PNG file (grayscale for ``"gray"``).

        Parameters
        ----------
        compression
            ``"fast"``; ``"small"`` for a smaller file in about thirty times the time; ``"none"``
            for one that is not compressed.
        threads
            At most this many deflate a large picture; None: one for each processor. The file
            does not depend on it.
        """
        return encode_png(
            self.levels,
            palette(self.cmap),
            compression=compression,
            threads=thread_count(threads),
        )

    _repr_png_ = to_png  # what a notebook shows

    def save(
        self,
        path: str | Path,
        compression: str = "fast",
        threads: int | None = None,
        **options: Any,
    ) -> None:
        """Write the picture to a file, whole or not at all.

        Parameters
        ----------
        path
            Its suffix chooses the format: .png, .webp, .jpg, .tiff or any other of Pillow's.
        compression, threads
            For PNG, as in `to_png`.
        options
            For other formats: given to Pillow's ``Image.save``, such as ``quality=90``.

        Raises
        ------
        OptionError
            If the suffix is of no format that can be written. Also a ValueError.
        OutputError
            If the file cannot be written. Also an OSError.
        """
        pieces = self.pieces(
            path, compression=compression, threads=thread_count(threads), **options
        )
        write_file(path, *pieces)

    def pieces(self, path: str | Path, **options: Any) -> list[bytes]:
        """Return the picture as the pieces of a file, see `actgrid.encoding.encode`."""
        return encode(path, self.levels, palette(self.cmap), **options)

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
