"""Measuring and painting, three times over: the same results at different speeds.

A backend is a module with five functions:

``measure(tiles, threads) -> ChannelStats``
    Statistics of each tile. `tiles` is a (channels, slices, height, width) view of any strides;
    the arrays of the result are (channels, slices).
``percentiles(tiles, limits, pooled, threads) -> (low, high)``
    Two percentiles, 0 to 100, of the finite values of each tile, (channels, slices) float64, or of
    all tiles, (1, 1): those of ``numpy.percentile``, 0 where there is no finite value.
``paint(tiles, mapping, origin, canvas, threads) -> None``
    Draws each tile at ``origin``, (channels, slices) int64 offsets in bytes of the top left pixel
    from the first pixel of `canvas`, (height, width) uint8, whose rows may lie apart; a tile with
    a negative origin is not drawn.
``resize(values, resized, threads) -> None``
    Resizes (maps, height, width) float32 bilinearly to the height and width of `resized`: pixels
    are squares, and the outermost values reach to the edges, as in ``tf.image.resize``.
``overlay(values, mapping, palette, image, alpha, overlaid, threads) -> None``
    Lays one map, (height, width) float32, resized to `image`, (height, width, 3) uint8, over it:
    `mapping`, of one tile, and `palette`, (256, 3) uint8, make its colours, of which `alpha`, 0 to
    1, is seen: each component of `overlaid` is ``trunc(image + (colour - image) * alpha + 0.5)``.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from actgrid.errors import BackendError, OptionError
from actgrid.rendering.normalize import Mapping, Percentiles
from actgrid.rendering.stats import ChannelStats

__all__ = ["BACKENDS", "Backend", "backend_problems", "first_backend", "load_backend"]

# In the order in which "auto" tries them.
BACKENDS = ("native", "numba", "numpy")

_REMEDIES = {
    "native": "install actgrid again where a C++20 compiler (GCC or Clang) is found",
    "numba": "pip install 'actgrid[numba]'",
}


class Backend(Percentiles, Protocol):
    """What a backend module offers."""

    def measure(self, tiles: npt.NDArray[Any], threads: int) -> ChannelStats:
        """Return the statistics of each tile."""

    def paint(
        self,
        tiles: npt.NDArray[Any],
        mapping: Mapping,
        origin: npt.NDArray[np.int64],
        canvas: npt.NDArray[np.uint8],
        threads: int,
    ) -> None:
        """Draw each tile that has an origin."""

    def resize(
        self, values: npt.NDArray[np.float32], resized: npt.NDArray[np.float32], threads: int
    ) -> None:
        """Resize each map bilinearly."""

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
        """Lay a map in colour over a picture."""


def _import(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f"{__name__}.{name}_backend"))


@lru_cache(maxsize=1)
def first_backend() -> str:
    """Return the name of the backend that ``"auto"`` stands for."""
    # Once: an import that fails is searched for anew each time, longer than a small grid takes.
    for name in BACKENDS[:-1]:
        try:
            _import(name)
            return name
        except ImportError:
            pass
    return BACKENDS[-1]


def load_backend(name: str = "auto") -> Backend:
    """Return a backend by name; ``"auto"`` is the first of `BACKENDS` that is there.

    Raises
    ------
    OptionError
        If there is no backend of that name.
    BackendError
        If it cannot be used here; the message says how to get it.
    """
    if name == "auto":
        return _import(first_backend())
    if name not in BACKENDS:
        raise OptionError(f"backend must be auto or one of {', '.join(BACKENDS)}, not {name!r}")
    try:
        return _import(name)
    except ImportError as error:
        raise BackendError(
            f"the {name} backend is not there ({error}); to get it, {_REMEDIES[name]}"
        ) from error


def backend_problems() -> dict[str, str | None]:
    """Return for each backend why it cannot be used, or None if it can."""
    problems: dict[str, str | None] = {}
    for name in BACKENDS:
        try:
            load_backend(name)
            problems[name] = None
        except BackendError as error:
            problems[name] = str(error)
    return problems
