"""The gradient times the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.core.vanilla_gradients import VanillaGradients

__all__ = ["GradientsInputs"]


class GradientsInputs(VanillaGradients):
    """Shows each pixel's share in the score of a class, if that were linear.

    All else is as in `VanillaGradients`.
    """

    @staticmethod
    def compute_gradients(
        images: npt.NDArray[Any], model: Any, class_index: int
    ) -> npt.NDArray[np.float32]:
        """Return the gradients times the images, of their shape."""
        gradients = VanillaGradients.compute_gradients(images, model, class_index)
        return gradients * np.asarray(images, np.float32)
