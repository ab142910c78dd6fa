"""Values to gray levels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.models.frameworks import tensorflow

__all__ = ["transform_to_normalized_grayscale"]


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
