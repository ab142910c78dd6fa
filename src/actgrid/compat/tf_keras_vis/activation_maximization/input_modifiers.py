"""Input modifiers of `ActivationMaximization`, applied before each step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from actgrid.attribution.random_transforms import transform_images
from actgrid.errors import OptionError, ShapeError
from actgrid.models.frameworks import tensorflow

__all__ = ["InputModifier", "Jitter", "Rotate", "Rotate2D", "Scale"]


class InputModifier(ABC):
    """Base class of input modifiers: functions that transform an input, (N, ..., C)."""

    @abstractmethod
    def __call__(self, seed_input: Any) -> Any:
        """Return the transformed input, (N, ..., C)."""


class Jitter(InputModifier):
    """Input modifier that rolls images by a random offset.

    Parameters
    ----------
    jitter : int, optional
        Maximum offset in pixels.
    """

    def __init__(self, jitter: int = 8) -> None:
        self.jitter = int(jitter)

    def __call__(self, seed_input: Any) -> Any:
        """Return the images, (N, ..., C), rolled by a random offset."""
        axes = range(1, len(seed_input.shape) - 1)
        if not axes:
            raise ShapeError(f"images must be (N, ..., C), not {tuple(seed_input.shape)}")
        if not self.jitter:
            return seed_input
        shifts = np.random.randint(-self.jitter, self.jitter, len(axes))  # noqa: NPY002
        return tensorflow().roll(seed_input, shifts, list(axes))


class Rotate(InputModifier):
    """Input modifier that rotates images by a random angle, with mirrored edges.

    Parameters
    ----------
    axes : tuple of int, optional
        Axes of the plane of rotation; must be (1, 2). tf-keras-vis also supports other axes.
    degree : float, optional
        Maximum angle in degrees.

    Raises
    ------
    OptionError
        If the axes are not (1, 2). Also a ValueError.
    """

    def __init__(self, axes: tuple[int, int] = (1, 2), degree: float = 3.0) -> None:
        if sorted(axes) != [1, 2]:
            raise OptionError(f"axes must be (1, 2), the axes of an image, not {axes!r}")
        self.axes = axes
        self.degree = float(degree)

    def __call__(self, seed_input: Any) -> Any:
        """Return the images, (N, ..., C), rotated by a random angle."""
        angle = math.radians(np.random.uniform(-self.degree, self.degree))  # noqa: NPY002
        return _transform(seed_input, angle, 1.0)


class Rotate2D(Rotate):
    """Input modifier that rotates images by a random angle, with mirrored edges.

    Parameters
    ----------
    degree : float, optional
        Maximum angle in degrees.
    """

    def __init__(self, degree: float = 3.0) -> None:
        super().__init__(degree=degree)


class Scale(InputModifier):
    """Input modifier that scales images by a random factor.

    The border of an image that is made smaller is filled by mirroring; tf-keras-vis fills it with
    means.

    Parameters
    ----------
    low : float, optional
        Minimum factor.
    high : float, optional
        Maximum factor.
    """

    def __init__(self, low: float = 0.9, high: float = 1.1) -> None:
        self.low, self.high = low, high

    def __call__(self, seed_input: Any) -> Any:
        """Return the images, (N, ..., C), scaled by a random factor."""
        factor = np.random.uniform(self.low, self.high)  # noqa: NPY002
        return _transform(seed_input, 0.0, factor)


def _transform(images: Any, angle: float, size: float) -> Any:
    tf = tensorflow()
    if len(images.shape) != 4:
        raise ShapeError(f"images must be (N, H, W, C), not {tuple(images.shape)}")
    return transform_images(tf.cast(images, tf.float32), tf.constant(angle, tf.float32), size)
