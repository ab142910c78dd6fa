"""Grad-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.class_maps import by_mean_gradient, layer_maps
from actgrid.attribution.loss_gradients import gradients
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    batch_of,
    class_number,
    images_of,
)
from actgrid.compat.tf_explain.utils.display import VIRIDIS, stacked
from actgrid.errors import ModelError
from actgrid.models.extraction import Extractor
from actgrid.models.frameworks import tensorflow

__all__ = ["GradCAM"]


def _guided(activation: Any, gradient: Any) -> Any:
    """Weigh channels by their gradients where both these and the activations are positive."""
    tf = tensorflow()
    kept = (activation > 0) & (gradient > 0)
    return by_mean_gradient(activation, tf.where(kept, gradient, tf.zeros_like(gradient)))


@dataclass(frozen=True)
class _TotalOutput:
    """The sum over a batch of the output for a class: a loss. Equal ones share a function."""

    output: ClassOutput

    def __call__(self, truth: Any, outputs: Any) -> Any:
        return tensorflow().reduce_sum(self.output(outputs))


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
        batch = batch_of(model, images, ClassOutput(class_number(class_index)))
        formula = _guided if use_guided_grads else by_mean_gradient
        maps = [
            one for group in batch.groups() for one in layer_maps(group, layer_name, formula).values
        ]
        return stacked(maps, images, colormap, image_weight)

    @staticmethod
    def get_gradients_and_filters(
        model: Any,
        images: npt.ArrayLike,
        layer_name: str,
        class_index: int,
        use_guided_grads: bool = True,
    ) -> tuple[Any, Any]:
        """Return a layer's activations, and the gradients of the output for a class.

        Parameters
        ----------
        images
            (N, height, width, C).
        model, layer_name, class_index, use_guided_grads
            As for `explain`.

        Returns
        -------
        tuple
            Two tensors of the activations' shape.
        """
        tf = tensorflow()
        images = np.asarray(images, np.float32)
        score = _TotalOutput(ClassOutput(class_number(class_index)))
        found = gradients(model, images, 0, loss=score, layers=layer_name)
        ((path, gradient),) = found.activations.items()
        activations = tf.constant(Extractor(model, layer_name)(images)[path])
        gradient = tf.constant(gradient)
        if use_guided_grads:
            kept = (activations > 0) & (gradient > 0)
            gradient = tf.where(kept, gradient, tf.zeros_like(gradient))
        return activations, gradient

    @staticmethod
    def generate_ponderated_output(outputs: Any, grads: Any) -> list[Any]:
        """Return for each image the sum of its channels, weighed by their mean gradients."""
        return [
            GradCAM.ponderate_output(output, gradient)
            for output, gradient in zip(outputs, grads, strict=True)
        ]

    @staticmethod
    def ponderate_output(output: Any, grad: Any) -> Any:
        """Return the sum of channels, (h, w, C), weighed by their mean gradients: (h, w)."""
        tf = tensorflow()
        return tf.reduce_sum(tf.reduce_mean(grad, (0, 1)) * output, -1)

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
