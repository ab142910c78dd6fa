"""Check and convert the constructor arguments of a heatmap."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.option_checks import check_integer
from actgrid.rendering.tiles import as_array

__all__ = [
    "as_boxes",
    "as_colour",
    "as_entries",
    "as_labels",
    "as_maps",
    "as_numbers",
    "as_photos",
]


def as_maps(values: object) -> npt.NDArray[np.float32]:
    """Convert attribution maps, or a single map, to (N, height, width) float32."""
    array = as_array(values)
    maps = array[None] if array.ndim == 2 else array
    if maps.ndim != 3 or maps.size == 0:
        raise ShapeError(
            f"values must be (N, height, width) or (height, width) and not empty, not {array.shape}"
        )
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(maps, np.float32)


def as_numbers(name: str, values: object, rank: int | None, shape: str) -> npt.NDArray[np.float32]:
    """Convert real numbers to a float32 array.

    Parameters
    ----------
    name
        Name of the argument, for error messages.
    values
        The numbers.
    rank
        Number of axes. None: any.
    shape
        Description of the shape, for error messages.
    """
    array = as_array(values)
    if (rank is not None and array.ndim != rank) or array.ndim == 0 or array.size == 0:
        raise ShapeError(f"{name} must be {shape} and not empty, not {array.shape}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def as_photos(images: object, count: int) -> npt.NDArray[np.uint8]:
    """Return one RGB image for each attribution map.

    Parameters
    ----------
    images
        Images in any supported form. A single image is used for all maps.
    count
        Number of maps.

    Returns
    -------
    numpy.ndarray
        (count, height, width, 3) uint8.
    """
    photos = _convert_images(images)
    if len(photos) not in (1, count):
        raise ShapeError(
            f"wrong number of images: {len(photos)} images were given for {count} maps"
        )
    return np.broadcast_to(photos, (count, *photos.shape[1:]))


def _convert_images(images: Any) -> npt.NDArray[np.uint8]:
    """Convert images in any supported form to RGB pixels (N, height, width, 3) uint8."""
    if isinstance(images, (list, tuple)):
        parts = [_convert_images(image) for image in images]
        if len({part.shape[1:] for part in parts}) != 1:
            sizes = sorted({part.shape[1:3] for part in parts})
            raise ShapeError(f"images must be one or more images of one size: got sizes {sizes}")
        return np.concatenate(parts)
    if isinstance(images, Image.Image):
        images = ImageOps.exif_transpose(images).convert("RGB")
    array = np.asarray(images)
    pixels = array[..., None] if array.ndim == 2 else array
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3) or pixels.size == 0:
        raise ShapeError(
            "images must be (N, height, width, 3) or (N, height, width, 1), or one image without "
            f"N, not {array.shape}"
        )
    if pixels.dtype != np.uint8:
        raise DtypeError(
            f"images must be uint8 pixels, 0 to 255, not {pixels.dtype}; convert floats from 0 to "
            "1 "
            "with (images * 255).astype('uint8')"
        )
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:3], 3)))


def as_boxes(boxes: Any, count: int) -> npt.NDArray[np.int64]:
    """Return one box for each attribution map.

    Parameters
    ----------
    boxes
        One box for each map, or a single box for all maps.
    count
        Number of maps.

    Returns
    -------
    numpy.ndarray
        (count, 4) int64: top, left, bottom and right in pixels.
    """
    array = np.asarray(boxes)
    if array.dtype.kind not in "iu":
        raise DtypeError(f"boxes must be integers, not {array.dtype}")
    if array.shape not in ((4,), (count, 4)):
        raise ShapeError(f"boxes must be (4,) or ({count}, 4), not {array.shape}")
    array = np.broadcast_to(array.astype(np.int64), (count, 4))
    if (array[:, :2] >= array[:, 2:]).any():
        raise OptionError(f"boxes must be top, left, bottom and right of pixels, not {boxes!r}")
    return array


def as_entries(name: str, values: object, count: int, dtype_kinds: str, dtype: type[Any]) -> Any:
    """Convert an argument with one number for each map to an array.

    Parameters
    ----------
    name
        Name of the argument, for error messages.
    values
        The numbers.
    count
        Number of maps.
    dtype_kinds
        Accepted kinds of dtypes, as in `numpy.dtype.kind`.
    dtype
        Dtype of the result.

    Returns
    -------
    numpy.ndarray or None
        (count,). None: `values` is None.
    """
    if values is None:
        return None
    numbers = np.atleast_1d(np.asarray(values))
    if numbers.dtype.kind not in dtype_kinds:
        expected = "class indices" if "f" not in dtype_kinds else "numbers"
        raise DtypeError(f"{name} must be {expected}, not of {numbers.dtype}")
    if numbers.shape != (count,):
        raise ShapeError(f"{name} must be ({count},), one for each map, not {numbers.shape}")
    return numbers.astype(dtype)


def as_labels(labels: Any, count: int) -> tuple[str, ...] | None:
    """Convert the labels of attribution maps to a tuple with one text for each map.

    Parameters
    ----------
    labels
        Label of each map, such as a class name; a single label for one map; or None.
    count
        Number of maps.

    Returns
    -------
    tuple of str or None
        `count` labels, or None if `labels` is None.
    """
    if labels is None:
        return None
    names = (labels,) if isinstance(labels, str) else tuple(labels)
    if len(names) != count or not all(isinstance(name, str) for name in names):
        raise OptionError(f"labels must be {count} names, one for each map, not {labels!r}")
    return names


def as_colour(name: str, value: Any) -> tuple[int, ...]:
    """Convert the value of a colour option to (red, green, blue), each 0 to 255.

    Parameters
    ----------
    name
        Name of the option, for error messages.
    value
        Name of a colour, ``"#rrggbb"`` or three integers.
    """
    try:
        if isinstance(value, str):
            return ImageColor.getrgb(value)[:3]
        red, green, blue = (check_integer(name, component, 0, 255) for component in value)
        return red, green, blue
    except (TypeError, ValueError):
        raise OptionError(
            f"{name} must be the name of a colour, '#rrggbb' or (r, g, b), not {value!r}"
        ) from None
