"""Regularizers, in their module and with their scaling before version 0.7."""

from __future__ import annotations

import math
from typing import Any

from actgrid.compat.tf_keras_vis.activation_maximization import regularizers

__all__ = ["L2Norm", "Norm", "TotalVariation", "TotalVariation2D"]


class TotalVariation2D(regularizers.TotalVariation2D):
    """Regularizer: total variation of images, divided by the number of images."""

    def __call__(self, input_value: Any) -> Any:
        """Return the weighted total variation of each image, (N,)."""
        return super().__call__(input_value) / input_value.shape[0]


class TotalVariation(TotalVariation2D):
    """Regularizer: total variation of images, the same as `TotalVariation2D`.

    Parameters
    ----------
    weight : float, optional
        Factor of the regularization.
    """

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__(weight, "TotalVariation")


class Norm(regularizers.Norm):
    """Regularizer: P-norm of inputs, divided by the number of values of an input."""

    def __call__(self, input_value: Any) -> Any:
        """Return the weighted norm of each input, (N,)."""
        count = math.prod(input_value.shape[1:])
        return super().__call__(input_value) * count ** (1 / self.p - 1)


class L2Norm(Norm):
    """Regularizer: L2 norm of inputs, divided by the number of values of an input.

    Parameters
    ----------
    weight : float, optional
        Factor of the regularization.
    """

    def __init__(self, weight: float = 10.0) -> None:
        super().__init__(weight, 2, "L2Norm")
