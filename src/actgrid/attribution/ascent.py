"""Gradient ascent (Adam) on images, to maximize the activation of channels."""

from __future__ import annotations

import math
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
from actgrid.models.networks import trace_network

__all__ = ["AscentOptions", "AscentStep", "ChannelMeans", "ascend", "measure_similarity"]

# Slope of a ReLU below zero, so that inactive units receive a gradient.
_LEAKY_SLOPE = 0.1


class AscentOptions(NamedTuple):
    """Checked options of `maximize` that do not depend on the model."""

    steps: int
    learning_rate: float
    total_variation: float
    diversity: float
    seed: int


def ascend(
    step: Any,
    noise: Any,
    channels: npt.NDArray[np.intp],
    options: AscentOptions,
    inputs: MaximizationInputs,
    advance: Callable[[], object],
) -> tuple[Any, Any]:
    """Run gradient ascent for some channels.

    Parameters
    ----------
    step
        The compiled `AscentStep`.
    noise
        (V, ...) float32 parameters of the initial images, the V variants of a channel.
    channels
        (K,) channel indices; each channel gets V images of its own.
    advance
        Callback that is called after each step.

    Returns
    -------
    tuple
        (K * V, ...) float32 parameters, and the sum over the steps of the absolute gradients with
        respect to the pixels, (K * V, H, W). All variants of a channel precede the next channel.
    """
    tf = tensorflow()
    initial = tf.tile(noise, [len(channels)] + [1] * (len(noise.shape) - 1))
    model_inputs = inputs.with_image(tf.repeat(tf.constant(channels), len(noise)))
    importance = tf.zeros((len(initial), *step.body.parametrization.sides))
    state = (initial, tf.zeros_like(initial), tf.zeros_like(initial), importance)
    for index in range(options.steps):
        step_seed = tf.constant([options.seed % 2**63, index], "int64")
        # The learning rate decreases to 0, so that the last steps average out their noise.
        learning_rate = options.learning_rate * math.cos(math.pi / 2 * index / options.steps)
        rates = tf.constant([learning_rate, options.total_variation, options.diversity])
        state = step((*state, model_inputs), step_seed, rates)
        advance()
    return state[0], state[3]


