"""SmoothGrad."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.input_gradients import as_it_is, summed_gradients
from actgrid.compat.tf_explain.core.explainer import (
    ClassLoss,
    Explainer,
    batch_of,
    class_number,
    images_of,
)
from actgrid.compat.tf_explain.utils.display import grid_display
from actgrid.compat.tf_explain.utils.image import transform_to_normalized_grayscale
from actgrid.option_checks import integer_option, number_option

__all__ = ["SmoothGrad"]


class SmoothGrad(Explainer):
    """Shows the mean gradient of the loss over noisy copies of each image.

    The loss is the cross-entropy with the class as the true one; that of `actgrid.explain` is the
    class's score. Noise comes from NumPy's global generator, so that `numpy.random.seed` makes it
    repeatable.

    References
    ----------
    Smilkov et al., SmoothGrad, 2017, https://arxiv.org/abs/1706.03825.
    """

    def explain(
        self,
        validation_data: Any,
        model: Any,
        class_index: int,
        num_samples: int = 5,
        noise: float = 1.0,
    ) -> npt.NDArray[np.uint8]:
        """Return the absolute mean gradient of each image, in a square grid.

        Parameters
        ----------
        validation_data
            (images, labels or None).
        model
            A Keras model with a softmax.
        class_index
            The class.
        num_samples
            Noisy copies of each image.
        noise
            Standard deviation of the noise, in the images' units.

        Returns
        -------
        numpy.ndarray
            (rows x height, columns x width) uint8; see `transform_to_normalized_grayscale`.

        Raises
        ------
        TargetError, ShapeError, OptionError, ModelError
            If an argument cannot be used. ValueErrors.

        Examples
        --------
        >>> explainer = SmoothGrad()
        >>> grid = explainer.explain((images, None), model, class_index=281, num_samples=20)
        >>> explainer.save(grid, ".", "smoothgrad.png")
        """
        noisy = self.generate_noisy_images(images_of(validation_data), num_samples, noise)
        means = self.get_averaged_gradients(noisy, model, class_index, num_samples)
        return grid_display(transform_to_normalized_grayscale(np.abs(means)))

    @staticmethod
    def generate_noisy_images(
        images: npt.ArrayLike, num_samples: int, noise: float
    ) -> npt.NDArray[Any]:
        """Return `num_samples` noisy copies of each image, one image after the other.

        Noise is normal, of mean 0 and standard deviation `noise`.
        """
        copies = np.repeat(images, integer_option("num_samples", num_samples, 1), 0)
        added = np.random.normal(0, number_option("noise", noise), copies.shape)  # noqa: NPY002
        noisy: npt.NDArray[Any] = copies + added.astype(np.float32)
        return noisy

    @staticmethod
    def get_averaged_gradients(
        noisy_images: npt.NDArray[Any], model: Any, class_index: int, num_samples: int
    ) -> npt.NDArray[np.float32]:
        """Return the mean gradient of the loss over each `num_samples` images, (N, H, W, C)."""
        batch = batch_of(model, noisy_images, ClassLoss(class_number(class_index)))
        gradients = summed_gradients(batch, as_it_is, [1.0])
        means: npt.NDArray[np.float32]
        means = gradients.reshape(-1, num_samples, *gradients.shape[1:]).mean(1)
        return means
