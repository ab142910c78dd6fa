"""Backends that measure and paint tiles: equal results at different speeds.

A backend is a module with five functions:

``measure(tiles, threads) -> ChannelStats``
    Compute the statistics of each tile. `tiles` is a (channels, slices, height, width) view with
    any strides; the arrays of the result are (channels, slices).
``percentiles(tiles, limits, pooled, threads) -> (low, high)``
    Compute two percentiles, 0 to 100, of the finite values of each tile, (channels, slices)
    float64, or of all tiles, (1, 1). They equal those of ``numpy.percentile``, or 0 without finite
    values.
``paint(tiles, mapping, origin, canvas, threads) -> None``
    Draw each tile at ``origin``, (channels, slices) int64 offsets in bytes of the top left pixel
    from the first pixel of `canvas`, (height, width) uint8, whose rows need not be contiguous. A
    tile with a negative origin is not drawn.
``resize(values, resized, threads) -> None``
    Resize (maps, height, width) float32 bilinearly to the height and width of `resized`. As in
    ``tf.image.resize``, pixels are squares, and the outermost values extend to the edges.
``overlay(values, mapping, palette, image, alpha, overlaid, threads) -> None``
    Resize one map, (height, width) float32, to `image`, (height, width, 3) uint8, and blend it.
    `mapping`, of one tile, and `palette`, (256, 3) uint8, define its colours. `alpha`, 0 to 1, is
    the weight of the colour: each component of `overlaid` is
    ``trunc(image + (colour - image) * alpha + 0.5)``.

A backend may also have a function that does the work of measuring, mapping and painting at once:

``draw(layers, normalization, threads) -> list of ChannelStats``
    Draw several layers, each tile by its own statistics. Its pictures and statistics equal those of
    `measure`, `Normalization.compute_mapping` and `paint`. It is not called for percentiles.

Examples
--------
>>> from actgrid.rendering.backends import find_backend_problems
>>> find_backend_problems()["numpy"] is None
True
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from actgrid.errors import BackendError, OptionError
from actgrid.rendering.normalize import Mapping, Percentiles
from actgrid.rendering.stats import ChannelStats

__all__ = [
    "BACKENDS",
    "Backend",
    "DrawTask",
    "find_backend_problems",
    "find_first_backend",
    "load_backend",
]

# In the order in which "auto" tries the backends.
BACKENDS = ("native", "numba", "numpy")

_REMEDIES = {
    "native": "install actgrid again with a C++20 compiler (GCC or Clang)",
    "numba": "pip install 'actgrid[numba]'",
}


class DrawTask(NamedTuple):
    """Record of the tiles of a layer and the canvas on which to draw the tiles.

    Parameters
    ----------
    tiles : numpy.ndarray
        (channels, slices, height, width), with any strides.
    origin : numpy.ndarray
        Position of each tile, as for `Backend.paint`.
    canvas : numpy.ndarray
        (height, width) uint8, which is modified.

    Examples
    --------
    >>> from actgrid.rendering.backends import DrawTask
    >>> canvas = np.zeros((3, 3), np.uint8)
    >>> DrawTask(np.ones((1, 1, 3, 3)), np.zeros((1, 1), int), canvas).canvas is canvas
    True
    """

    tiles: npt.NDArray[Any]
    origin: npt.NDArray[np.int64]
    canvas: npt.NDArray[np.uint8]


class Backend(Percentiles, Protocol):  # numpydoc ignore=PR01
    """Protocol of a rendering backend: a module that measures and draws tiles.

    Attributes
    ----------
    draw
        Function that draws several layers at once, see the module; None for a backend without it.

    Examples
    --------
    >>> from actgrid.rendering.backends import load_backend
    >>> load_backend("numpy").measure(np.ones((2, 1, 3, 3)), threads=1).mean.tolist()
    [[1.0], [1.0]]
    """

    def measure(self, tiles: npt.NDArray[Any], threads: int) -> ChannelStats:
        """Compute the statistics of the values of each tile.

        Parameters
        ----------
        tiles : numpy.ndarray
            (channels, slices, height, width), with any strides.
        threads : int
            Maximum number of threads.

        Returns
        -------
        ChannelStats
            Statistics with arrays of shape (channels, slices).
        """

    def paint(
        self,
        tiles: npt.NDArray[Any],
        mapping: Mapping,
        origin: npt.NDArray[np.int64],
        canvas: npt.NDArray[np.uint8],
        threads: int,
    ) -> None:
        """Draw each tile that has an origin on a canvas, in place.

        Parameters
        ----------
        tiles : numpy.ndarray
            (channels, slices, height, width), with any strides.
        mapping : Mapping
            Mapping of each tile from values to levels.
        origin : numpy.ndarray
            (channels, slices) int64: canvas offset of the top left pixel of each tile; negative for
            tiles that are not drawn.
        canvas : numpy.ndarray
            (height, width) uint8, which is modified.
        threads : int
            Maximum number of threads.
        """

    def resize(
        self, values: npt.NDArray[np.float32], resized: npt.NDArray[np.float32], threads: int
    ) -> None:
        """Resize each map bilinearly and write the result into an array.

        Parameters
        ----------
        values : numpy.ndarray
            (maps, height, width) float32.
        resized : numpy.ndarray
            (maps, new height, new width) float32, which is modified.
        threads : int
            Maximum number of threads.
        """

    def overlay(
        self,
        values: npt.NDArray[np.float32],
        mapping: Mapping,
        palette: npt.NDArray[np.uint8],
        image: npt.NDArray[np.uint8],
        alpha: float,
        overlaid: npt.NDArray[np.uint8],
        threads: int,
    ) -> None:
        """Blend a map in colour with an image and write the result into an array.

        Parameters
        ----------
        values : numpy.ndarray
            The map, (height, width) float32.
        mapping : Mapping
            Mapping of the map from values to levels.
        palette : numpy.ndarray
            Colours of the levels, (256, 3) uint8.
        image : numpy.ndarray
            The image, (height, width, 3) uint8.
        alpha : float
            Weight of the colours, 0 to 1.
        overlaid : numpy.ndarray
            The result, (height, width, 3) uint8, which is modified.
        threads : int
            Maximum number of threads.
        """


def _import_backend(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f"{__name__}.{name}_backend"))


@lru_cache(maxsize=1)
def find_first_backend() -> str:
    """Return the name of the first rendering backend that can be imported.

    Returns
    -------
    str
        A name in `BACKENDS`.

    Examples
    --------
    >>> from actgrid.rendering.backends import find_first_backend
    >>> find_first_backend() in ("native", "numba", "numpy")
    True
    """
    # Cached, because Python repeats the search for a failed import, which is slower than rendering
    # a small grid.
    for name in BACKENDS[:-1]:
        try:
            _import_backend(name)
            return name
        except ImportError:
            pass
    return BACKENDS[-1]


def load_backend(name: str = "auto") -> Backend:
    """Import and return a rendering backend by name.

    Parameters
    ----------
    name : str, default "auto"
        A name in `BACKENDS`, or ``"auto"`` for the first backend that can be imported.

    Returns
    -------
    Backend
        The backend module.

    Raises
    ------
    OptionError
        If there is no backend of this name.
    BackendError
        If the backend cannot be imported. The message says how to install it.

    Examples
    --------
    >>> from actgrid.rendering.backends import load_backend
    >>> load_backend("numpy").__name__
    'actgrid.rendering.backends.numpy_backend'
    """
    if name == "auto":
        return _import_backend(find_first_backend())
    if name not in BACKENDS:
        raise OptionError(f"backend must be auto or one of {', '.join(BACKENDS)}, not {name!r}")
    try:
        return _import_backend(name)
    except ImportError as error:
        raise BackendError(
            f"the {name} backend is not available ({error}); to install it, {_REMEDIES[name]}"
        ) from error


def find_backend_problems() -> dict[str, str | None]:
    """Return why each rendering backend cannot be used.

    Returns
    -------
    dict of {str: str or None}
        Backend name -> error message; None for a backend that can be used.

    Examples
    --------
    >>> from actgrid.rendering import find_backend_problems
    >>> find_backend_problems()["numpy"] is None
    True
    """
    problems: dict[str, str | None] = {}
    for name in BACKENDS:
        try:
            load_backend(name)
            problems[name] = None
        except BackendError as error:
            problems[name] = str(error)
    return problems
