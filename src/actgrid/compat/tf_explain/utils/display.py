"""Arrange pictures in a grid, and draw heatmaps over images, as tf-explain does."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.option_checks import check_integer, check_number
from actgrid.rendering import Heatmap, palette
from actgrid.rendering.input_pictures import to_pictures

__all__ = [
    "filter_display",
    "grid_display",
    "heatmap_display",
    "image_to_uint_255",
    "stack_heatmaps",
    "to_levels",
]

Array = npt.NDArray[Any]

# Number of the colormap viridis in OpenCV.
VIRIDIS = 16
# Colormaps of OpenCV in the order of their numbers.
_OPENCV_NAMES = (
    *("autumn", "bone", "jet", "winter", "rainbow", "ocean", "summer", "spring", "cool", "hsv"),
    *("pink", "hot", "fake_parula", "magma", "inferno", "plasma", "viridis", "cividis", "twilight"),
    *("twilight_shifted", "turbo"),
)


def grid_display(
    array: npt.ArrayLike, num_rows: int | None = None, num_columns: int | None = None
) -> Array:
    """Arrange pictures in a grid, by default with as many rows as columns.

    Parameters
    ----------
    array : array_like
        (N, height, width) or (N, height, width, C) pictures.
    num_rows : int, optional
        Number of rows. If rows and columns have too few cells, a warning is issued and rows are
        added. None: as many rows as necessary.
    num_columns : int, optional
        Number of columns. None: as many columns as necessary.

    Returns
    -------
    ndarray
        (rows x height, columns x width) or (rows x height, columns x width, C), of the dtype of
        the pictures. Empty cells are zero.

    Raises
    ------
    ShapeError
        If there is no picture. Also a ValueError.
    OptionError
        If a number is not positive. Also a ValueError.
    """
    pictures = np.asarray(array)
    if pictures.ndim < 3 or not pictures.size:
        raise ShapeError(f"array must be pictures, (N, height, width), not {pictures.shape}")
    count = len(pictures)
    if num_columns is not None:
        columns = check_integer("num_columns", num_columns, 1)
        rows = -(-count // columns)
        if num_rows is not None:
            if check_integer("num_rows", num_rows, 1) < rows:
                warnings.warn(
                    f"{num_rows} rows of {columns} columns are too few for {count} pictures: using "
                    f"{rows} rows",
                    stacklevel=2,
                )
            rows = max(rows, num_rows)
    elif num_rows is not None:
        rows = check_integer("num_rows", num_rows, 1)
        columns = -(-count // rows)
    else:
        rows = columns = math.isqrt(count - 1) + 1
    height, width, *channels = pictures.shape[1:]
    cells = np.zeros((rows * columns, *pictures.shape[1:]), pictures.dtype)
    cells[:count] = pictures
    lines = cells.reshape(rows, columns, height, width, *channels).swapaxes(1, 2)
    grid: Array = lines.reshape(rows * height, columns * width, *channels)
    return grid


def filter_display(
    array: npt.ArrayLike, num_rows: int | None = None, num_columns: int | None = None
) -> Array:
    """Arrange all channels of activations in a grid, image by image.

    Parameters
    ----------
    array : array_like
        (N, height, width, C) activations.
    num_rows : int, optional
        Number of rows, as in `grid_display`.
    num_columns : int, optional
        Number of columns, as in `grid_display`.

    Returns
    -------
    ndarray
        (rows x height, columns x width), of the dtype of the activations.

    Raises
    ------
    ShapeError
        If the array does not have 4 axes. Also a ValueError.
    OptionError
        If a number is not positive. Also a ValueError.
    """
    activations = np.asarray(array)
    if activations.ndim != 4:
        raise ShapeError(f"activations must be (N, height, width, C), not {activations.shape}")
    tiles = np.moveaxis(activations, -1, 1).reshape(-1, *activations.shape[1:3])
    return grid_display(tiles, num_rows, num_columns)


def image_to_uint_255(image: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Convert an image to uint8 levels from 0 to 255.

    Images of uint8 are unchanged. The ranges 0 to 1 and -1 to 1 are scaled to 0 to 255. Larger
    values, which overflow in tf-explain, are treated as 0 to 255, or stretched if they exceed 255.

    Parameters
    ----------
    image : array_like
        (height, width, 3) or (height, width, 1) image.

    Returns
    -------
    ndarray
        Uint8 levels.

    Raises
    ------
    ShapeError
        If an image with large values does not have 1, 3 or 4 channels. Also a ValueError.
    """
    values = np.asarray(image)
    if values.dtype == np.uint8:
        return values
    values = values.astype(np.float32)
    if values.min() >= -1 and values.max() <= 1:
        unit_values = (values + 1) / 2 if values.min() < 0 else values
        return (unit_values * 255).astype(np.uint8)
    pictures = to_pictures(values[None])
    if pictures is None:
        raise ShapeError(f"an image must be (height, width, 3), not {values.shape}")
    levels: npt.NDArray[np.uint8] = pictures[0]
    return levels


