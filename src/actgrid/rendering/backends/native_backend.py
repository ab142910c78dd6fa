"""The native backend, which calls the C++ core (ImportError if it is not built)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError
from actgrid.rendering.backends import DrawTask
from actgrid.rendering.normalize import Mapping, Normalization
from actgrid.rendering.stats import ChannelStats, make_stats

if find_spec("actgrid._core") is None:
    raise ImportError("its C++ core was not built when actgrid was installed")
from actgrid import _core

__all__ = ["draw", "measure", "overlay", "paint", "percentiles", "resize"]


def _check_variant() -> None:
    """Raise OptionError if ACTGRID_SIMD names a SIMD variant that is not available."""
    variant = os.environ.get("ACTGRID_SIMD")
    variants = _core.simd_variants()
    if variant and variant not in variants:
        raise OptionError(
            f"ACTGRID_SIMD must be one of {', '.join(variants)} on this processor, not {variant!r}"
        )


_check_variant()


def measure(tiles: npt.NDArray[Any], threads: int) -> ChannelStats:
    """Compute the statistics of each tile.

    The arguments and the result are those of `actgrid.rendering.backends.Backend.measure`.
    """
    return _make_stats(_core.measure(tiles, threads), tiles)


def _make_stats(arrays: Iterable[npt.NDArray[Any]], tiles: npt.NDArray[Any]) -> ChannelStats:
    return make_stats(arrays, tiles.shape[2] * tiles.shape[3])


def draw(
    layers: Sequence[DrawTask], normalization: Normalization, threads: int
) -> list[ChannelStats]:
    """Measure and paint the tiles of several layers in one call.

    The arguments and the result are those of `actgrid.rendering.backends.Backend.draw`.
    """
    low, high = normalization.limits or (0.0, 0.0)
    results = _core.draw(layers, normalization.name, low, high, threads)
    return [_make_stats(arrays, layer.tiles) for arrays, layer in zip(results, layers, strict=True)]


def percentiles(
    tiles: npt.NDArray[Any], limits: tuple[float, ...], pooled: bool, threads: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Compute two percentiles of the finite values of tiles.

    The arguments and the result are those of `actgrid.rendering.normalize.Percentiles.percentiles`.
    """
    low, high = limits
    return _core.percentiles(tiles, low, high, pooled, threads)


def paint(
    tiles: npt.NDArray[Any],
    mapping: Mapping,
    origin: npt.NDArray[np.int64],
    canvas: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    """Draw tiles as gray levels on a canvas, in place.

    The arguments are those of `actgrid.rendering.backends.Backend.paint`.
    """
    _core.paint(tiles, mapping.shift, mapping.scale, mapping.base, origin, canvas, threads)


def resize(values: npt.NDArray[np.float32], resized: npt.NDArray[np.float32], threads: int) -> None:
    """Resize maps bilinearly and write the result into the array `resized`.

    The arguments are those of `actgrid.rendering.backends.Backend.resize`.
    """
    _core.resize(values, resized, threads)


def overlay(
    values: npt.NDArray[np.float32],
    mapping: Mapping,
    palette: npt.NDArray[np.uint8],
    image: npt.NDArray[np.uint8],
    alpha: float,
    overlaid: npt.NDArray[np.uint8],
    threads: int,
) -> None:
    """Blend a map in colour with an image and write the result into `overlaid`.

    The arguments are those of `actgrid.rendering.backends.Backend.overlay`.
    """
    terms = (mapping.shift.item(), mapping.scale.item(), mapping.base.item())
    _core.overlay(values, *terms, palette, image, alpha, overlaid, threads)
