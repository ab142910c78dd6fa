"""What is done to the inputs before each step of `ActivationMaximization`."""

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
    """A function of an input, (N, ..., C), that returns it changed."""

    @abstractmethod
    def __call__(self, seed_input: Any) -> Any:
        """Return the input changed."""


class Jitter(InputModifier):
    """Moves images at random, and what leaves them comes in at the other side.

    Parameters
    ----------
    jitter
        By at most so many pixels.
    """

    def __init__(self, jitter: int = 8) -> None:
        self.jitter = int(jitter)

    def __call__(self, seed_input: Any) -> Any:
        """Return the images moved."""
        axes = range(1, len(seed_input.shape) - 1)
        if not axes:
            raise ShapeError(f"images must be (N, ..., C), not {tuple(seed_input.shape)}")
        if not self.jitter:
            return seed_input
        shifts = np.random.randint(-self.jitter, self.jitter, len(axes))  # noqa: NPY002
        return tensorflow().roll(seed_input, shifts, list(axes))


class Rotate(InputModifier):
    """Turns images at random; they are mirrored at their edges.

    Parameters
    ----------
    axes
        The two axes of the plane: those of images, (1, 2). tf-keras-vis took others too.
    degree
        By at most so many degrees.

    Raises
    ------
    OptionError
        If the axes are others. Also a ValueError.
    """

    def __init__(self, axes: tuple[int, int] = (1, 2), degree: float = 3.0) -> None:
        if sorted(axes) != [1, 2]:
            raise OptionError(f"axes must be (1, 2), those of an image, not {axes!r}")
        self.axes = axes
        self.degree = float(degree)

    def __call__(self, seed_input: Any) -> Any:
        """Return the images turned."""
        angle = math.radians(np.random.uniform(-self.degree, self.degree))  # noqa: NPY002
        return _transformed(seed_input, angle, 1.0)


class Rotate2D(Rotate):
    """Turns images at random; they are mirrored at their edges.

    Parameters
    ----------
    degree
        By at most so many degrees.
    """

    def __init__(self, degree: float = 3.0) -> None:
        super().__init__(degree=degree)


class Scale(InputModifier):
    """Makes images larger or smaller at random.

    What a smaller one leaves free is mirrored; in tf-keras-vis it was filled with means.

    Parameters
    ----------
    low, high
        The smallest and the largest factor.
    """

    def __init__(self, low: float = 0.9, high: float = 1.1) -> None:
        self.low, self.high = low, high

    def __call__(self, seed_input: Any) -> Any:
        """Return the images scaled."""
        factor = np.random.uniform(self.low, self.high)  # noqa: NPY002
        return _transformed(seed_input, 0.0, factor)


def _transformed(images: Any, angle: float, size: float) -> Any:
    tf = tensorflow()
    if len(images.shape) != 4:
        raise ShapeError(f"images must be (N, H, W, C), not {tuple(images.shape)}")
    return transform_images(tf.cast(images, tf.float32), tf.constant(angle, tf.float32), size)
