"""Gradient ascent (Adam) on images, to maximize the activation of channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.image_parametrization import ImageParametrization
from actgrid.attribution.maximization_inputs import MaximizationInputs
from actgrid.attribution.random_transforms import RandomTransform
from actgrid.errors import (
    LayerError,
)
from actgrid.models.calls import Call, choose_calls
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import Selection
from actgrid.models.logits import find_softmax_logits
from actgrid.models.tracing import trace_model

__all__ = ["AscentOptions", "AscentStep", "ChannelMeans", "ascend"]

# Slope of a ReLU below zero, so that inactive units receive a gradient.
_LEAKY_SLOPE = 0.1


class AscentOptions(NamedTuple):
    """Checked options of `maximize` that do not depend on the model."""

    steps: int
    learning_rate: float
    total_variation: float
    transform: RandomTransform
    seed: int


def ascend(
    step: Any,
    noise: Any,
    channels: npt.NDArray[np.intp],
    options: AscentOptions,
    inputs: MaximizationInputs,
    advance: Callable[[], object],
) -> Any:
    """Run gradient ascent for some channels; return the parameters of their images.

    Parameters
    ----------
    step
        The compiled `AscentStep`.
    noise
        (1, ...) float32 parameters of the initial image.
    channels
        (K,) channel indices; each channel gets an image of its own.
    advance
        Callback that is called after each step.

    Returns
    -------
    tensor
        (K, ...) float32 parameters.
    """
    tf = tensorflow()
    initial = tf.repeat(noise, len(channels), 0)
    model_inputs = inputs.with_image(tf.constant(channels))
    state = (initial, tf.zeros_like(initial), tf.zeros_like(initial))
    rates = tf.constant([options.learning_rate, options.total_variation])
    for index in range(options.steps):
        step_seed = tf.constant([options.seed % 2**63, index], "int64")
        state = step((*state, model_inputs), step_seed, rates)
        advance()
    return state[0]


@dataclass(frozen=True)
class ChannelMeans:
    """Traceable function that returns a layer's path and its channel means, (N, C)."""

    layer: Selection

    def __call__(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """Return the layer path and the channel means, (N, C), as symbolic tensors."""
        call = self.find_call(model, inputs)
        logits = find_softmax_logits(call.tensor)
        means = _average_channels(call.tensor if logits is None else logits, call)
        return tensorflow().constant(call.info.path), means

    def find_call(self, model: Any, inputs: Any) -> Call:
        """Return the single layer call that `layer` selects.

        Raises
        ------
        LayerError
            If `layer` selects several calls, or a call whose output has no float channels.
        """
        calls = choose_calls(model, trace_model(model, inputs).calls, self.layer)
        if len(calls) > 1:
            call_paths = [call.info.path for call in calls]
            # The bare name of a shared layer selects all its calls, `name:0` only the first.
            paths = ", ".join(
                f"{path}:0" if f"{path}:1" in call_paths else path for path in call_paths[:5]
            )
            raise LayerError(f"layer must be one layer: got {len(calls)} ({paths}); name one")
        if calls[0].info.channels is None or not calls[0].tensor.dtype.is_floating:
            raise LayerError(
                f"layer {calls[0].info.path} has no channels to maximize: its output is "
                f"{calls[0].info.dtype} of shape {calls[0].info.shape}"
            )
        return calls[0]


def _average_channels(tensor: Any, call: Call) -> Any:
    """Return the mean of each channel, (N, C), of the output of a layer."""
    tf = tensorflow()
    channel = call.info.channel_axis
    others = [axis for axis in range(1, len(tensor.shape)) if axis != channel]
    return tf.reduce_mean(tf.cast(tensor, "float32"), others)


@dataclass(frozen=True)
class AscentStep:
    """Function that updates the optimized images by one gradient ascent step (Adam)."""

    layer: Selection
    parametrization: ImageParametrization
    position: int
    transform: RandomTransform

    def __call__(self, model: Any, state: Any, step_seed: Any, rates: Any) -> Any:
        """Return the updated image parameters and the first and second moments of Adam."""
        tf = tensorflow()
        parameters, first_moment, second_moment, model_inputs = state
        # The image input carries the channel index of each image: each call passes one structure.
        tensors = tf.nest.flatten(model_inputs)
        channels = tensors[self.position]
        learning_rate, smoothness = rates[0], rates[1]
        images = self.parametrization.to_unit_images(parameters)
        transformed = self.transform(images, tf.ensure_shape(step_seed, [2]))
        tensors[self.position] = self.parametrization.to_model_input(model, transformed)
        inputs = tf.nest.pack_sequence_as(model_inputs, tensors)
        call = ChannelMeans(self.layer).find_call(model, inputs)
        means = _average_channels(_make_leaky(call.tensor), call)
        activations = tf.gather(means, channels, axis=1, batch_dims=1)
        (gradient,) = tf.gradients(activations, images)
        if gradient is None:
            raise LayerError(
                f"layer {call.info.path} does not depend on the image, or cannot be differentiated"
            )
        # Normalized to unit deviation: gradients of layers differ by orders of magnitude, and
        # total_variation is relative to them.
        gradient = tf.math.divide_no_nan(
            gradient, tf.math.reduce_std(gradient, (1, 2, 3), keepdims=True)
        )
        gradient -= smoothness * tf.gradients(tf.image.total_variation(images), images)[0]
        (gradient,) = tf.gradients(images, parameters, gradient)

        # Adam (Kingma and Ba, 2014, https://arxiv.org/abs/1412.6980) with its state in tensors:
        # the variables of a Keras optimizer would fix the size of the first batch.
        first_moment = 0.9 * first_moment + 0.1 * gradient
        second_moment = 0.999 * second_moment + 0.001 * gradient**2
        count = tf.cast(step_seed[1] + 1, "float32")
        deviation = tf.sqrt(second_moment / (1 - 0.999**count)) + 1e-12
        update = learning_rate * first_moment / (1 - 0.9**count) / deviation
        return parameters + update, first_moment, second_moment


def _make_leaky(tensor: Any) -> Any:
    """Return a tensor that has a gradient where the given activation is saturated.

    The output of a softmax is replaced by its logits, and the output of a ReLU by that of a leaky
    ReLU of the same input. Other tensors are returned unchanged.
    """
    logits = find_softmax_logits(tensor)
    if logits is not None:
        return logits
    if tensor.op.type in ("Relu", "Relu6"):
        return tensorflow().nn.leaky_relu(tensor.op.inputs[0], _LEAKY_SLOPE)
    return tensor
