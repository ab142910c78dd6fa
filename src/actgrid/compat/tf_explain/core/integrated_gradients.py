"""Integrated gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.input_gradients import as_it_is, on_the_way, summed_gradients
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    batch_of,
    class_number,
    images_of,
)
from actgrid.compat.tf_explain.utils.display import grid_display
from actgrid.compat.tf_explain.utils.image import transform_to_normalized_grayscale
from actgrid.option_checks import integer_option

__all__ = ["IntegratedGradients"]


class IntegratedGradients(Explainer):
    """Shows the mean gradient on the way from a black image to each image.

    That is not multiplied by the image, as the paper does: `actgrid.explain` does so.

    References
    ----------
    Sundararajan et al., Axiomatic Attribution for Deep Networks, 2017,
    https://arxiv.org/abs/1703.01365.
    """

    def explain(
        self, validation_data: Any, model: Any, class_index: int, n_steps: int = 10
    ) -> npt.NDArray[np.uint8]:
        """Return the absolute mean gradient of each image, in a square grid.

        Parameters
        ----------
        validation_data
            (images, labels or None).
        model
            A Keras model.
        class_index
            The class.
        n_steps
            Images on the way, the first and the last one included; at least 2.

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
        >>> explainer = IntegratedGradients()
        >>> grid = explainer.explain((images, None), model, class_index=281, n_steps=15)
        >>> explainer.save(grid, ".", "integrated_gradients.png")
        """
        steps = integer_option("n_steps", n_steps, 2)
        score = ClassOutput(class_number(class_index))
        batch = batch_of(model, images_of(validation_data), score)
        weights, shares = np.full(steps, 1 / steps), np.linspace(0, 1, steps)
        gradients = summed_gradients(batch, on_the_way, weights, shares, batch.baseline(0.0))
        return grid_display(transform_to_normalized_grayscale(np.abs(gradients)))

    @staticmethod
    def get_integrated_gradients(
        interpolated_images: npt.NDArray[Any], model: Any, class_index: int, n_steps: int
    ) -> npt.NDArray[np.float32]:
        """Return the mean gradient of the output for a class over each `n_steps` images."""
        batch = batch_of(model, interpolated_images, ClassOutput(class_number(class_index)))
        gradients = summed_gradients(batch, as_it_is, [1.0])
        means: npt.NDArray[np.float32]
        means = gradients.reshape(-1, n_steps, *gradients.shape[1:]).mean(1)
        return means

    @staticmethod
    def generate_interpolations(images: npt.ArrayLike, n_steps: int) -> npt.NDArray[Any]:
        """Return the way from a black image to each image, (N * n_steps, H, W, C)."""
        path = IntegratedGradients.generate_linear_path
        ways = [path(np.zeros_like(image), image, n_steps) for image in np.asarray(images)]
        return np.concatenate(ways)

    @staticmethod
    def generate_linear_path(
        baseline: npt.NDArray[Any], target: npt.NDArray[Any], n_steps: int
    ) -> list[npt.NDArray[Any]]:
        """Return `n_steps` images evenly from one image to another, both included."""
        shares = np.linspace(0, 1, integer_option("n_steps", n_steps, 2))
        return [baseline + (target - baseline) * share for share in shares]
