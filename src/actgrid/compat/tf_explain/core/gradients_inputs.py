"""Gradient times input, as in tf-explain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.compat.tf_explain.core.vanilla_gradients import VanillaGradients

__all__ = ["GradientsInputs"]


class GradientsInputs(VanillaGradients):
    """Draws the gradient of a class score times the input.

    Methods are those of `VanillaGradients`.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.core.gradients_inputs import GradientsInputs
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ...     keras.layers.Activation("softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    >>> explainer = GradientsInputs()
    >>> explainer.explain((images, None), model, class_index=1).shape
    (16, 16)
    """

    @staticmethod
    def compute_gradients(
        images: npt.NDArray[Any], model: Any, class_index: int
    ) -> npt.NDArray[np.float32]:
        """Compute the gradients of the output for a class times the images.

        Parameters
        ----------
        images : ndarray
            (N, height, width, C) images.
        model : keras.Model
            The model.
        class_index : int
            Index of the class.

        Returns
        -------
        ndarray
            Float32 of the shape of the images.
        """
        gradients = VanillaGradients.compute_gradients(images, model, class_index)
        return gradients * np.asarray(images, np.float32)
