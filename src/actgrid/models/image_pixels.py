"""Convert images to pixels of one mode, and resize, crop or pad them to a size."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from actgrid.errors import (
    OptionError,
    ShapeError,
)
from actgrid.models.image_sources import raise_image_errors

__all__ = [
    "MODES",
    "Pixels",
    "choose_target_size",
    "compute_visible_box",
    "convert_to_planes",
    "fit_planes",
    "parse_image_size",
]

Pixels = npt.NDArray[np.float32]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# As float32 RGB a model input takes 12 bytes per pixel, so that 2**27 pixels take 1.5 GiB.
_MAX_PIXELS = 1 << 27
_RESAMPLING = Image.Resampling.BICUBIC


def choose_target_size(
    height: int, width: int, fixed_height: int | None, fixed_width: int | None
) -> tuple[int, int] | None:
    """Return the size to which an image is resized for a model.

    If the model fixes only one side, the other side keeps the aspect ratio of the image.

    Parameters
    ----------
    height, width
        Size of the image in pixels.
    fixed_height, fixed_width
        Size that the model takes. None: the model accepts any length.

    Returns
    -------
    tuple of int or None
        (height, width) in pixels. None: the image is not resized.
    """
    if fixed_height is None and fixed_width is None:
        return None
    return (
        fixed_height or max(1, round(height * (fixed_width or 0) / width)),
        fixed_width or max(1, round(width * (fixed_height or 0) / height)),
    )


def compute_visible_box(
    height: int, width: int, target: tuple[int, int] | None, fit: str
) -> tuple[int, int, int, int]:
    """Return the box of an image that is visible after resizing it to `target`.

    Parameters
    ----------
    target
        (height, width) of the resized image. None: the image keeps its size.
    fit
        ``"stretch"``, ``"crop"`` or ``"pad"``: how the image is fitted to another aspect ratio.

    Returns
    -------
    tuple of int
        (top, left, bottom, right) in pixels of the original image. With ``"pad"`` the box extends
        beyond the image.
    """
    if target is None or fit == "stretch":
        return 0, 0, height, width
    ratio = target[1] / target[0]
    if fit == "crop":
        left, top, right, bottom = _compute_center_box(width, height, ratio)
        return top, left, bottom, right
    box_width, box_height = max(width, round(height * ratio)), max(height, round(width / ratio))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return top, left, top + box_height, left + box_width


def convert_to_planes(source: Any, channels: int) -> list[Image.Image]:
    """Convert an image to a list of Pillow images that hold its channels.

    Returns
    -------
    list of PIL.Image.Image
        Images of levels 0 to 255: one image of mode RGB or L, or one image for each channel.
    """
    if isinstance(source, np.ndarray):
        return _convert_array(source, channels)
    if isinstance(source, Image.Image):
        return _convert_picture(source, channels)
    with raise_image_errors(source), Image.open(source) as image:
        return _convert_picture(image, channels)


def _convert_picture(image: Image.Image, channels: int) -> list[Image.Image]:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # A plain conversion would clip 16-bit grayscale. Mode I can also hold 8-bit values.
        values = np.asarray(image).astype(np.float32)
        is_16_bit = image.mode != "I" or values.max() > 255
        return _convert_array(values / 257 if is_16_bit else values, channels)
    if image.mode == "F":
        return _convert_array(np.asarray(image), channels)
    if image.mode in ("La", "RGBa"):  # premultiplied alpha, which Pillow converts to no other mode
        image = image.convert(image.mode.upper())
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return [image.convert(MODES[channels])]


def _convert_array(array: npt.NDArray[Any], channels: int) -> list[Image.Image]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in MODES or 0 in array.shape:
        raise ShapeError(
            f"an image must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), not {array.shape}"
        )
    if array.dtype == np.uint8:
        picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
        return [picture.convert(MODES[channels])]
    if array.dtype.kind not in "fiub":
        raise OptionError(
            f"an image must have numeric pixels from 0 to 255, not dtype {array.dtype}"
        )
    planes = array.astype(np.float32)
    if channels == 1 and planes.shape[2] >= 3:
        # ITU-R 601 luma, as Pillow converts 8-bit colour.
        planes = planes[..., :3] @ np.array([[0.299], [0.587], [0.114]], np.float32)
    elif planes.shape[2] == 1:
        planes = np.repeat(planes, min(channels, 3), axis=2)
    if channels == 4 and planes.shape[2] == 3:
        planes = np.concatenate([planes, np.full_like(planes[..., :1], 255)], axis=2)
    return [Image.fromarray(np.ascontiguousarray(planes[..., c])) for c in range(channels)]


def fit_planes(planes: Sequence[Image.Image], size: tuple[int, int] | None, fit: str) -> Pixels:
    """Resize the channels of an image to a size and stack them to an array.

    Parameters
    ----------
    planes
        Pillow images of one size that hold the channels.
    size
        (height, width). None: the size of the image.
    fit
        ``"stretch"``, ``"crop"`` or ``"pad"``: how the image is fitted to another aspect ratio.

    Returns
    -------
    numpy.ndarray
        (height, width, channels) float32, from 0 to 255.
    """
    if size is not None:
        height, width = size
        if fit == "crop":
            planes = [_crop_center(plane, width / height) for plane in planes]
        if fit == "pad":
            planes = [ImageOps.pad(plane, (width, height), _RESAMPLING) for plane in planes]
        else:
            planes = [plane.resize((width, height), _RESAMPLING) for plane in planes]
    stacked = np.dstack([np.asarray(plane, np.float32) for plane in planes])
    return np.clip(stacked, 0, 255)


def _crop_center(image: Image.Image, ratio: float) -> Image.Image:
    """Crop an image to its largest centred part of an aspect ratio, width / height."""
    return image.crop(_compute_center_box(image.width, image.height, ratio))


def _compute_center_box(width: int, height: int, ratio: float) -> tuple[int, int, int, int]:
    """Return the largest centred box in an image for an aspect ratio, width / height.

    Returns
    -------
    tuple of int
        Left, top, right and bottom in pixels.
    """
    box_width = min(width, max(1, round(height * ratio)))
    box_height = min(height, max(1, round(width / ratio)))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    return left, top, left + box_width, top + box_height


def parse_image_size(size: Any) -> tuple[int, int]:
    """Convert the option `size`, an image size, to (height, width) in pixels.

    A single number is used for both.

    Returns
    -------
    tuple of int
        (height, width).

    Raises
    ------
    OptionError
        If the value is not a valid size.
    """
    try:
        height, width = size if np.ndim(size) else (size, size)
        height, width = operator.index(height), operator.index(width)
    except (TypeError, ValueError):
        raise OptionError(f"size must be (height, width) or one number, not {size!r}") from None
    if height < 1 or width < 1:
        raise OptionError(f"size must be at least 1 x 1, not {height} x {width}")
    if height * width > _MAX_PIXELS:
        raise OptionError(
            f"size must be at most {_MAX_PIXELS:,} pixels in all, not {height} x {width}"
        )
    return height, width
