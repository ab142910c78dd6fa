"""Grad-CAM, as in tf-explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.class_maps import weigh_by_mean_gradient
from actgrid.attribution.loss_gradients import gradients
from actgrid.attribution.map_layers import compute_layer_maps
from actgrid.compat.tf_explain.core.explainer import (
    ClassOutput,
    Explainer,
    check_class_index,
    get_images,
    make_batch,
)
from actgrid.compat.tf_explain.utils.display import VIRIDIS, stack_heatmaps
from actgrid.errors import ModelError
from actgrid.models.extraction import get_extractor
from actgrid.models.frameworks import tensorflow

__all__ = ["GradCAM"]


def _weigh_by_guided_gradient(activation: Any, gradient: Any) -> Any:
    """Compute a Grad-CAM map with guided gradients from an activation.

    Each channel is weighted by the mean of its gradient, in which only positive gradients at
    positive activations count.
    """
    return weigh_by_mean_gradient(activation, _guide_gradient(activation, gradient))


def _guide_gradient(activation: Any, gradient: Any) -> Any:
    """Set gradients to zero where the activation or the gradient is not positive."""
    tf = tensorflow()
    is_positive = (activation > 0) & (gradient > 0)
    return tf.where(is_positive, gradient, tf.zeros_like(gradient))


@dataclass(frozen=True)
class _TotalOutput:
    """Loss function that is the sum of the output for a class over a batch."""

    output: ClassOutput

    def __call__(self, targets: Any, outputs: Any) -> Any:
        return tensorflow().reduce_sum(self.output(outputs))


class GradCAM(Explainer):
    """Draws Grad-CAM maps: a layer's channels, weighted by their mean gradient.

    References
    ----------
    Selvaraju et al., Grad-CAM, 2016, https://arxiv.org/abs/1610.02391.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_explain.core.grad_cam import GradCAM
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2, activation="softmax"),
    ... ])
    >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    >>> explainer = GradCAM()
    >>> explainer.explain((images, None), model, class_index=1).shape
    (16, 16, 3)
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
        """Draw the Grad-CAM map over each image, in a square grid.

        Parameters
        ----------
        validation_data : tuple
            Pair (images, labels); images are (N, height, width, C), labels are ignored and may be
            None.
        model : keras.Model
            The model.
        class_index : int
            Index of the class.
        layer_name : str, optional
            Name of the layer; ``"outer/inner"`` for a layer of a nested model. None: the last layer
            of ``model.layers`` whose output has 4 axes.
        use_guided_grads : bool, optional
            Whether to use only positive gradients at positive activations.
        colormap : int or str, optional
            Number of an OpenCV colormap, or name of a colormap.
        image_weight : float, optional
            Weight of the image under the map, 0 to 1.

        Returns
        -------
        ndarray
            (rows x height, columns x width, 3) uint8. As in tf-explain, negative values of the map
            are kept.

        Raises
        ------
        ModelError
            If `layer_name` is None and no layer has 4 axes, or the model cannot be run. Also a
            ValueError.
        LayerError
            If the model has no such layer. Also a KeyError.
        TargetError
            If the model has no such class. Also a ValueError.
        ShapeError
            If the images do not fit the model. Also a ValueError.
        OptionError
            If another argument is invalid. Also a ValueError.

        Examples
        --------
        >>> import keras
        >>> from actgrid.compat.tf_explain.core.grad_cam import GradCAM
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2, activation="softmax"),
        ... ])
        >>> images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
        >>> explainer = GradCAM()
        >>> grid = explainer.explain((images, None), model, class_index=1)
        >>> explainer.save(grid, ".", "grad_cam.png")
        """
        images = get_images(validation_data)
        if layer_name is None:
            layer_name = self.infer_grad_cam_target_layer(model)
        batch = make_batch(model, images, ClassOutput(check_class_index(class_index)))
        formula = _weigh_by_guided_gradient if use_guided_grads else weigh_by_mean_gradient
        maps = [
            image_map
            for part in batch.split()
            for image_map in compute_layer_maps(part, layer_name, formula).values
        ]
        return stack_heatmaps(maps, images, colormap, image_weight)

    @staticmethod
    def get_gradients_and_filters(
        model: Any,
        images: npt.ArrayLike,
        layer_name: str,
        class_index: int,
        use_guided_grads: bool = True,
    ) -> tuple[Any, Any]:
        """Compute a layer's activations and the gradients of the output for a class.

        Parameters
        ----------
        model : keras.Model
            The model.
        images : array_like
            (N, height, width, C) images.
        layer_name : str
            Name of the layer.
        class_index : int
            Index of the class.
        use_guided_grads : bool, optional
            Whether to use only positive gradients at positive activations.

        Returns
        -------
        activations : tensor
            (N, h, w, C) float32.
        gradients : tensor
            Gradients of the output, with the shape of the activations.
        """
        tf = tensorflow()
        images = np.asarray(images, np.float32)
        score = _TotalOutput(ClassOutput(check_class_index(class_index)))
        by_path = gradients(model, images, 0, loss=score, layers=layer_name).activations
        ((path, gradient),) = by_path.items()
        activations = tf.constant(get_extractor(model, layer_name)(images)[path])
        gradient = tf.constant(gradient)
        if use_guided_grads:
            gradient = _guide_gradient(activations, gradient)
        return activations, gradient

    @staticmethod
    def generate_ponderated_output(outputs: Any, grads: Any) -> list[Any]:
        """Sum the channels of each image, weighted by their mean gradients.

        Parameters
        ----------
        outputs : sequence of tensor
            Activations, (h, w, C) for each image.
        grads : sequence of tensor
            Gradients, (h, w, C) for each image.

        Returns
        -------
        list of tensor
            A map, (h, w), for each image.
        """
        return [
            GradCAM.ponderate_output(output, gradient)
            for output, gradient in zip(outputs, grads, strict=True)
        ]

    @staticmethod
    def ponderate_output(output: Any, grad: Any) -> Any:
        """Sum the channels of one image, weighted by their mean gradients.

        Parameters
        ----------
        output : tensor
            (h, w, C) activations.
        grad : tensor
            (h, w, C) gradients.

        Returns
        -------
        tensor
            (h, w) map.
        """
        tf = tensorflow()
        return tf.reduce_sum(tf.reduce_mean(grad, (0, 1)) * output, -1)

    @staticmethod
    def infer_grad_cam_target_layer(model: Any) -> str:
        """Return the name of the last layer whose output has 4 axes.

        Parameters
        ----------
        model : keras.Model
            The model.

        Returns
        -------
        str
            Name of the layer.

        Raises
        ------
        ModelError
            If no layer has an output of 4 axes. Also a ValueError.
        """
        for layer in reversed(model.layers):
            try:
                rank = len(layer.output.shape)
            except (AttributeError, ValueError):  # layers of several outputs or without a call
                continue
            if rank == 4:
                return str(layer.name)
        raise ModelError("the model has no layer with an output of 4 axes: pass layer_name")
