"""Colormaps by name."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, suggest

__all__ = ["palette"]

# Where matplotlib's colormaps come from, in the catalog of the package cmap. A bare name there
# may mean another colormap of the same name.
_NAMESPACES = ("matplotlib:", "colorbrewer:", "gnuplot:", "matlab:", "yorick:", "")


def palette(name: str) -> npt.NDArray[np.uint8]:
    """Return the colours of the 256 levels.

    Parameters
    ----------
    name
        Any name that matplotlib knows (``"viridis"``, ``"RdBu_r"``, ``"gray"``), or that the
        catalog of the package `cmap <https://cmap-docs.readthedocs.io>`_ lists.

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
    >>> palette("gray")[200]
    array([200, 200, 200], dtype=uint8)
    """
    if not isinstance(name, str):
        raise OptionError(f"cmap must be the name of a colormap, not {name!r}")
    return _palette(name)


@lru_cache(maxsize=64)
def _palette(name: str) -> npt.NDArray[np.uint8]:
    import cmap  # it reads its catalog: too slow for a program that draws nothing

    for namespace in _NAMESPACES:
        try:
            colormap = cmap.Colormap(namespace + name)
        except ValueError:
            continue
        colours = np.asarray(colormap(np.linspace(0, 1, 256)))[:, :3]
        levels = np.round(colours * 255).astype(np.uint8)
        levels.setflags(write=False)
        return levels
    known = {item.rsplit(":", 1)[-1] for item in cmap.Catalog()}
    raise OptionError(f"no colormap is called {name!r}{suggest(name, known)}")
