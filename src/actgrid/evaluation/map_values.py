"""Convert attribution maps to a value for each position of the explained tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.linear_resizing import resize_linearly
from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.models.frameworks import tensorflow

__all__ = ["align_maps", "read_maps", "resize_maps"]


def read_maps(values: Any, count: int, name: str) -> npt.NDArray[np.float32]:
    """Convert maps to float32, and check that they are finite.

    Parameters
    ----------
    values
        (count, ...) real numbers.
    count
        Expected number of maps.
    name
        Name of the attribution, for messages.

    Raises
    ------
    DtypeError
        If the values are not real numbers.
    ShapeError
        If the number of maps is not `count`.
    OptionError
        If a value is NaN or infinite.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise DtypeError(f"attributions of {name} must be real numbers: got {array.dtype}")
    if array.ndim < 2 or len(array) != count:
        raise ShapeError(
            f"attributions of {name} must be {count} maps, one for each sample and target: got "
            f"shape {array.shape}"
        )
    maps = array.astype(np.float32)
    if not np.isfinite(maps).all():
        raise OptionError(f"attributions of {name} must be finite: got NaN or infinite values")
    return maps


def align_maps(
    maps: npt.NDArray[np.float32], batch: ExplainedBatch, name: str
) -> npt.NDArray[np.float32]:
    """Return maps with a value for each position of the explained tensor.

    Maps of another size are resized linearly, as for drawing. Channels are added. Tokens of an
    image that are not patches have the smallest value of their map.

    Parameters
    ----------
    maps
        (N, ...), with or without a last axis of channels.
    batch
        The N samples.
    name
        Name of the attribution, for messages.

    Returns
    -------
    ndarray
        (N, *sides) float32.

    Raises
    ------
    ShapeError
        If the maps do not have the axes of the explained tensor.
    """
    sides, grid = batch.sides, batch.reader.explained[0].grid
    if grid is not None and maps.ndim == 3:
        if maps.shape[1:] != grid[:2]:
            maps = resize_maps(maps, grid[:2])
        tokens = np.repeat(maps.min((1, 2))[:, None], grid.tokens, 1)
        tokens[:, grid.patches] = maps.reshape(len(maps), -1)
        return tokens
    if maps.ndim == len(sides) + 2 and batch.layout.channel_axis is not None:
        maps = maps.sum(-1)
    if maps.ndim != len(sides) + 1:
        axes = ", ".join(batch.layout.names)
        raise ShapeError(
            f"attributions of {name} must be (N, {axes}) or (N, {axes}, channels) for the input "
            f"{tuple(batch.values.shape)}: got {maps.shape}"
        )
    if batch.layout.channel_axis is None and maps.shape[1:] != sides:
        raise ShapeError(
            f"attributions of {name} must have a value for each of {sides[0]} features: got "
            f"{maps.shape}"
        )
    return resize_maps(maps, sides)


def resize_maps(maps: npt.NDArray[np.float32], sides: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Resize maps (N, ...) linearly to (N, *sides); maps of this size are returned unchanged."""
    if maps.shape[1:] == sides:
        return maps
    return np.asarray(resize_linearly(tensorflow().constant(maps), sides))
