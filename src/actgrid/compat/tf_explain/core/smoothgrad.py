"""SmoothGrad, as in tf-explain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.input_gradients import keep_values, sum_gradients
from actgrid.compat.tf_explain.core.explainer import (
    ClassLoss,
    Explainer,
    check_class_index,
    get_images,
    make_batch,
)
from actgrid.compat.tf_explain.utils.display import grid_display
from actgrid.compat.tf_explain.utils.image import transform_to_normalized_grayscale
from actgrid.option_checks import check_integer, check_number

__all__ = ["SmoothGrad"]


class SmoothGrad(Explainer):
    """Draws the mean gradient of the loss over noisy copies of each image.

    As in tf-explain, the loss is the cross-entropy of the class, whereas `actgrid.explain` uses the
    score of the class. The noise comes from NumPy's global generator and is reproducible with
    `numpy.random.seed`.

    References
    ----------
    Smilkov et al., SmoothGrad, 2017, https://arxiv.org/abs/1706.03825.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.core.smoothgrad import SmoothGrad
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    >>> explainer = SmoothGrad()
    >>> explainer.explain((images, None), model, class_index=1, num_samples=5).shape
    (16, 16)
    """

    def explain(
        self,
        validation_data: Any,
        model: Any,
        class_index: int,
        num_samples: int = 5,
        noise: float = 1.0,
    ) -> npt.NDArray[np.uint8]:
        """Draw the absolute mean gradient of each image, in a square grid.

        Parameters
        ----------
        validation_data : tuple
            Pair (images, labels); images are (N, height, width, C), labels are ignored and may be
            None.
        model : keras.Model
            A model that ends in a softmax.
        class_index : int
            Index of the class.
        num_samples : int, optional
            Number of noisy copies of each image.
        noise : float, optional
            Standard deviation of the noise, in the units of the images.

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
        >>> from actgrid.compat.tf_explain.core.smoothgrad import SmoothGrad
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2, activation="softmax"),
        ... ])
        >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
        >>> explainer = SmoothGrad()
        >>> grid = explainer.explain((images, None), model, class_index=1, num_samples=5)
        >>> explainer.save(grid, ".", "smoothgrad.png")
        """
        noisy_images = self.generate_noisy_images(get_images(validation_data), num_samples, noise)
        means = self.get_averaged_gradients(noisy_images, model, class_index, num_samples)
        return grid_display(transform_to_normalized_grayscale(np.abs(means)))

    @staticmethod
    def generate_noisy_images(
        images: npt.ArrayLike, num_samples: int, noise: float
    ) -> npt.NDArray[Any]:
        """Add Gaussian noise to copies of each image.

        Parameters
        ----------
        images : array_like
            (N, height, width, C) images.
        num_samples : int
            Number of copies of each image.
        noise : float
            Standard deviation of the noise, in the units of the images.

        Returns
        -------
        ndarray
            (N x num_samples, height, width, C). All copies of an image precede the next image.
        """
        copies = np.repeat(images, check_integer("num_samples", num_samples, 1), 0)
        deviation = check_number("noise", noise)
        noise_values = np.random.normal(0, deviation, copies.shape)  # noqa: NPY002
        noisy_images: npt.NDArray[Any] = copies + noise_values.astype(np.float32)
        return noisy_images

    @staticmethod
    def get_averaged_gradients(
        noisy_images: npt.NDArray[Any], model: Any, class_index: int, num_samples: int
    ) -> npt.NDArray[np.float32]:
        """Compute the mean gradient of the loss over each group of `num_samples` images.

        Parameters
        ----------
        noisy_images : ndarray
            (N x num_samples, height, width, C) images.
        model : keras.Model
            The model.
        class_index : int
            Index of the class.
        num_samples : int
            Number of images in a group.

        Returns
        -------
        ndarray
            (N, height, width, C) float32.
        """
        batch = make_batch(model, noisy_images, ClassLoss(check_class_index(class_index)))
        gradients = sum_gradients(batch, keep_values, [1.0])
        means: npt.NDArray[np.float32]
        means = gradients.reshape(-1, num_samples, *gradients.shape[1:]).mean(1)
        return means
