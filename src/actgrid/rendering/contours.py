"""Compute contour lines and the region of an image that a map covers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Region", "find_band_edges", "stroke"]


class Region(NamedTuple):
    """The region of an image that a map covers; it may extend beyond the image."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.bottom - self.top, self.right - self.left

    def compute_slices(self, sides: tuple[int, int]) -> tuple[Any, Any]:
        """Return the slices of the overlap in the region, and in an image."""
        ends = ((self.top, self.bottom, sides[0]), (self.left, self.right, sides[1]))
        starts = [(max(low, 0), min(high, side), low) for low, high, side in ends]
        region_slices = tuple(slice(start - low, stop - low) for start, stop, low in starts)
        return region_slices, tuple(slice(start, stop) for start, stop, _ in starts)


def find_band_edges(bands: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return a mask of pixels whose band differs from the next one below or right."""
    edges = np.zeros(bands.shape, np.bool_)
    edges[:-1] |= bands[:-1] != bands[1:]
    edges[:, :-1] |= bands[:, :-1] != bands[:, 1:]
    return edges


def stroke(edges: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """Return a mask of lines of this width in pixels along edges."""
    offsets = np.arange(width)
    squared_distances = (offsets - (width - 1) / 2) ** 2
    disc = (
        np.argwhere(squared_distances[:, None] + squared_distances <= (width / 2) ** 2)
        - (width - 1) // 2
    )
    y, x = np.nonzero(edges)
    stroked = np.zeros_like(edges)
    height, image_width = edges.shape
    for offset_y, offset_x in disc:
        stroked[np.clip(y + offset_y, 0, height - 1), np.clip(x + offset_x, 0, image_width - 1)] = (
            True
        )
    return stroked
