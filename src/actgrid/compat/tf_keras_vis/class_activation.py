"""Grad-CAM, as in tf-keras-vis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from actgrid.attribution.class_maps import weigh_by_mean_gradient
from actgrid.attribution.map_layers import Formula, compute_layer_maps
from actgrid.compat.tf_keras_vis.utils import find_layer
from actgrid.compat.tf_keras_vis.visualization import (
    ModelVisualization,
    check_inference,
    finish_maps,
    force_retrace,
)
from actgrid.errors import LayerError
from actgrid.models.frameworks import keras, tensorflow

__all__ = ["Gradcam", "Modifier", "find_penultimate_layer", "relu"]

# Function that modifies gradients or maps; None: no modification.
Modifier = Callable[[Any], Any] | None


def relu(values: Any) -> Any:
    """Return a tensor with negative values set to zero."""
    return tensorflow().nn.relu(values)


@dataclass(frozen=True)
class _MeanGradientFormula:
    """Formula of a class activation map that weights channels by mean gradients.

    The gradients are changed by `modifier` first.
    """

    modifier: Modifier

    def __call__(self, activation: Any, gradient: Any) -> Any:
        if self.modifier is not None:
            gradient = self.modifier(gradient)
        return weigh_by_mean_gradient(activation, gradient)


class Gradcam(ModelVisualization):
    """Grad-CAM: computes maps of a layer's channels, weighted by their mean gradient.

    See `ModelVisualization` for the arguments of the constructor.

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
        """Compute class activation maps of images, volumes or sequences.

        Parameters
        ----------
        score : callable or list of callable
            Function of the output that returns a score for each image, (N,), such as
            ``CategoricalScore([1, 294])``; a list with a function for each output of the model.
            Functions are traced.
        seed_input : array_like or list of array_like
            Images, (N, H, W, C), or one image without N; volumes (N, D, H, W, C), sequences
            (N, T, C) or tokens (N, T); a list for several inputs.
        penultimate_layer : int, str or keras.Layer, optional
            The layer, by its index in ``model.layers``, by name or as an object. None: the last
            layer.
        seek_penultimate_conv_layer : bool, optional
            Whether to use the last convolution up to this layer instead of the layer.
        gradient_modifier : callable, optional
            Function of TensorFlow operations that modifies the layer's gradients. None: unchanged
            gradients.
        activation_modifier : callable, optional
            Function that modifies the maps, by default ``relu``. None: unchanged maps.
        training : bool, optional
            Must be False: the model is explained in inference mode.
        expand_cam : bool, optional
            Whether to resize the maps linearly to the size of the input.
        normalize_cam : bool, optional
            Whether to scale each map to the range 0 to 1.
        unconnected_gradients : object, optional
            Ignored.
        standardize_cam : bool, optional
            The name of `normalize_cam` before version 0.8. None: `normalize_cam` is used.
        normalize_gradient : bool, optional
            Ignored.

        Returns
        -------
        ndarray or list
            (N, H, W), (N, D, H, W) or (N, T) float32. If `seed_input` is a list, a list with the
            maps for each input, None for inputs of another rank. Without `expand_cam`, a single
            array in the size of the layer.

        Raises
        ------
        OptionError
            If an argument is invalid. Also a ValueError.
        ShapeError
            If the inputs do not fit the model or the layer. Also a ValueError.
        TargetError
            If the model has no such class. Also a ValueError.
        ModelError
            If the model cannot be run. Also a ValueError.
        LayerError
            If the model has no such layer, or the score does not depend on the layer. Also a
            KeyError.

        Examples
        --------
        >>> import keras
        >>> from actgrid.compat.tf_keras_vis.class_activation import Gradcam
        >>> from actgrid.compat.tf_keras_vis.utils.scores import CategoricalScore
        >>> model = keras.Sequential([
        ...     keras.Input((8, 8, 3)),
        ...     keras.layers.Conv2D(4, 3, activation="relu"),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(2),
        ... ])
        >>> images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
        >>> gradcam = Gradcam(model)
        >>> gradcam(CategoricalScore([0, 1]), images).shape
        (2, 8, 8)
        """
        check_inference(training)
        normalize_maps = normalize_cam if standardize_cam is None else standardize_cam
        layer = find_penultimate_layer(self.model, penultimate_layer, seek_penultimate_conv_layer)
        batches = self._batches(score, seed_input, min_rank=2)
        # Every batch has the same inputs. The one with the most axes is used: explaining tokens,
        # which are integers, would convert them to floats.
        batch = max(
            (batch for batch in batches if batch is not None),
            key=lambda batch: len(batch.values.shape),
        )
        formula = self._make_formula(
            force_retrace(gradient_modifier), force_retrace(activation_modifier)
        )
        maps = compute_layer_maps(batch, layer, formula, any_rank=True).values
        results = finish_maps(maps, batches, activation_modifier, expand_cam, normalize_maps)
        return self._unwrap(results, seed_input) if expand_cam else results

    def _make_formula(self, gradient_modifier: Modifier, activation_modifier: Modifier) -> Formula:
        return _MeanGradientFormula(gradient_modifier)


def find_penultimate_layer(model: Any, selection: Any, seek_convolution: bool) -> Any:
    """Return the layer whose maps a class activation map combines.

    Parameters
    ----------
    selection
        Index, name or layer; None: the last layer.
    seek_convolution
        Whether to return the last convolution up to the selected layer.

    Returns
    -------
    keras.Layer
        The layer.

    Raises
    ------
    LayerError
        If the model has no such layer, or no convolution up to the layer.
    """
    k = keras().layers
    layer = selection
    if selection is None or isinstance(selection, (int, np.integer)):
        index = -1 if selection is None else int(selection)
        if not -len(model.layers) <= index < len(model.layers):
            raise LayerError(f"the model has no layer {index}: it has {len(model.layers)} layers")
        layer = model.layers[index]
    elif isinstance(selection, str):
        layer = find_layer(model, lambda candidate: candidate.name == selection)
    if not isinstance(layer, k.Layer):
        raise LayerError(f"penultimate_layer must be a layer of the model: got {selection!r}")
    if seek_convolution:
        types = tuple(getattr(k, name) for name in dir(k) if "Conv" in name and "LSTM" not in name)
        layer = find_layer(model, lambda candidate: isinstance(candidate, types), offset=layer)
        if layer is None:
            raise LayerError(
                f"the model has no convolution up to the layer {selection!r}: pass "
                "seek_penultimate_conv_layer=False to use the layer"
            )
    return layer
