"""Integrated gradients, as in tf-explain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.input_gradients import interpolate, keep_values, sum_gradients
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    check_class_index,
    get_images,
    make_batch,
)
from actgrid.compat.tf_explain.utils.display import grid_display
from actgrid.compat.tf_explain.utils.image import transform_to_normalized_grayscale
from actgrid.option_checks import check_integer

__all__ = ["IntegratedGradients"]


class IntegratedGradients(Explainer):
    """Draws the mean gradient on the path from a black image to each image.

    As in tf-explain, the mean gradient is not multiplied by the image, unlike in the paper and in
    `actgrid.explain`.

    References
    ----------
    Sundararajan et al., Axiomatic Attribution for Deep Networks, 2017,
    https://arxiv.org/abs/1703.01365.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.core.integrated_gradients import IntegratedGradients
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    >>> explainer = IntegratedGradients()
    >>> explainer.explain((images, None), model, class_index=1, n_steps=5).shape
    (16, 16)
    """

    def explain(
        self, validation_data: Any, model: Any, class_index: int, n_steps: int = 10
    ) -> npt.NDArray[np.uint8]:
        """Draw the absolute mean gradient of each image, in a square grid.

        Parameters
        ----------
        validation_data : tuple
            Pair (images, labels); images are (N, height, width, C), labels are ignored and may be
            None.
        model : keras.Model
            The model.
        class_index : int
            Index of the class.
        n_steps : int, optional
            Number of images on the path, including both ends; at least 2.

        Returns
        -------
        ndarray
            (rows x height, columns x width) uint8; see `transform_to_normalized_grayscale`.

        Raises
        ------
        TargetError
            If the model has no such class. Also a ValueError.
        ShapeError
            If the images do not fit the model. Also a ValueError.
        OptionError
            If another argument is invalid. Also a ValueError.
        ModelError
            If the model cannot be run. Also a ValueError.

        Examples
        --------
        >>> import keras
        >>> from actgrid.compat.tf_explain.core.integrated_gradients import IntegratedGradients
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2, activation="softmax"),
        ... ])
        >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
        >>> explainer = IntegratedGradients()
        >>> grid = explainer.explain((images, None), model, class_index=1, n_steps=5)
        >>> explainer.save(grid, ".", "integrated_gradients.png")
        """
        steps = check_integer("n_steps", n_steps, 2)
        score = ClassOutput(check_class_index(class_index))
        batch = make_batch(model, get_images(validation_data), score)
        weights, fractions = np.full(steps, 1 / steps), np.linspace(0, 1, steps)
        gradients = sum_gradients(batch, interpolate, weights, fractions, batch.make_baseline(0.0))
        return grid_display(transform_to_normalized_grayscale(np.abs(gradients)))

    @staticmethod
    def get_integrated_gradients(
        interpolated_images: npt.NDArray[Any], model: Any, class_index: int, n_steps: int
    ) -> npt.NDArray[np.float32]:
        """Compute the mean gradient over each group of `n_steps` consecutive images.

        Parameters
        ----------
        interpolated_images : ndarray
            (N x n_steps, height, width, C) images.
        model : keras.Model
            The model.
        class_index : int
            Index of the class.
        n_steps : int
            Number of images in a group.

        Returns
        -------
        ndarray
            (N, height, width, C) float32.
        """
        batch = make_batch(model, interpolated_images, ClassOutput(check_class_index(class_index)))
        gradients = sum_gradients(batch, keep_values, [1.0])
        means: npt.NDArray[np.float32]
        means = gradients.reshape(-1, n_steps, *gradients.shape[1:]).mean(1)
        return means

    @staticmethod
    def generate_interpolations(images: npt.ArrayLike, n_steps: int) -> npt.NDArray[Any]:
        """Interpolate between a black image and each image.

        Parameters
        ----------
        images : array_like
            (N, height, width, C) images.
        n_steps : int
            Number of images on each path, including both ends.

        Returns
        -------
        ndarray
            (N x n_steps, height, width, C).
        """
        make_path = IntegratedGradients.generate_linear_path
        paths = [make_path(np.zeros_like(image), image, n_steps) for image in np.asarray(images)]
        return np.concatenate(paths)

    @staticmethod
    def generate_linear_path(
        baseline: npt.NDArray[Any], target: npt.NDArray[Any], n_steps: int
    ) -> list[npt.NDArray[Any]]:
        """Interpolate linearly between two images.

        Parameters
        ----------
        baseline : ndarray
            First image, (height, width, C).
        target : ndarray
            Last image, (height, width, C).
        n_steps : int
            Number of images, including both ends.

        Returns
        -------
        list of ndarray
            `n_steps` images.
        """
        fractions = np.linspace(0, 1, check_integer("n_steps", n_steps, 2))
        return [baseline + (target - baseline) * fraction for fraction in fractions]
