"""Random translation, rotation, scaling, crops and noise of images, in TensorFlow."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from actgrid.models.frameworks import tensorflow

__all__ = ["RandomTransform", "transform_images"]


# Standard deviation of the side of random crops, as a fraction of the part that is cut off.
_CROP_DEVIATION = 0.6
_MIN_CROP = 0.05


class RandomTransform(NamedTuple):
    """Random affine transform of a batch of images, with noise.

    Attributes
    ----------
    jitter
        Maximum shift, as a fraction of the shorter side.
    rotate
        Maximum angle in degrees.
    scale
        Maximum change of the scale: 0.1 scales by 0.9 to 1.1.
    crop
        Mean side of a random crop, which is enlarged to the size of the image, as a fraction of the
        image's side.
    noise
        Standard deviation of Gaussian noise.
    """

    jitter: float = 0.0
    rotate: float = 0.0
    scale: float = 0.0
    crop: float = 1.0
    noise: float = 0.0

    def __call__(self, images: Any, seed: Any) -> Any:
        """Apply one random transform, chosen by `seed`, to all images, (N, H, W, C)."""
        if self == RandomTransform():
            return images
        tf = tensorflow()
        down, right, turn, zoom = tf.unstack(tf.random.stateless_uniform([4], seed, -1, 1))
        sides = images.shape[1:3]
        down, right = down * self.jitter * min(sides), right * self.jitter * min(sides)
        angle, size = turn * math.radians(self.rotate), 1 + zoom * self.scale
        if self.crop < 1:
            deviation = _CROP_DEVIATION * (1 - self.crop)
            side = self.crop + deviation * tf.random.stateless_normal([], seed + 1)
            side = tf.clip_by_value(side, _MIN_CROP, 1.0)
            # The crop lies inside the image: its centre is at most half of the rest away.
            places = tf.random.stateless_uniform([2], seed + 2, -0.5, 0.5) * (1 - side)
            down, right = down + places[0] * sides[0], right + places[1] * sides[1]
            size /= side
        if any(self[:3]) or self.crop < 1:
            images = transform_images(images, angle, size, down, right)
        if self.noise:
            # All images get the same noise, so that an image does not depend on the other images.
            images += self.noise * tf.random.stateless_normal(images.shape[1:], seed + 3)
        return images


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
