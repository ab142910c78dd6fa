"""Class activation maps (CAM) that weight channels by scores of changed inputs or layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import BatchAttribution, ExplainedBatch, ScoreReader
from actgrid.attribution.channel_replacement import score_replaced_channels
from actgrid.attribution.input_gradients import SEED_LIMIT
from actgrid.attribution.linear_resizing import resize_linearly
from actgrid.attribution.map_layers import (
    LayerChoice,
    choose_layer,
    compute_layer_values,
    keep_activation,
    make_layer_attribution,
)
from actgrid.attribution.method import method
from actgrid.attribution.perturbation import MaskFunction, score_masked_images
from actgrid.attribution.scores import TargetScores
from actgrid.errors import OptionError
from actgrid.models.frameworks import tensorflow
from actgrid.models.types import LayerLike

__all__ = ["ablationcam", "iscam", "scorecam", "sscam"]

# Channel weights of Score-CAM: "softmax" is the softmax of the scores over the channels, as in the
# paper; "probability" is the probability of the class, as in its authors' code.
Weighting = Literal["softmax", "probability"]


class _Channels(NamedTuple):
    """Record of the channels of a layer that a method uses.

    Attributes
    ----------
    maps
        (N, channels, h, w): the activations, or with other spatial axes.
    indices
        (N, channels) int32: index of each channel in the layer.
    """

    choice: LayerChoice
    layer: str
    maps: Any
    indices: Any
    target_scores: TargetScores


def _select_channels(
    batch: ExplainedBatch, layer: LayerLike | None, token_grid: Any, max_channels: int | None
) -> _Channels:
    """Return the channels of a layer, those with the largest standard deviation first."""
    tf = tensorflow()
    choice = choose_layer(batch, layer, token_grid)
    name, activation, _, target_scores = compute_layer_values(batch, choice, keep_activation)
    rank = activation.shape.rank
    maps = tf.transpose(activation, (0, rank - 1, *range(1, rank - 1)))
    count = maps.shape[1]
    indices = tf.tile(tf.range(count)[None], (maps.shape[0], 1))
    if max_channels is not None and max_channels < count:
        deviations = tf.math.reduce_std(maps, list(range(2, rank)))
        indices = tf.argsort(-deviations, stable=True)[:, :max_channels]
        maps = tf.gather(maps, indices, batch_dims=1)
    return _Channels(choice, name, maps, indices, target_scores)


def _make_attribution(batch: ExplainedBatch, channels: _Channels, weights: Any) -> BatchAttribution:
    """Return the positive part of the weighted sum of channels as the result of a method."""
    tf = tensorflow()
    maps = tf.nn.relu(tf.einsum("nc...,nc->n...", channels.maps, weights))
    return make_layer_attribution(
        batch, channels.choice, maps, channels.target_scores, channels.layer
    )


def _scale_to_masks(channels: Any, sides: Any) -> Any:
    """Resize channels to the input, and scale each to the range 0 to 1."""
    tf = tensorflow()
    resized = resize_linearly(channels, sides)
    axes = list(range(1, resized.shape.rank))
    low = tf.reduce_min(resized, axes, keepdims=True)
    high = tf.reduce_max(resized, axes, keepdims=True)
    return tf.math.divide_no_nan(resized - low, high - low)


def _split_sample(sample: Any, table: Any) -> tuple[Any, Any]:
    """Return the channel and the copy of each sample, from the number of copies in `table`."""
    copies = tensorflow().cast(table[0], sample.dtype)
    return sample // copies, sample % copies


def _make_channel_masks(image: Any, sample: Any, sides: Any, maps: Any, table: Any) -> Any:
    """Return channels as masks: the `MaskFunction` of Score-CAM."""
    tf = tensorflow()
    channel, _ = _split_sample(sample, table)
    return _scale_to_masks(tf.gather_nd(maps, tf.stack([image, channel], 1)), sides)


def _make_noisy_masks(image: Any, sample: Any, sides: Any, maps: Any, table: Any) -> Any:
    """Return channels with noise as masks: the `MaskFunction` of SS-CAM."""
    tf = tensorflow()
    channel, _ = _split_sample(sample, table)
    channels = tf.gather_nd(maps, tf.stack([image, channel], 1))
    axes = list(range(1, channels.shape.rank))
    span = tf.reduce_max(channels, axes, keepdims=True) - tf.reduce_min(
        channels, axes, keepdims=True
    )
    shape, seed = tf.shape(channels)[1:], tf.cast(table[2], tf.int32)
    noise = tf.map_fn(
        lambda index: tf.random.stateless_normal(shape, (seed, index)),
        sample,
        fn_output_signature=tf.float32,
    )
    return _scale_to_masks(channels + table[1] * span * noise, sides)


def _make_faded_masks(image: Any, sample: Any, sides: Any, maps: Any, table: Any) -> Any:
    """Return channels as masks times 1/n, 2/n, ... to 1: the `MaskFunction` of IS-CAM."""
    tf = tensorflow()
    _, copy = _split_sample(sample, table)
    masks = _make_channel_masks(image, sample, sides, maps, table)
    fraction = (tf.cast(copy, tf.float32) + 1) / table[0]
    return masks * tf.reshape(fraction, (-1, *(1,) * (masks.shape.rank - 1)))


def _weigh_by_masked_scores(
    batch: ExplainedBatch,
    channels: _Channels,
    make_masks: MaskFunction,
    copies: int,
    baseline: Any,
    weighting: Weighting,
    *parameters: float,
) -> BatchAttribution:
    """Weight channels by the mean score of the inputs that copies of each channel mask.

    Parameters
    ----------
    copies
        Number of masks that `make_masks` makes of each channel.
    parameters
        Further entries of the table that `make_masks` receives, after the number of copies.
    """
    if weighting == "probability" and not channels.target_scores.is_logit:
        raise OptionError(
            "weighting='probability' needs a model that ends in a softmax or sigmoid, and a class "
            "as the target; use weighting='softmax'"
        )
    tf = tensorflow()
    maps = channels.maps
    positions = list(range(2, maps.shape.rank))
    # A constant channel cannot be scaled to a mask: its weight is zero.
    varies = tf.reduce_max(maps, positions) > tf.reduce_min(maps, positions)
    count = int(maps.shape[1])
    scores = score_masked_images(
        batch.with_classes_of(channels.target_scores),
        make_masks,
        count * copies,
        baseline,
        maps,
        tf.constant([copies, *parameters], tf.float32),
        probability=weighting == "probability",
    )
    weights = tf.constant(scores.reshape(len(batch), count, copies).mean(2))
    if weighting == "softmax":
        weights = tf.nn.softmax(tf.where(varies, weights, weights.dtype.min))
    return _make_attribution(batch, channels, tf.where(varies, weights, 0))


@method("scorecam", "Wang 2019, https://arxiv.org/abs/1910.01279", needs=["layer"])
def scorecam(
    batch: ExplainedBatch,
    layer: LayerLike | None = None,
    *,
    max_channels: int | None = None,
    baseline: Any = 0.0,
    weighting: Weighting = "softmax",
    token_grid: Any = None,
) -> BatchAttribution:
    """Weight a layer's channels by the score of the image that they mask."""
    channels = _select_channels(batch, layer, token_grid, max_channels)
    return _weigh_by_masked_scores(batch, channels, _make_channel_masks, 1, baseline, weighting)


