"""Crops of images: their boxes, and their pictures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.attribution.backdrops import Backdrop
from actgrid.attribution.requests import ExplanationRequest
from actgrid.rendering.input_pictures import to_pictures

__all__ = ["cut_crops", "make_boxes", "make_pictures", "scale_boxes"]

# Distance of neighbouring crops as a fraction of their side, as in the paper's code.
_STRIDE = 0.8
# Longest side of the picture of a crop in pixels.
_PICTURE_SIDE = 96


def make_boxes(sides: tuple[int, ...], crop_size: float) -> npt.NDArray[np.int64]:
    """Return the boxes of a grid of crops that covers an image.

    Parameters
    ----------
    sides
        Height and width of the image in pixels.
    crop_size
        Side of a crop, as a fraction of each side of the image.

    Returns
    -------
    numpy.ndarray
        (B, 4) int64: top, left, bottom and right in pixels.
    """
    starts, lengths = [], []
    for side in sides:
        length = min(side, max(1, round(side * crop_size)))
        count = math.ceil((side - length) / (_STRIDE * length)) + 1
        starts.append(np.rint(np.linspace(0, side - length, count)).astype(np.int64))
        lengths.append(length)
    top, left = (axis.ravel() for axis in np.meshgrid(*starts, indexing="ij"))
    return np.stack([top, left, top + lengths[0], left + lengths[1]], axis=1)


def scale_boxes(boxes: npt.NDArray[np.int64], sides: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Convert boxes in pixels to positions from 0 (first pixel) to 1 (last pixel)."""
    corners = boxes - np.array([0, 0, 1, 1])
    scaled: npt.NDArray[np.float32] = corners / np.maximum(np.tile(sides, 2) - 1, 1)
    return scaled.astype(np.float32)


def make_pictures(request: ExplanationRequest) -> Backdrop:
    """Return the pictures of a request's images; images without RGB form are drawn in gray."""
    if request.backdrop is not None:
        return request.backdrop
    values = request.batch.layout.to_channels_last(np.asarray(request.batch.values))
    pictures = to_pictures(values.mean(axis=-1, keepdims=True))
    assert pictures is not None  # arrays of one channel are always converted
    return Backdrop(pictures, None)


def cut_crops(
    request: ExplanationRequest,
    crops: npt.NDArray[np.intp],
    boxes: npt.NDArray[np.int64],
    sides: tuple[int, ...],
) -> npt.NDArray[np.uint8]:
    """Return the pictures of crops by their indices.

    Parameters
    ----------
    crops
        Indices of crops, of any shape: image index * number of boxes + box index.
    boxes
        (B, 4) boxes of the crops of each image in pixels of the model input.
    sides
        Height and width of the model input.

    Returns
    -------
    numpy.ndarray
        (..., height, width, 3) uint8.
    """
    backdrop = make_pictures(request)
    height, width = (boxes[0, 2:] - boxes[0, :2]).tolist()
    scale = _PICTURE_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    pictures = []
    for image, box in zip(*np.divmod(crops.ravel(), len(boxes)), strict=True):
        picture = backdrop.images[image]
        top, left, bottom, right = _find_region(backdrop, image, picture)
        factors = np.tile([(bottom - top) / sides[0], (right - left) / sides[1]], 2)
        y1, x1, y2, x2 = boxes[box] * factors + np.tile([top, left], 2)
        crop = Image.fromarray(picture).transform(
            size,
            Image.Transform.EXTENT,
            (x1, y1, x2, y2),
            Image.Resampling.BICUBIC,
        )
        pictures.append(np.asarray(crop))
    return np.stack(pictures).reshape(*crops.shape, size[1], size[0], 3)


def _find_region(backdrop: Backdrop, image: Any, picture: npt.NDArray[np.uint8]) -> Any:
    """Return top, left, bottom and right of the part of a picture that the model sees."""
    if backdrop.boxes is None:
        return 0, 0, *picture.shape[:2]
    return backdrop.boxes[image]
