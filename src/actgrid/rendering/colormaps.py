"""Look up colormaps by name, and choose the colour of text on a coloured ground."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from actgrid.option_checks import find_colormap
from actgrid.option_groups import check_option
from actgrid.options import GridOptions

__all__ = ["choose_text_colour", "palette"]

Colour = tuple[int, int, int]

_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def palette(name: str) -> npt.NDArray[np.uint8]:
    """Return the colours of a colormap for the 256 levels.

    Parameters
    ----------
    name : str
        A name of a matplotlib colormap (``"viridis"``, ``"RdBu_r"``, ``"gray"``), or a name in the
        catalog of the package `cmap <https://cmap-docs.readthedocs.io>`_.

    Returns
    -------
    numpy.ndarray
        (256, 3) uint8 RGB, read-only.

    Raises
    ------
    OptionError
        If no colormap has this name.

    Examples
    --------
    >>> from actgrid.rendering import palette
    >>> palette("gray")[200]
    array([200, 200, 200], dtype=uint8)
    """
    check_option(GridOptions, "cmap", name)
    return _compute_palette(name)


@lru_cache(maxsize=64)
def _compute_palette(name: str) -> npt.NDArray[np.uint8]:
    colours = np.asarray(find_colormap(name)(np.linspace(0, 1, 256)))[:, :3]
    levels = np.round(colours * 255).astype(np.uint8)
    levels.setflags(write=False)
    return levels


def choose_text_colour(colour: Colour) -> Colour:
    """Return black or white, whichever is easier to read on a ground of the given colour."""
    red, green, blue = colour
    return _BLACK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else _WHITE
