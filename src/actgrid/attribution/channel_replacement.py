"""Compute target scores while one channel of a layer's output is replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch, ScoreReader, gather_baseline, gather_rows
from actgrid.attribution.target_layers import collect_ancestors
from actgrid.errors import LayerError
from actgrid.models.frameworks import tensorflow

__all__ = ["score_replaced_channels"]


@dataclass(frozen=True)
class _ChannelReplacementFunction:
    """Function that returns the scores with one replaced channel of a layer.

    The operations before the layer do not run, because its output is an argument.

    Attributes
    ----------
    path
        Path of the layer.
    shape
        Shape of the layer's output.
    channel_axis
        Axis of its channels.
    """

    reader: ScoreReader
    path: str
    shape: tuple[int | None, ...]
    channel_axis: int

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        image: Any,
        sample: Any,
        activations: Any,
        substitutes: Any,
        channels: Any,
    ) -> Any:
        tf = tensorflow()
        inputs, target_classes, activation = gather_rows(
            (inputs, target_classes, activations), image
        )
        substitute = gather_baseline(substitutes, image)
        channel = tf.gather_nd(channels, tf.stack([image, sample], 1))
        mask = _make_channel_mask(channel, self.shape, self.channel_axis)
        replaced = tf.ensure_shape(tf.where(mask, substitute, activation), self.shape)
        run = self.reader.run(model, inputs, target_classes, {self.path: replaced})
        scores = run.target_scores.scores
        if replaced.name not in collect_ancestors([scores]):
            raise LayerError(
                f"the score does not depend on the layer {self.path}: choose a layer before the "
                "target"
            )
        return scores


def _make_channel_mask(channel: Any, shape: tuple[int | None, ...], axis: int) -> Any:
    """Return a mask of one channel of each sample, which broadcasts to a layer's output.

    Parameters
    ----------
    channel
        (rows,) int32: index of the channel of each sample.
    shape
        Shape of the layer's output.
    axis
        Axis of its channels.
    """
    tf = tensorflow()
    sizes = [1] * len(shape)
    sizes[0], sizes[axis] = -1, shape[axis] or -1
    return tf.reshape(tf.one_hot(channel, shape[axis], True, False, dtype=tf.bool), sizes)


def score_replaced_channels(
    batch: ExplainedBatch,
    path: str,
    channel_axis: int,
    activations: Any,
    substitutes: Any,
    channels: Any,
) -> Iterator[npt.NDArray[np.float32]]:
    """Compute the target scores with each of several channels of a layer replaced.

    Parameters
    ----------
    batch
        N samples and their target classes, none of which is the predicted class: -1.
    path
        Path of the layer.
    channel_axis
        Axis of the layer's channels.
    activations
        (N, ...) output of the layer.
    substitutes
        Values that replace a channel, which broadcast to `activations`; with N or 1 rows.
    channels
        (N, K) int32: indices of the channels that are replaced, one after the other.

    Yields
    ------
    numpy.ndarray
        Scores of the next rows: N x K in all, with all channels of a sample before the next sample.
    """
    shape = (None, *activations.shape[1:])
    body = _ChannelReplacementFunction(batch.reader, path, shape, channel_axis)
    for scores in batch.run_samples(
        body, int(channels.shape[1]), activations, substitutes, channels
    ):
        yield np.asarray(scores)
