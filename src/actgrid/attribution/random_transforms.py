"""Random translation, rotation and scaling of images, in TensorFlow."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from actgrid.models.frameworks import tensorflow

__all__ = ["RandomTransform", "transform_images"]


class RandomTransform(NamedTuple):
    """Random affine transform of a batch of images.

    Attributes
    ----------
    jitter
        Maximum shift, as a fraction of the shorter side.
    rotate
        Maximum angle in degrees.
    scale
        Maximum change of the scale: 0.1 scales by 0.9 to 1.1.
    """

    jitter: float
    rotate: float
    scale: float

    def __call__(self, images: Any, seed: Any) -> Any:
        """Apply one random transform, chosen by `seed`, to all images, (N, H, W, C)."""
        if not any(self):
            return images
        tf = tensorflow()
        down, right, turn, zoom = tf.unstack(tf.random.stateless_uniform([4], seed, -1, 1))
        max_shift = self.jitter * min(images.shape[1:3])
        angle, size = turn * math.radians(self.rotate), 1 + zoom * self.scale
        return transform_images(images, angle, size, down * max_shift, right * max_shift)


def transform_images(images: Any, angle: Any, size: Any, down: Any = 0.0, right: Any = 0.0) -> Any:
    """Rotate, scale and shift images about their centre, with mirrored edges.

    Parameters
    ----------
    images
        (N, H, W, C) tensor.
    angle
        Rotation in radians.
    size
        Scale factor; above 1 enlarges.
    down, right
        Shift of the visible window in pixels.

    Returns
    -------
    tensor
        (N, H, W, C).
    """
    tf = tensorflow()
    cos, sin = tf.cos(angle) / size, tf.sin(angle) / size
    # The operation takes the inverse transform, from output pixels to input pixels.
    height, width = images.shape[1:3]
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    to_x = middle_x - cos * middle_x + sin * middle_y + right
    to_y = middle_y - sin * middle_x - cos * middle_y + down
    zero = tf.zeros_like(cos)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([cos, -sin, to_x, sin, cos, to_y, zero, zero])[None],
        output_shape=[height, width],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
