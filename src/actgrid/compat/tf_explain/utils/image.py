"""Values to gray levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.models.frameworks import tensorflow

# In the images' units, whatever these are.
GRAY = 127.5

__all__ = ["apply_grey_patch", "transform_to_normalized_grayscale"]


def apply_grey_patch(
    image: npt.ArrayLike, top_left_x: int, top_left_y: int, patch_size: int
) -> npt.NDArray[Any]:
    """Return a copy of an image in which a square is 127.5, in whatever units the image is.

    Parameters
    ----------
    image
        (height, width, C).
    top_left_x, top_left_y
        Column and row of the square's top left corner.
    patch_size
        Side of the square, in pixels. What lies outside of the image is cut off.
    """
    patched = np.array(image)
    rows = slice(top_left_y, top_left_y + patch_size)
    patched[rows, top_left_x : top_left_x + patch_size] = GRAY
    return patched


def transform_to_normalized_grayscale(tensor: Any) -> npt.NDArray[np.uint8]:
    """Return the sum over channels, standardized over all images and times 255, as uint8.

    What is beyond 0 to 255 is cut off. tf-explain left that to the processor: most values were cut
    off, and a few wrapped around.

    Parameters
    ----------
    tensor
        (N, height, width, C) float.

    Returns
    -------
    numpy.ndarray
        (N, height, width) uint8.
    """
    tf = tensorflow()
    gray = tf.image.per_image_standardization(tf.reduce_sum(tensor, -1))
    levels: npt.NDArray[np.uint8] = np.clip(255 * np.asarray(gray), 0, 255).astype(np.uint8)
    return levels
