"""Convert inputs of a model to RGB pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["to_pictures"]

# Percentiles between which the values decide the units of a batch (0 to 1, or 0 to 255).
_UNIT_PERCENTILES = (1, 99)
# Percentiles of an image that are stretched to levels 0 and 255 if the units are unknown.
_STRETCH_PERCENTILES = (0.1, 99.9)
# Bicubic resizing may overshoot the range of pixel values by this fraction of the range.
_TOLERANCE = 0.05
# Images from 0 to 255 that are not black have a pixel value of at least this.
_MIN_BRIGHTEST = 16.0


def to_pictures(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8] | None:
    """Convert model inputs to RGB pictures; None unless there are 1, 3 or 4 channels.

    The range of the batch, without the lowest and highest 1% of the values, decides the units:
    0 to 1, 0 to 255, or other units. In other units, each image is stretched to 0 to 255.

    Parameters
    ----------
    pixels
        (N, H, W, C) real numbers.

    Returns
    -------
    ndarray or None
        (N, H, W, 3) uint8.
    """
    if pixels.shape[-1] not in (1, 3, 4):
        return None
    pixels = pixels[..., :3]
    low, high = map(float, np.percentile(pixels, _UNIT_PERCENTILES))
    brightest = float(pixels.max())
    is_integral = bool((pixels == np.rint(pixels)).all())
    limits: tuple[float, float] | None = None
    if pixels.dtype == np.uint8:
        limits = (0.0, 255.0)
    elif low >= -_TOLERANCE and high <= 1 + 2 * _TOLERANCE and not (is_integral and brightest > 1):
        limits = (0.0, 1.0)
    elif (
        low >= -_TOLERANCE * 255 and brightest >= _MIN_BRIGHTEST and high <= 255 * (1 + _TOLERANCE)
    ):
        limits = (0.0, 255.0)
    levels = np.empty((*pixels.shape[:3], 3), np.uint8)
    # Image by image: the conversion needs several times the memory of the image.
    for picture, image in zip(levels, pixels, strict=True):
        first, last = limits or map(float, np.percentile(image, _STRETCH_PERCENTILES))
        if not last > first:  # nearly all values are equal
            first, last = 0.0, 255.0
        scaled = (image - first) * (255 / (last - first))
        picture[:] = np.clip(scaled, 0, 255) + 0.5
    return levels