def heatmap_display(
    heatmap: npt.ArrayLike,
    original_image: npt.ArrayLike,
    colormap: int | str = VIRIDIS,
    image_weight: float = 0.7,
) -> npt.NDArray[np.uint8]:
    """Add a coloured heatmap to an image.

    Parameters
    ----------
    heatmap : array_like
        (h, w) map of any size.
    original_image : array_like
        (height, width, 3) image, or (height, width, 1), which tf-explain does not support.
    colormap : int or str, optional
        Number of an OpenCV colormap, such as ``cv2.COLORMAP_JET``, or name of a colormap. The
        colours are those of matplotlib's colormap of the same name.
    image_weight : float, optional
        Weight of the image, 0 to 1.

    Returns
    -------
    ndarray
        (height, width, 3) uint8.

    Raises
    ------
    OptionError
        If the colormap or the weight is invalid. Also a ValueError.
    ShapeError
        If the image has another shape. Also a ValueError.
    """
    photo = image_to_uint_255(original_image)
    if photo.ndim != 3 or photo.shape[2] not in (1, 3):
        raise ShapeError(f"an image must be (height, width, 3), not {photo.shape}")
    (values,) = Heatmap(heatmap).resize(*photo.shape[:2])
    weight = np.float32(check_number("image_weight", image_weight, 0, 1))
    colours = palette(_get_colormap_name(colormap))[to_levels(values)]
    blended: Array = photo * weight + colours
    levels: npt.NDArray[np.uint8] = np.rint(np.clip(blended, 0, 255)).astype(np.uint8)
    return levels


def to_levels(values: Array) -> npt.NDArray[np.uint8]:
    """Scale an array linearly to uint8 levels 0 to 255; constant values become 0."""
    low, high = values.min(), values.max()
    unit_values: Array = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return (unit_values * 255).astype(np.uint8)


def _get_colormap_name(colormap: int | str) -> str:
    """Return the name of a colormap that is given by name or by its OpenCV number."""
    if isinstance(colormap, str):
        return colormap
    number = check_integer("colormap", colormap, 0)
    if number >= len(_OPENCV_NAMES):
        largest = len(_OPENCV_NAMES) - 1
        raise OptionError(f"colormap must be 0 to {largest}, or a name, not {number}")
    return _OPENCV_NAMES[number]


def stack_heatmaps(
    maps: Sequence[Array], images: Array, colormap: int | str, weight: float
) -> Array:
    """Draw heatmaps over their images and arrange the pictures in a grid.

    Parameters
    ----------
    maps
        One map for each image.
    images
        (N, height, width, C).
    colormap
        Name of a colormap, or its number in OpenCV.
    weight
        Opacity of the heatmaps, 0 to 1.

    Returns
    -------
    numpy.ndarray
        Picture of the grid, uint8.
    """
    return grid_display(
        [
            heatmap_display(image_map, image, colormap, weight)
            for image_map, image in zip(maps, images, strict=True)
        ]
    )
