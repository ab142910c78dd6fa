"""Grad-CAM."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.class_maps import by_mean_gradient, layer_maps
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    class_number,
    images_of,
    subject_of,
)
from actgrid.compat.tf_explain.utils.display import VIRIDIS, stacked
from actgrid.errors import ModelError
from actgrid.models.frameworks import tensorflow

__all__ = ["GradCAM"]


def _guided(activation: Any, gradient: Any) -> Any:
    """Weigh channels by their gradients where both these and the activations are positive."""
    tf = tensorflow()
    kept = (activation > 0) & (gradient > 0)
    return by_mean_gradient(activation, tf.where(kept, gradient, tf.zeros_like(gradient)))


class GradCAM(Explainer):
    """Shows where a layer's channels speak for a class.

    References
    ----------
    Selvaraju et al., Grad-CAM, 2016, https://arxiv.org/abs/1610.02391.
    """

    def explain(
        self,
        validation_data: Any,
        model: Any,
        class_index: int,
        layer_name: str | None = None,
        use_guided_grads: bool = True,
        colormap: int | str = VIRIDIS,
        image_weight: float = 0.7,
    ) -> npt.NDArray[np.uint8]:
        """Return the heatmap over each image, in a square grid.

        Parameters
        ----------
        validation_data
            (images, labels or None); images may be a list of arrays of one size.
        model
            A Keras model.
        class_index
            The class.
        layer_name
            The layer, also one in a nested model: ``"outer/inner"``; None: the last one of
            ``model.layers`` with pictures.
        use_guided_grads
            Whether gradients count only where they and the activations are positive.
        colormap
            OpenCV's number of it, or any by its name.
        image_weight
            How strong the image is beside the heatmap, 0 to 1.

        Returns
        -------
        numpy.ndarray
            (rows x height, columns x width, 3) uint8. As in tf-explain, the map is not cut off at
            zero.

        Raises
        ------
        ModelError, TargetError, ShapeError, OptionError
            If the model has no such layer to infer, or an argument cannot be used. ValueErrors.
        LayerError
            If there is no such layer. Also a KeyError.

        Examples
        --------
        >>> explainer = GradCAM()
        >>> grid = explainer.explain((images, None), model, class_index=281)
        >>> explainer.save(grid, ".", "grad_cam.png")
        """
        images = images_of(validation_data)
        if layer_name is None:
            layer_name = self.infer_grad_cam_target_layer(model)
        subject = subject_of(model, images, ClassOutput(class_number(class_index)))
        formula = _guided if use_guided_grads else by_mean_gradient
        maps = [
            one
            for group in subject.groups()
            for one in layer_maps(group, layer_name, formula).values
        ]
        return stacked(maps, images, colormap, image_weight)

    @staticmethod
    def infer_grad_cam_target_layer(model: Any) -> str:
        """Return the name of the last layer whose output has four axes.

        Raises
        ------
        ModelError
            If there is none. Also a ValueError.
        """
        for layer in reversed(model.layers):
            try:
                rank = len(layer.output.shape)
            except (AttributeError, ValueError):  # a layer of several outputs, or of no model yet
                continue
            if rank == 4:
                return str(layer.name)
        raise ModelError("the model has no layer whose output is known to have pictures: name one")
