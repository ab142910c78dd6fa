"""Contour lines, and the part of an image that they lie in."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Region", "band_edges", "stroke"]


class Region(NamedTuple):
    """The part of an image that a map covers, which may reach beyond the image."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    def slices(self, sides: tuple[int, int]) -> tuple[Any, Any]:
        """Return the pixels in both box and image: in the box, and in an image of these sides."""
        ends = ((self.top, self.bottom, sides[0]), (self.left, self.right, sides[1]))
        starts = [(max(low, 0), min(high, side), low) for low, high, side in ends]
        inside = tuple(slice(first - low, last - low) for first, last, low in starts)
        return inside, tuple(slice(first, last) for first, last, _ in starts)


def band_edges(bands: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which pixels are of another band than the one below or to the right."""
    edges = np.zeros(bands.shape, np.bool_)
    edges[:-1] |= bands[:-1] != bands[1:]
    edges[:, :-1] |= bands[:, :-1] != bands[:, 1:]
    return edges


def stroke(edges: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """Return the pixels of lines of this width along edges: a disc around each pixel there."""
    offsets = np.arange(width)
    from_middle = (offsets - (width - 1) / 2) ** 2
    disc = np.argwhere(from_middle[:, None] + from_middle <= (width / 2) ** 2) - (width - 1) // 2
    y, x = np.nonzero(edges)
    stroked = np.zeros_like(edges)
    height, across = edges.shape
    for down, right in disc:
        stroked[np.clip(y + down, 0, height - 1), np.clip(x + right, 0, across - 1)] = True
    return stroked