@dataclass(frozen=True)
class ChannelMeans:
    """Traceable function that returns a layer's path and its channel means, (N, C)."""

    layer: Selection

    def __call__(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """Return the layer path and the channel means, (N, C), as symbolic tensors."""
        call = self.find_calls(model, inputs)[-1]
        logits = find_softmax_logits(call.tensor)
        means = _average_channels(call.tensor if logits is None else logits, call)
        return tensorflow().constant(call.info.path), means

    def find_calls(self, model: Any, inputs: Any) -> list[Call]:
        """Return the layer calls up to the single call that `layer` selects, which is the last.

        Raises
        ------
        LayerError
            If `layer` selects several calls, or a call whose output has no float channels.
        """
        all_calls = trace_network(model, inputs).calls
        calls = choose_calls(model, all_calls, self.layer)
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
        end = next(index for index, call in enumerate(all_calls, 1) if call is calls[0])
        return all_calls[:end]


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
    variants: int = 1

    def __call__(self, model: Any, state: Any, step_seed: Any, rates: Any) -> Any:
        """Return the updated image parameters, the moments of Adam, and the importance."""
        tf = tensorflow()
        parameters, first_moment, second_moment, importance, model_inputs = state
        # The image input carries the channel index of each image: each call passes one structure.
        tensors = tf.nest.flatten(model_inputs)
        channels = tensors[self.position]
        learning_rate, smoothness, diversity = tf.unstack(tf.ensure_shape(rates, [3]))
        images = self.parametrization.to_unit_images(parameters)
        transformed = self.transform(images, tf.ensure_shape(step_seed, [2]))
        tensors[self.position] = self.parametrization.to_model_input(model, transformed)
        inputs = tf.nest.pack_sequence_as(model_inputs, tensors)
        calls = ChannelMeans(self.layer).find_calls(model, inputs)
        call = calls[-1]
        means = _average_channels(_make_leaky(call.tensor), call)
        activations = tf.gather(means, channels, axis=1, batch_dims=1)
        (gradient,) = tf.gradients(activations, images)
        if gradient is None:
            raise LayerError(
                f"layer {call.info.path} does not depend on the image, or cannot be differentiated"
            )
        importance += tf.reduce_sum(tf.abs(gradient), 3)
        # Normalized to unit deviation: gradients of layers differ by orders of magnitude, and the
        # weights of the penalties are relative to them.
        gradient = _normalize(gradient)
        gradient -= smoothness * tf.gradients(tf.image.total_variation(images), images)[0]
        if self.variants > 1:
            similarity = measure_similarity(*_find_features(calls), self.variants)
            (penalty,) = tf.gradients(similarity, images)
            if penalty is not None:
                gradient -= diversity * _normalize(penalty)
        (gradient,) = tf.gradients(images, parameters, gradient)

        # Adam (Kingma and Ba, 2014, https://arxiv.org/abs/1412.6980) with its state in tensors:
        # the variables of a Keras optimizer would fix the size of the first batch.
        squares = gradient**2
        if self.parametrization.shares_step_size:
            # A step size for each frequency would enlarge the high frequencies, which have small
            # gradients, to high-frequency noise.
            axes = list(range(1, len(gradient.shape)))
            squares = tf.ones_like(squares) * tf.reduce_mean(squares, axes, keepdims=True)
        first_moment = 0.9 * first_moment + 0.1 * gradient
        second_moment = 0.999 * second_moment + 0.001 * squares
        count = tf.cast(step_seed[1] + 1, "float32")
        deviation = tf.sqrt(second_moment / (1 - 0.999**count)) + 1e-12
        update = learning_rate * first_moment / (1 - 0.9**count) / deviation
        return parameters + update, first_moment, second_moment, importance


def _normalize(gradient: Any) -> Any:
    """Return the gradients (N, H, W, C) divided by the standard deviation of each image."""
    tf = tensorflow()
    deviation = tf.math.reduce_std(gradient, (1, 2, 3), keepdims=True)
    return tf.math.divide_no_nan(gradient, deviation)


def _find_features(calls: list[Call]) -> tuple[Any, int]:
    """Return the output that is compared between variants, and its channel axis.

    It is the output of the last call; if that has no positions, of the last call before with
    positions.
    """
    call = next((call for call in reversed(calls) if call.info.is_spatial), calls[-1])
    return call.tensor, call.info.channel_axis


def measure_similarity(features: Any, channel_axis: int, variants: int) -> Any:
    """Return the mean cosine similarity of the Gram matrices of the variants of each channel.

    Parameters
    ----------
    features
        (K * variants, ...) activations, with all variants of a channel before the next channel.
    channel_axis
        Axis of the channels.
    variants
        Number of variants of a channel, at least 2.

    Returns
    -------
    tensor
        (K,) float32: mean over the pairs of different variants.
    """
    tf = tensorflow()
    features = tf.cast(features, "float32")
    rank = len(features.shape)
    last = [axis for axis in range(rank) if axis != channel_axis] + [channel_axis]
    features = tf.transpose(features, last)
    channels = features.shape[-1]
    rows = tf.reshape(features, (tf.shape(features)[0], -1, channels))
    grams = tf.reshape(tf.linalg.matmul(rows, rows, transpose_a=True), (-1, variants, channels**2))
    grams = tf.math.l2_normalize(grams, -1)
    similarities = tf.linalg.matmul(grams, grams, transpose_b=True)
    off_diagonal = 1 - tf.eye(variants)
    pairs = variants * (variants - 1)
    return tf.reduce_sum(similarities * off_diagonal, (1, 2)) / pairs


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
