"""Regularizers, where they were and as they counted before version 0.7."""

from __future__ import annotations

import math
from typing import Any

from actgrid.compat.tf_keras_vis.activation_maximization import regularizers

__all__ = ["L2Norm", "Norm", "TotalVariation", "TotalVariation2D"]


class TotalVariation2D(regularizers.TotalVariation2D):
    """The newer one of that name, divided by the number of images."""

    def __call__(self, input_value: Any) -> Any:
        """Return (N,) values."""
        return super().__call__(input_value) / input_value.shape[0]


class TotalVariation(TotalVariation2D):
    """`TotalVariation2D` by another name.

    Parameters
    ----------
    weight
        A factor.
    """

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__(weight, "TotalVariation")


class Norm(regularizers.Norm):
    """The p-norm, divided by the number of values of the input."""

    def __call__(self, input_value: Any) -> Any:
        """Return (N,) values."""
        count = math.prod(input_value.shape[1:])
        return super().__call__(input_value) * count ** (1 / self.p - 1)


class L2Norm(Norm):
    """`Norm` of order 2.

    Parameters
    ----------
    weight
        A factor.
    """

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__(weight, 2, "L2Norm")
