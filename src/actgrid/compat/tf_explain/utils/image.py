"""Convert gradients to gray levels, and hide parts of images, as tf-explain does."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.models.frameworks import tensorflow

# Value of hidden pixels, in the units of the images.
GRAY = 127.5

__all__ = ["apply_grey_patch", "transform_to_normalized_grayscale"]


def apply_grey_patch(
    image: npt.ArrayLike, top_left_x: int, top_left_y: int, patch_size: int
) -> npt.NDArray[Any]:
    """Return a copy of an image in which a square has the value 127.5.

    Parameters
    ----------
    image : array_like
        (height, width, C) image.
    top_left_x : int
        Column of the top left corner of the square.
    top_left_y : int
        Row of the top left corner of the square.
    patch_size : int
        Side of the square in pixels. The square is clipped at the borders of the image.

    Returns
    -------
    ndarray
        (height, width, C), of the dtype of the image.
    """
    patched = np.array(image)
    rows = slice(top_left_y, top_left_y + patch_size)
    patched[rows, top_left_x : top_left_x + patch_size] = GRAY
    return patched


def transform_to_normalized_grayscale(tensor: Any) -> npt.NDArray[np.uint8]:
    """Sum channels, standardize over all images, multiply by 255 and convert to uint8.

    Values outside of 0 to 255 are clipped. In tf-explain, they overflow in a way that depends on
    the processor.

    Parameters
    ----------
    tensor : array_like
        (N, height, width, C) float values.

    Returns
    -------
    ndarray
        (N, height, width) uint8.
    """
    tf = tensorflow()
    gray = tf.image.per_image_standardization(tf.reduce_sum(tensor, -1))
    levels: npt.NDArray[np.uint8] = np.clip(255 * np.asarray(gray), 0, 255).astype(np.uint8)
    return levels
