"""Grad-CAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from actgrid.attribution.class_maps import Formula, by_mean_gradient, layer_maps
from actgrid.compat.tf_keras_vis.utils import find_layer
from actgrid.compat.tf_keras_vis.visualization import (
    ModelVisualization,
    anew,
    check_inference,
    finished,
)
from actgrid.errors import LayerError
from actgrid.models.frameworks import keras, tensorflow

__all__ = ["Gradcam", "Modifier", "penultimate", "relu"]

# Of gradients or maps; None: they stay as they are.
Modifier = Callable[[Any], Any] | None


def relu(values: Any) -> Any:
    """Return what is positive, and zero for the rest."""
    return tensorflow().nn.relu(values)


@dataclass(frozen=True)
class _MeanGradient:
    """Channels, weighed by the mean of their modified gradients."""

    modifier: Modifier

    def __call__(self, activation: Any, gradient: Any) -> Any:
        if self.modifier is not None:
            gradient = self.modifier(gradient)
        return by_mean_gradient(activation, gradient)


class Gradcam(ModelVisualization):
    """Shows where a layer's channels speak for the score.

    References
    ----------
    Selvaraju et al., Grad-CAM, 2016, https://arxiv.org/abs/1610.02391.
    """

    def __call__(
        self,
        score: Any,
        seed_input: Any,
        penultimate_layer: Any = None,
        seek_penultimate_conv_layer: bool = True,
        gradient_modifier: Modifier = None,
        activation_modifier: Modifier = relu,
        training: bool = False,
        expand_cam: bool = True,
        normalize_cam: bool = True,
        unconnected_gradients: Any = None,
        *,
        standardize_cam: bool | None = None,
        normalize_gradient: bool | None = None,
    ) -> Any:
        """Return the class activation maps of images, volumes or sequences.

        Parameters
        ----------
        score
            A function of the output, such as ``CategoricalScore([1, 294])``, that gives a score
            for each image; a list of them for several outputs. It is traced.
        seed_input
            Images, (N, H, W, C) or one without N; or volumes (N, D, H, W, C), sequences (N, T, C)
            or the tokens of texts, (N, T); a list for several inputs.
        penultimate_layer
            The layer: its place in ``model.layers``, its name, or itself; None: the last one.
        seek_penultimate_conv_layer
            Whether the layer that is looked at is the last convolution up to there.
        gradient_modifier
            What is done to the layer's gradients, in TensorFlow's operations.
        activation_modifier
            What is done to the maps, by default ``relu``.
        training
            Must be False.
        expand_cam
            Whether the maps are enlarged linearly to the images' size.
        normalize_cam
            Whether each map is brought to 0 to 1; `standardize_cam` before version 0.8.
        unconnected_gradients, normalize_gradient
            Without effect.

        Returns
        -------
        numpy.ndarray or list
            (N, H, W), (N, D, H, W) or (N, T) float32; a list of these where `seed_input` was a
            list, with None for inputs that have other axes than the maps. Without `expand_cam` one
            array in the layer's size.

        Raises
        ------
        OptionError, ShapeError, TargetError, ModelError
            If an argument cannot be used. ValueErrors.
        LayerError
            If there is no such layer, or the score does not depend on it. Also a KeyError.

        Examples
        --------
        >>> gradcam = Gradcam(model, model_modifier=ReplaceToLinear())
        >>> gradcam(CategoricalScore([1, 294]), images).shape
        (2, 224, 224)
        """
        check_inference(training)
        normalized = normalize_cam if standardize_cam is None else standardize_cam
        layer = penultimate(self.model, penultimate_layer, seek_penultimate_conv_layer)
        batches = self._batches(score, seed_input, min_rank=2)
        # Any of them would do; tokens, which are integers, stay as they are beside images.
        batch = max(
            (batch for batch in batches if batch is not None),
            key=lambda batch: len(batch.image.shape),
        )
        formula = self._formula(anew(gradient_modifier), anew(activation_modifier))
        maps = layer_maps(batch, layer, formula, any_rank=True).values
        found = finished(maps, batches, activation_modifier, expand_cam, normalized)
        return self._as_given(found, seed_input) if expand_cam else found

    def _formula(self, gradient_modifier: Modifier, activation_modifier: Modifier) -> Formula:
        return _MeanGradient(gradient_modifier)


def penultimate(model: Any, wanted: Any, seek_convolution: bool) -> Any:
    """Return the layer that is looked at.

    Raises
    ------
    LayerError
        If there is none such.
    """
    k = keras().layers
    layer = wanted
    if wanted is None or isinstance(wanted, (int, np.integer)):
        number = -1 if wanted is None else int(wanted)
        if not -len(model.layers) <= number < len(model.layers):
            raise LayerError(f"the model has no layer {number}: it has {len(model.layers)}")
        layer = model.layers[number]
    elif isinstance(wanted, str):
        layer = find_layer(model, lambda one: one.name == wanted)
    if not isinstance(layer, k.Layer):
        raise LayerError(f"penultimate_layer is no layer of the model: {wanted!r}")
    if seek_convolution:
        kinds = tuple(getattr(k, name) for name in dir(k) if "Conv" in name and "LSTM" not in name)
        layer = find_layer(model, lambda one: isinstance(one, kinds), offset=layer)
        if layer is None:
            raise LayerError(
                f"there is no convolution up to the layer {wanted!r}: with "
                "seek_penultimate_conv_layer=False that layer itself is looked at"
            )
    return layer