@method("sscam", "Wang 2020, https://arxiv.org/abs/2006.14255", needs=["layer"])
def sscam(
    batch: ExplainedBatch,
    layer: LayerLike | None = None,
    *,
    samples: int = 10,
    noise: float = 0.15,
    seed: int = 0,
    max_channels: int | None = 64,
    baseline: Any = 0.0,
    weighting: Weighting = "softmax",
    token_grid: Any = None,
) -> BatchAttribution:
    """Compute scorecam with scores averaged over noisy copies of each channel."""
    channels = _select_channels(batch, layer, token_grid, max_channels)
    parameters = noise, seed % SEED_LIMIT
    return _weigh_by_masked_scores(
        batch, channels, _make_noisy_masks, samples, baseline, weighting, *parameters
    )


@method("iscam", "Naidu 2020, https://arxiv.org/abs/2010.03023", needs=["layer"])
def iscam(
    batch: ExplainedBatch,
    layer: LayerLike | None = None,
    *,
    steps: int = 10,
    max_channels: int | None = 64,
    baseline: Any = 0.0,
    weighting: Weighting = "softmax",
    token_grid: Any = None,
) -> BatchAttribution:
    """Compute scorecam with scores averaged as each mask grows from the baseline."""
    channels = _select_channels(batch, layer, token_grid, max_channels)
    return _weigh_by_masked_scores(batch, channels, _make_faded_masks, steps, baseline, weighting)


@dataclass(frozen=True)
class _RawActivationFunction:
    """Function that returns a layer's output, and whether its channels are its second axis."""

    reader: ScoreReader
    layer: LayerChoice

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> tuple[Any, Any]:
        run = self.reader.run(model, inputs, target_classes)
        call = self.layer.find_activation(model, run)[0]
        return call.tensor, tensorflow().constant(self.layer.is_channels_first(call))


@method(
    "ablationcam",
    "Desai 2020, https://doi.org/10.1109/WACV45572.2020.9093360",
    needs=["layer", "replacement"],
)
def ablationcam(
    batch: ExplainedBatch,
    layer: LayerLike | None = None,
    *,
    max_channels: int | None = None,
    token_grid: Any = None,
) -> BatchAttribution:
    """Weight a layer's channels by the relative decrease of the score without them."""
    channels = _select_channels(batch, layer, token_grid, max_channels)
    body = _RawActivationFunction(batch.reader, channels.choice)
    activations, is_second = batch.run(body)
    axis = 1 if is_second else len(activations.shape) - 1
    scores = np.asarray(channels.target_scores.scores)
    zero = tensorflow().zeros([1] * len(activations.shape), activations.dtype)
    batch = batch.with_classes_of(channels.target_scores)
    runs = score_replaced_channels(batch, channels.layer, axis, activations, zero, channels.indices)
    ablated: npt.NDArray[np.float32] = np.concatenate(list(runs)).reshape(len(batch), -1)
    decreases = scores[:, None] - ablated
    # Divided by the absolute score: a negative logit would reverse the sign of all weights.
    sizes = np.abs(scores)[:, None]
    weights = np.divide(decreases, sizes, decreases.copy(), where=sizes > 0)
    return _make_attribution(batch, channels, weights.astype(np.float32))
