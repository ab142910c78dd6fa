"""Model modifiers of tf-keras-vis, which change a model before it is explained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from actgrid.compat.tf_keras_vis.class_activation import find_penultimate_layer
from actgrid.errors import LayerError, OptionError
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import build_submodel

__all__ = [
    "ExtractIntermediateLayer",
    "ExtractIntermediateLayerForGradcam",
    "GuidedBackpropagation",
    "ModelModifier",
    "ReplaceToLinear",
]


class ModelModifier(ABC):
    """Base class of model modifiers: functions that change or replace a model."""

    @abstractmethod
    def __call__(self, model: Any) -> Any:
        """Return another model, or None if the model was changed in place."""


class ReplaceToLinear(ModelModifier):
    """Model modifier that makes the activation of the output layers linear.

    In a list of modifiers, this modifier must be the last.
    """

    def __call__(self, model: Any) -> None:
        """Make the output layers of a model linear, in place."""
        for output in model.outputs:
            output._keras_history.operation.activation = keras().activations.linear


class ExtractIntermediateLayer(ModelModifier):
    """Creates a model whose output is the output of a layer.

    Parameters
    ----------
    index_or_name : int or str
        Index of the layer in ``model.layers``, or its name.

    Raises
    ------
    OptionError
        If the value is neither an int nor a str. Also a ValueError.
    """

    def __init__(self, index_or_name: int | str) -> None:
        if not isinstance(index_or_name, (int, str)):
            raise OptionError(f"index_or_name must be an index or a name, not {index_or_name!r}")
        self.index_or_name = index_or_name

    def __call__(self, model: Any) -> Any:
        """Return a model whose output is the output of the intermediate layer.

        Raises
        ------
        LayerError
            If the model has no such layer. Also a KeyError.
        """
        keyword = "name" if isinstance(self.index_or_name, str) else "index"
        try:
            layer = model.get_layer(**{keyword: self.index_or_name})
        except (ValueError, IndexError) as error:
            raise LayerError(f"the model has no layer {self.index_or_name!r}") from error
        return build_submodel(model, layer.output)


class ExtractIntermediateLayerForGradcam(ModelModifier):
    """Creates a model that returns the model's outputs and the output of a layer.

    Parameters
    ----------
    penultimate_layer : int, str or keras.Layer, optional
        The layer, by its index in ``model.layers``, by name or as an object. None: the last layer.
    seek_conv_layer : bool, optional
        Whether to use the last convolution up to this layer instead of the layer.
    include_model_outputs : bool, optional
        Whether to include the model's outputs, before the layer's output.
    """

    def __init__(
        self,
        penultimate_layer: Any = None,
        seek_conv_layer: bool = True,
        include_model_outputs: bool = True,
    ) -> None:
        self.penultimate_layer = penultimate_layer
        self.seek_conv_layer = seek_conv_layer
        self.include_model_outputs = include_model_outputs

    def __call__(self, model: Any) -> Any:
        """Return a model that also returns the output of the penultimate layer.

        Raises
        ------
        LayerError
            If the model has no such layer. Also a KeyError.
        """
        layer = find_penultimate_layer(model, self.penultimate_layer, self.seek_conv_layer)
        outputs = [*model.outputs, layer.output] if self.include_model_outputs else [layer.output]
        return build_submodel(model, outputs)


class GuidedBackpropagation(ModelModifier):
    """Makes activations propagate only positive gradients, at positive inputs.

    Layers with one of the target activations are changed, but not layers of type ``ReLU``.

    Parameters
    ----------
    target_activations : iterable of callable, optional
        Activation functions. None: ``keras.activations.relu``.

    References
    ----------
    Springenberg et al., Striving for Simplicity, 2014, https://arxiv.org/abs/1412.6806.
    """

    def __init__(self, target_activations: Iterable[Callable[[Any], Any]] | None = None) -> None:
        if target_activations is None:
            target_activations = [keras().activations.relu]
        self.target_activations = list(target_activations)

    def __call__(self, model: Any) -> None:
        """Replace the activations of a model by guided activations, in place."""
        for layer in model.layers:
            if getattr(layer, "activation", None) in self.target_activations:
                layer.activation = _guide_activation(layer.activation)


def _guide_activation(activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    tf = tensorflow()

    def guided(x: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            return tf.where((upstream > 0) & (x > 0), upstream, tf.zeros_like(upstream))

        return activation(x), gradient

    return tf.custom_gradient(guided)  # type: ignore[no-any-return]
