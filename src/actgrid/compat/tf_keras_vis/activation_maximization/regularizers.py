"""Regularizers of `ActivationMaximization`, which are minimized."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

from actgrid.compat.tf_keras_vis.utils.scores import ByValue
from actgrid.errors import ShapeError
from actgrid.models.frameworks import tensorflow

__all__ = ["Norm", "Regularizer", "TotalVariation2D"]


class Regularizer(ABC):
    """Base class of regularizers: functions of an input, (N, ..., C), to be minimized.

    Parameters
    ----------
    name : str
        Name that callbacks show.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def __call__(self, input_value: Any) -> Any:
        """Return the regularization term of each input, (N,).

        The method is traced by TensorFlow.
        """


class TotalVariation2D(ByValue, Regularizer):
    """Regularizer: total variation of images, divided by the values of an image.

    Parameters
    ----------
    weight : float, optional
        Factor of the regularization.
    name : str, optional
        Name that callbacks show.
    """

    def __init__(self, weight: float = 10.0, name: str = "TotalVariation2D") -> None:
        super().__init__(name)
        self.weight = float(weight)

    def __call__(self, input_value: Any) -> Any:
        """Return the weighted total variation of each image, (N,)."""
        if input_value.shape.rank != 4:
            raise ShapeError(f"images must be (N, H, W, C), not {tuple(input_value.shape)}")
        count = math.prod(input_value.shape[1:])
        return tensorflow().image.total_variation(input_value) * (self.weight / count)


class Norm(ByValue, Regularizer):
    """Regularizer: P-norm of inputs, normalized by the number of values of an input.

    Parameters
    ----------
    weight : float, optional
        Factor of the regularization.
    p : int, optional
        Order of the norm.
    name : str, optional
        Name that callbacks show.
    """

    def __init__(self, weight: float = 10.0, p: int = 2, name: str = "Norm") -> None:
        super().__init__(name)
        self.weight = float(weight)
        self.p = int(p)

    def __call__(self, input_value: Any) -> Any:
        """Return the weighted norm of each input, (N,)."""
        tf = tensorflow()
        count = math.prod(input_value.shape[1:])
        flat = tf.reshape(input_value, (-1, count))
        return tf.norm(flat, self.p, 1) * (self.weight / count ** (1 / self.p))
