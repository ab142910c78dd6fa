"""Gradients with respect to the image, as in tf-explain."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.input_gradients import keep_values, sum_gradients
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    check_class_index,
    get_images,
    make_batch,
)
from actgrid.compat.tf_explain.utils.display import grid_display
from actgrid.compat.tf_explain.utils.image import transform_to_normalized_grayscale
from actgrid.models.frameworks import keras
from actgrid.models.inputs import build_submodel

__all__ = ["ACTIVATION_LAYER_CLASSES", "UNSUPPORTED_ARCHITECTURE_WARNING", "VanillaGradients"]

UNSUPPORTED_ARCHITECTURE_WARNING = (
    "the last layer of the model is not an activation layer: gradients of the model's output are "
    "computed"
)
# Keras 3 has no ThresholdedReLU.
ACTIVATION_LAYER_CLASSES = tuple(
    getattr(keras().layers, name)
    for name in ("Activation", "LeakyReLU", "PReLU", "ReLU", "Softmax")
)


class VanillaGradients(Explainer):
    """Draws the gradient of a class score with respect to each pixel.

    References
    ----------
    Simonyan et al., Deep Inside Convolutional Networks, 2013, https://arxiv.org/abs/1312.6034.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.core.vanilla_gradients import VanillaGradients
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ...     keras.layers.Activation("softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    >>> explainer = VanillaGradients()
    >>> explainer.explain((images, None), model, class_index=1).shape
    (16, 16)
    """

    def explain(self, validation_data: Any, model: Any, class_index: int) -> npt.NDArray[np.uint8]:
        """Draw the absolute gradient of each image, in a square grid.

        Parameters
        ----------
        validation_data : tuple
            Pair (images, labels); images are (N, height, width, C), labels are ignored and may be
            None.
        model : keras.Model
            The model. If its last layer is an activation layer, such as ``Activation("softmax")``,
            the score before this layer is explained. Otherwise, a warning is issued and the output
            is explained.
        class_index : int
            Index of the class.

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
        >>> from actgrid.compat.tf_explain.core.vanilla_gradients import VanillaGradients
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2),
        ...     keras.layers.Activation("softmax"),
        ... ])
        >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
        >>> explainer = VanillaGradients()
        >>> grid = explainer.explain((images, None), model, class_index=1)
        >>> explainer.save(grid, ".", "vanilla_gradients.png")
        """
        score_model = self.get_score_model(model)
        return self.explain_score_model(validation_data, score_model, class_index)

    def get_score_model(self, model: Any) -> Any:
        """Return a model without its last layer if the layer is an activation layer.

        Parameters
        ----------
        model : keras.Model
            The model.

        Returns
        -------
        keras.Model
            A model that returns scores, or `model` if its last layer is not an activation layer.
        """
        last = model.layers[-1] if model.layers else None
        if isinstance(last, ACTIVATION_LAYER_CLASSES) and getattr(model, "inputs", None):
            return build_submodel(model, last.input)
        warnings.warn(UNSUPPORTED_ARCHITECTURE_WARNING, stacklevel=3)
        return model

    def explain_score_model(
        self, validation_data: Any, score_model: Any, class_index: int
    ) -> npt.NDArray[np.uint8]:
        """Draw the absolute gradient of each image for a model that returns scores.

        Parameters
        ----------
        validation_data : tuple
            Pair (images, labels); images are (N, height, width, C), labels are ignored and may be
            None.
        score_model : keras.Model
            Result of `get_score_model`.
        class_index : int
            Index of the class.

        Returns
        -------
        ndarray
            (rows x height, columns x width) uint8, as from `explain`.
        """
        images = get_images(validation_data)
        gradients = self.compute_gradients(images, score_model, class_index)
        return grid_display(transform_to_normalized_grayscale(np.abs(gradients)))

    @staticmethod
    def compute_gradients(
        images: npt.NDArray[Any], model: Any, class_index: int
    ) -> npt.NDArray[np.float32]:
        """Compute the gradients of the output for a class with respect to the images.

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
        batch = make_batch(model, images, ClassOutput(check_class_index(class_index)))
        return sum_gradients(batch, keep_values, [1.0])
