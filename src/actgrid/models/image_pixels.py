"""Convert images to pixels of one mode, and fit them to a size."""

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
from actgrid.models.image_sources import reading_image

__all__ = [
    "MODES",
    "Pixels",
    "fit_planes",
    "image_planes",
    "image_size",
    "visible_box",
]

Pixels = npt.NDArray[np.float32]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# An input of the model as float32 RGB takes 12 bytes a pixel.
_MAX_PIXELS = 1 << 27
_RESAMPLING = Image.Resampling.BICUBIC


def visible_box(
    height: int, width: int, target: tuple[int, int] | None, fit: str
) -> tuple[int, int, int, int]:
    """Return the part of an image that is brought to a size, as top, left, bottom and right."""
    if target is None or fit == "stretch":
        return 0, 0, height, width
    ratio = target[1] / target[0]
    if fit == "crop":
        left, top, right, bottom = _middle_box(width, height, ratio)
        return top, left, bottom, right
    across, down = max(width, round(height * ratio)), max(height, round(width / ratio))
    left, top = (width - across) // 2, (height - down) // 2
    return top, left, top + down, left + across


def image_planes(source: Any, channels: int) -> list[Image.Image]:
    """Return an image as Pillow images of 8-bit or float levels 0 to 255, to be stacked."""
    if isinstance(source, np.ndarray):
        return _array_planes(source, channels)
    if isinstance(source, Image.Image):
        return _picture_planes(source, channels)
    with reading_image(source), Image.open(source) as image:
        return _picture_planes(image, channels)


def _picture_planes(image: Image.Image, channels: int) -> list[Image.Image]:
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        # 16-bit grayscale, which a plain conversion would clip. Mode I may hold 8 bits as well.
        values = np.asarray(image).astype(np.float32)
        wide = image.mode != "I" or values.max() > 255
        return _array_planes(values / 257 if wide else values, channels)
    if image.mode == "F":
        return _array_planes(np.asarray(image), channels)
    if image.mode in ("La", "RGBa"):  # multiplied by alpha, which converts to no other mode
        image = image.convert(image.mode.upper())
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return [image.convert(MODES[channels])]


def _array_planes(array: npt.NDArray[Any], channels: int) -> list[Image.Image]:
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
        raise OptionError(f"an image must be of pixels 0 to 255, not of dtype {array.dtype}")
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
    """Return planes of an image, brought to a size, as pixels 0 to 255, (H, W, C)."""
    if size is not None:
        height, width = size
        if fit == "crop":
            planes = [_middle(plane, width / height) for plane in planes]
        if fit == "pad":
            planes = [ImageOps.pad(plane, (width, height), _RESAMPLING) for plane in planes]
        else:
            planes = [plane.resize((width, height), _RESAMPLING) for plane in planes]
    stacked = np.dstack([np.asarray(plane, np.float32) for plane in planes])
    return np.clip(stacked, 0, 255)


def _middle(image: Image.Image, ratio: float) -> Image.Image:
    """Return the largest middle part of an image with this ratio of width to height."""
    return image.crop(_middle_box(image.width, image.height, ratio))


def _middle_box(width: int, height: int, ratio: float) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the largest middle part with this ratio."""
    across = min(width, max(1, round(height * ratio)))
    down = min(height, max(1, round(width / ratio)))
    left, top = (width - across) // 2, (height - down) // 2
    return left, top, left + across, top + down


def image_size(size: Any) -> tuple[int, int]:
    """Return (height, width) as an option gives it, one number standing for both.

    Raises
    ------
    OptionError
        If it is no size.
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
