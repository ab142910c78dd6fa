"""Pictures in a grid, and heatmaps over images."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.backdrops import as_pictures
from actgrid.errors import OptionError, ShapeError
from actgrid.option_checks import integer_option, number_option
from actgrid.rendering import Heatmap, palette

__all__ = [
    "as_levels",
    "filter_display",
    "grid_display",
    "heatmap_display",
    "image_to_uint_255",
    "stacked",
]

Array = npt.NDArray[Any]

VIRIDIS = 16
# The colormaps that OpenCV has numbers for, in their order.
_OPENCV = (
    *("autumn", "bone", "jet", "winter", "rainbow", "ocean", "summer", "spring", "cool", "hsv"),
    *("pink", "hot", "fake_parula", "magma", "inferno", "plasma", "viridis", "cividis", "twilight"),
    *("twilight_shifted", "turbo"),
)


def grid_display(
    array: npt.ArrayLike, num_rows: int | None = None, num_columns: int | None = None
) -> Array:
    """Return pictures side by side in one: as many rows as columns, unless a number is given.

    Parameters
    ----------
    array
        (N, height, width) or (N, height, width, C); cells without a picture are zero.
    num_rows, num_columns
        How many. Where both are given and have too few cells, there is a warning, and there are as
        many rows as the columns need.

    Raises
    ------
    ShapeError, OptionError
        If there is no picture, or a number is not positive. Both are ValueErrors.
    """
    pictures = np.asarray(array)
    if pictures.ndim < 3 or not pictures.size:
        raise ShapeError(f"a grid is of pictures, (N, height, width), not of {pictures.shape}")
    count = len(pictures)
    if num_columns is not None:
        columns = integer_option("num_columns", num_columns, 1)
        rows = -(-count // columns)
        if num_rows is not None:
            if integer_option("num_rows", num_rows, 1) < rows:
                warnings.warn(
                    f"{num_rows} rows of {columns} columns are too few for {count} pictures: there "
                    f"are {rows} rows",
                    stacklevel=2,
                )
            rows = max(rows, num_rows)
    elif num_rows is not None:
        rows = integer_option("num_rows", num_rows, 1)
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
    """Return every channel of activations (N, height, width, C) in a grid, image by image.

    Raises
    ------
    ShapeError, OptionError
        As `grid_display`.
    """
    activations = np.asarray(array)
    if activations.ndim != 4:
        raise ShapeError(f"activations must be (N, height, width, C), not {activations.shape}")
    tiles = np.moveaxis(activations, -1, 1).reshape(-1, *activations.shape[1:3])
    return grid_display(tiles, num_rows, num_columns)


def image_to_uint_255(image: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return an image as levels: uint8 as it is, 0 to 1 and -1 to 1 brought to 0 to 255.

    Values beyond, which tf-explain let overflow, are taken as 0 to 255, or if they are beyond that
    too brought to it from their smallest to their largest.
    """
    values = np.asarray(image)
    if values.dtype == np.uint8:
        return values
    values = values.astype(np.float32)
    if values.min() >= -1 and values.max() <= 1:
        shares = (values + 1) / 2 if values.min() < 0 else values
        return (shares * 255).astype(np.uint8)
    pictures = as_pictures(values[None])
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
    """Return an image with a heatmap added to it in colour.

    Parameters
    ----------
    heatmap
        (h, w), of any size.
    original_image
        (height, width, 3), or 1 for gray, which tf-explain did not take.
    colormap
        One of OpenCV's by its number, such as ``cv2.COLORMAP_JET``, or any by its name. The colours
        are those of matplotlib's colormap of that name.
    image_weight
        How strong the image is, 0 to 1.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8.

    Raises
    ------
    OptionError
        If there is no such colormap, or no such weight. Also a ValueError.
    ShapeError
        If the image is none. Also a ValueError.
    """
    photo = image_to_uint_255(original_image)
    if photo.ndim != 3 or photo.shape[2] not in (1, 3):
        raise ShapeError(f"an image must be (height, width, 3), not {photo.shape}")
    (values,) = Heatmap(heatmap).resized(*photo.shape[:2])
    weight = np.float32(number_option("image_weight", image_weight, 0, 1))
    colours = palette(_name(colormap))[as_levels(values)]
    blended: Array = photo * weight + colours
    levels: npt.NDArray[np.uint8] = np.rint(np.clip(blended, 0, 255)).astype(np.uint8)
    return levels


def as_levels(values: Array) -> npt.NDArray[np.uint8]:
    """Return values from the smallest to the largest as levels; 0 if they are all the same."""
    low, high = values.min(), values.max()
    shares: Array = (values - low) / (high - low) if high > low else np.zeros_like(values)
    return (shares * 255).astype(np.uint8)


def _name(colormap: int | str) -> str:
    if isinstance(colormap, str):
        return colormap
    number = integer_option("colormap", colormap, 0)
    if number >= len(_OPENCV):
        raise OptionError(f"colormap must be 0 to {len(_OPENCV) - 1}, or a name, not {number}")
    return _OPENCV[number]


def stacked(maps: Sequence[Array], images: Array, colormap: int | str, weight: float) -> Array:
    """Return heatmaps over their images in one grid."""
    return grid_display(
        [
            heatmap_display(one, image, colormap, weight)
            for one, image in zip(maps, images, strict=True)
        ]
    )
