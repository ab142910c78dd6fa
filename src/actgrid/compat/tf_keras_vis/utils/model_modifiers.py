"""What is done to a model before it is looked at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from actgrid.compat.tf_keras_vis.class_activation import penultimate
from actgrid.errors import LayerError, OptionError
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import partial_model

__all__ = [
    "ExtractIntermediateLayer",
    "ExtractIntermediateLayerForGradcam",
    "GuidedBackpropagation",
    "ModelModifier",
    "ReplaceToLinear",
]


class ModelModifier(ABC):
    """A function of a model that changes it, or returns another one."""

    @abstractmethod
    def __call__(self, model: Any) -> Any:
        """Return another model, or None if the model itself was changed."""


class ReplaceToLinear(ModelModifier):
    """Takes the activations off the layers that give the outputs.

    It must come last in a list of modifiers.
    """

    def __call__(self, model: Any) -> None:
        """Change the model."""
        for output in model.outputs:
            output._keras_history.operation.activation = keras().activations.linear


class ExtractIntermediateLayer(ModelModifier):
    """Makes a model whose output is that of a layer.

    Parameters
    ----------
    index_or_name
        The layer's place in ``model.layers``, or its name.

    Raises
    ------
    OptionError
        If it is neither. Also a ValueError.
    """

    def __init__(self, index_or_name: int | str) -> None:
        if not isinstance(index_or_name, (int, str)):
            raise OptionError(f"index_or_name must be a number or a name, not {index_or_name!r}")
        self.index_or_name = index_or_name

    def __call__(self, model: Any) -> Any:
        """Return that model.

        Raises
        ------
        LayerError
            If there is no such layer. Also a KeyError.
        """
        which = "name" if isinstance(self.index_or_name, str) else "index"
        try:
            layer = model.get_layer(**{which: self.index_or_name})
        except (ValueError, IndexError) as error:
            raise LayerError(f"the model has no layer {self.index_or_name!r}") from error
        return partial_model(model, layer.output)


class ExtractIntermediateLayerForGradcam(ModelModifier):
    """Makes a model that also returns what a layer gives, after the model's own outputs.

    Parameters
    ----------
    penultimate_layer
        The layer: its place in ``model.layers``, its name, or itself; None: the last one.
    seek_conv_layer
        Whether the layer that is returned is the last convolution up to there.
    include_model_outputs
        Whether the model's own outputs come first.
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
        """Return that model.

        Raises
        ------
        LayerError
            If there is no such layer. Also a KeyError.
        """
        layer = penultimate(model, self.penultimate_layer, self.seek_conv_layer)
        outputs = [*model.outputs, layer.output] if self.include_model_outputs else [layer.output]
        return partial_model(model, outputs)


class GuidedBackpropagation(ModelModifier):
    """Lets activations pass back only gradients that are positive, where they are themselves.

    Layers whose activation is one of these are changed; a ``ReLU`` layer is none of them.

    Parameters
    ----------
    target_activations
        Functions; None: ``keras.activations.relu``.

    References
    ----------
    Springenberg et al., Striving for Simplicity, 2014, https://arxiv.org/abs/1412.6806.
    """

    def __init__(self, target_activations: Iterable[Callable[[Any], Any]] | None = None) -> None:
        given = [keras().activations.relu] if target_activations is None else target_activations
        self.target_activations = list(given)

    def __call__(self, model: Any) -> None:
        """Change the model."""
        for layer in model.layers:
            if getattr(layer, "activation", None) in self.target_activations:
                layer.activation = _guided(layer.activation)


def _guided(activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    tf = tensorflow()

    def guided(x: Any) -> Any:
        def gradient(upstream: Any) -> Any:
            return tf.where((upstream > 0) & (x > 0), upstream, tf.zeros_like(upstream))

        return activation(x), gradient

    return tf.custom_gradient(guided)  # type: ignore[no-any-return]
