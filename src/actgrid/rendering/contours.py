"""Compute contour lines and the region of an image that a map covers."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Region", "find_band_edges", "stroke"]


class Region(NamedTuple):
    """Record of the region of an image that a map covers.

    The region may extend beyond the image. Its edges are in pixels.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the region in pixels."""
        return self.bottom - self.top, self.right - self.left

    def compute_slices(self, sides: tuple[int, int]) -> tuple[Any, Any]:
        """Return the slices where the region and an image overlap.

        Parameters
        ----------
        sides
            (height, width) of the image.

        Returns
        -------
        tuple
            Slices of an array of the region, and slices of the image.
        """
        ends = ((self.top, self.bottom, sides[0]), (self.left, self.right, sides[1]))
        starts = [(max(low, 0), min(high, side), low) for low, high, side in ends]
        region_slices = tuple(slice(start - low, stop - low) for start, stop, low in starts)
        return region_slices, tuple(slice(start, stop) for start, stop, _ in starts)


def find_band_edges(bands: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return a mask of the pixels at the edge of a band of values.

    Parameters
    ----------
    bands
        (height, width) number of the band of each pixel.

    Returns
    -------
    numpy.ndarray
        (height, width) bool, True if the pixel below or to the right has another band.
    """
    edges = np.zeros(bands.shape, np.bool_)
    edges[:-1] |= bands[:-1] != bands[1:]
    edges[:, :-1] |= bands[:, :-1] != bands[:, 1:]
    return edges


def stroke(edges: npt.NDArray[np.bool_], width: int) -> npt.NDArray[np.bool_]:
    """Return a mask of lines of a given width along edge pixels.

    Parameters
    ----------
    edges
        (height, width) bool mask of the edge pixels.
    width
        Width of the lines in pixels.

    Returns
    -------
    numpy.ndarray
        (height, width) bool.
    """
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
