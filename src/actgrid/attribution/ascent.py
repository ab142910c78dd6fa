"""Gradient ascent on the images that maximize channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.canvas import Canvas
from actgrid.attribution.maximization_inputs import MaximizationInputs
from actgrid.attribution.random_transforms import RandomTransform
from actgrid.errors import (
    LayerError,
)
from actgrid.models.calls import Call, choose_calls
from actgrid.models.frameworks import tensorflow
from actgrid.models.layers import Selection
from actgrid.models.logits import before_softmax
from actgrid.models.tracing import trace_model

__all__ = ["AscentOptions", "AscentStep", "Objective", "ascend"]

# A channel that a ReLU keeps silent rises by this share of what it would otherwise.
_LEAK = 0.1


class AscentOptions(NamedTuple):
    """Options of `maximize` that do not depend on the model, checked."""

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
    """Return the parameters of the images that maximize these channels."""
    tf = tensorflow()
    start = tf.repeat(noise, len(channels), 0)
    around = inputs.with_image(tf.constant(channels))
    state = (start, tf.zeros_like(start), tf.zeros_like(start))
    weights = tf.constant([options.learning_rate, options.total_variation])
    for number in range(options.steps):
        place = tf.constant([options.seed % 2**63, number], "int64")
        state = step((*state, around), place, weights)
        advance()
    return state[0]


@dataclass(frozen=True)
class Objective:
    """The path of a layer, and the mean activation of each of its channels, (N, C)."""

    layer: Selection

    def __call__(self, model: Any, inputs: Any) -> tuple[Any, Any]:
        """Return the path and the means as symbolic tensors."""
        call = self.call(model, inputs)
        logits = before_softmax(call.tensor)
        means = _channel_means(call.tensor if logits is None else logits, call)
        return tensorflow().constant(call.info.path), means

    def call(self, model: Any, inputs: Any) -> Call:
        """Return the one call of the model's layers that is wanted."""
        calls = choose_calls(model, trace_model(model, inputs).calls, self.layer)
        if len(calls) > 1:
            known = [call.info.path for call in calls]
            # The name of a shared layer stands for all its calls, name:0 for the first alone.
            paths = ", ".join(f"{path}:0" if f"{path}:1" in known else path for path in known[:5])
            raise LayerError(f"layer stands for {len(calls)} ({paths}): name one of them")
        if calls[0].info.channels is None or not calls[0].tensor.dtype.is_floating:
            raise LayerError(
                f"layer {calls[0].info.path} has no channels to maximise: its output is "
                f"{calls[0].info.dtype} of {calls[0].info.shape}"
            )
        return calls[0]


def _channel_means(tensor: Any, call: Call) -> Any:
    """Return the mean of each channel, (N, C), of a tensor like the layer's output."""
    tf = tensorflow()
    channel = 1 if call.info.data_format == "channels_first" else len(tensor.shape) - 1
    others = [axis for axis in range(1, len(tensor.shape)) if axis != channel]
    return tf.reduce_mean(tf.cast(tensor, "float32"), others)


@dataclass(frozen=True)
class AscentStep:
    """One step of Adam up a layer's channels, one for each image."""

    layer: Selection
    canvas: Canvas
    position: int
    transform: RandomTransform

    def __call__(self, model: Any, state: Any, seed: Any, options: Any) -> Any:
        """Return the next parameters, and the moments of their gradients."""
        tf = tensorflow()
        parameters, mean, square, around = state
        # The model's inputs, with a channel for each image.
        tensors = tf.nest.flatten(around)
        channels = tensors[self.position]
        rate, smoothness = options[0], options[1]
        shares = self.canvas.shares(parameters)
        transformed = self.transform(shares, tf.ensure_shape(seed, [2]))
        tensors[self.position] = self.canvas.prepared(model, transformed)
        inputs = tf.nest.pack_sequence_as(around, tensors)
        call = Objective(self.layer).call(model, inputs)
        means = _channel_means(_leaky_tensor(call.tensor), call)
        reached = tf.gather(means, channels, axis=1, batch_dims=1)
        (slope,) = tf.gradients(reached, shares)
        if slope is None:
            raise LayerError(
                f"layer {call.info.path} does not depend on the image, or cannot be differentiated"
            )
        # In units of its own, or what one layer calls smooth would leave another one blank.
        slope = tf.math.divide_no_nan(slope, tf.math.reduce_std(slope, (1, 2, 3), keepdims=True))
        slope -= smoothness * tf.gradients(tf.image.total_variation(shares), shares)[0]
        (slope,) = tf.gradients(shares, parameters, slope)

        # Kingma and Ba, Adam, 2014, https://arxiv.org/abs/1412.6980, whose state is a tensor here:
        # its variables would have the size of the first batch.
        mean = 0.9 * mean + 0.1 * slope
        square = 0.999 * square + 0.001 * slope**2
        count = tf.cast(seed[1] + 1, "float32")
        deviation = tf.sqrt(square / (1 - 0.999**count)) + 1e-12
        return parameters + rate * mean / (1 - 0.9**count) / deviation, mean, square


def _leaky_tensor(tensor: Any) -> Any:
    """Return what a softmax is taken of, a ReLU with a slope below zero, or the tensor itself."""
    logits = before_softmax(tensor)
    if logits is not None:
        return logits
    if tensor.op.type in ("Relu", "Relu6"):
        return tensorflow().nn.leaky_relu(tensor.op.inputs[0], _LEAK)
    return tensor
