"""The gradient with respect to the image."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.input_gradients import as_it_is, summed_gradients
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    batch_of,
    class_number,
    images_of,
)
from actgrid.compat.tf_explain.utils.display import grid_display
from actgrid.compat.tf_explain.utils.image import transform_to_normalized_grayscale
from actgrid.models.frameworks import keras
from actgrid.models.inputs import partial_model

__all__ = ["ACTIVATION_LAYER_CLASSES", "UNSUPPORTED_ARCHITECTURE_WARNING", "VanillaGradients"]

UNSUPPORTED_ARCHITECTURE_WARNING = (
    "the last layer of the model is no activation by itself: gradients are those of the model's "
    "output"
)
# Keras 3 has no ThresholdedReLU.
ACTIVATION_LAYER_CLASSES = tuple(
    getattr(keras().layers, name)
    for name in ("Activation", "LeakyReLU", "PReLU", "ReLU", "Softmax")
)


class VanillaGradients(Explainer):
    """Shows how much the score of a class changes with each pixel.

    References
    ----------
    Simonyan et al., Deep Inside Convolutional Networks, 2013, https://arxiv.org/abs/1312.6034.
    """

    def explain(self, validation_data: Any, model: Any, class_index: int) -> npt.NDArray[np.uint8]:
        """Return the absolute gradient of each image, in a square grid.

        Parameters
        ----------
        validation_data
            (images, labels or None).
        model
            A Keras model. If its last layer is an activation by itself, such as
            ``Activation("softmax")``, the score before it is taken; if not there is a warning, and
            it is the model's output.
        class_index
            The class.

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
        >>> explainer = VanillaGradients()
        >>> grid = explainer.explain((images, None), model, class_index=281)
        >>> explainer.save(grid, ".", "vanilla_gradients.png")
        """
        score_model = self.get_score_model(model)
        return self.explain_score_model(validation_data, score_model, class_index)

    def get_score_model(self, model: Any) -> Any:
        """Return a model without its last layer, if that is an activation; or else itself."""
        last = model.layers[-1] if model.layers else None
        if isinstance(last, ACTIVATION_LAYER_CLASSES) and getattr(model, "inputs", None):
            return partial_model(model, last.input)
        warnings.warn(UNSUPPORTED_ARCHITECTURE_WARNING, stacklevel=3)
        return model

    def explain_score_model(
        self, validation_data: Any, score_model: Any, class_index: int
    ) -> npt.NDArray[np.uint8]:
        """Do as `explain` with a model that `get_score_model` returned."""
        images = images_of(validation_data)
        gradients = self.compute_gradients(images, score_model, class_index)
        return grid_display(transform_to_normalized_grayscale(np.abs(gradients)))

    @staticmethod
    def compute_gradients(
        images: npt.NDArray[Any], model: Any, class_index: int
    ) -> npt.NDArray[np.float32]:
        """Return the gradients of the output for a class, of the images' shape."""
        batch = batch_of(model, images, ClassOutput(class_number(class_index)))
        return summed_gradients(batch, as_it_is, [1.0])
