"""Resize maps of any number of axes linearly."""

from __future__ import annotations

from typing import Any

from actgrid.models.frameworks import tensorflow

__all__ = ["resize_linearly"]


def resize_linearly(maps: Any, sides: Any) -> Any:
    """Resize maps linearly along each axis.

    As in `tf.image.resize`, positions are intervals of one length, and the outermost values extend
    to the edges.

    Parameters
    ----------
    maps
        (N, ...) float32 tensor.
    sides
        New length of each axis after the first.

    Returns
    -------
    tensor
        (N, *sides).
    """
    tf = tensorflow()
    for axis in range(maps.shape.rank - 1):
        # Each step resizes the first axis after the samples and moves it to the end.
        shape = tf.shape(maps)
        lines = tf.reshape(maps, tf.stack([shape[0], shape[1], 1, tf.reduce_prod(shape[2:])]))
        resized = tf.image.resize(lines, tf.stack([sides[axis], 1]))
        moved = tf.transpose(resized[:, :, 0], (0, 2, 1))
        maps = tf.reshape(moved, tf.concat([shape[:1], shape[2:], [sides[axis]]], 0))
    return maps
