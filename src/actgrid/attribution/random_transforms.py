"""Move, turn and scale images at random."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from actgrid.models.frameworks import tensorflow

__all__ = ["RandomTransform", "transform_images"]


class RandomTransform(NamedTuple):
    """How far an image is moved, turned and scaled at random."""

    jitter: float
    rotate: float
    scale: float

    def __call__(self, images: Any, seed: Any) -> Any:
        """Return symbolic images, (N, H, W, C), all of them transformed alike."""
        if not any(self):
            return images
        tf = tensorflow()
        down, right, turn, zoom = tf.unstack(tf.random.stateless_uniform([4], seed, -1, 1))
        far = self.jitter * min(images.shape[1:3])
        angle, size = turn * math.radians(self.rotate), 1 + zoom * self.scale
        return transform_images(images, angle, size, down * far, right * far)


def transform_images(images: Any, angle: Any, size: Any, down: Any = 0.0, right: Any = 0.0) -> Any:
    """Return images, (N, H, W, C), rotated by radians and enlarged about the middle.

    They are then looked at from so many pixels further down and right, and mirrored at their edges.
    """
    tf = tensorflow()
    cos, sin = tf.cos(angle) / size, tf.sin(angle) / size
    # About the middle; each pixel comes from where this takes it.
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
