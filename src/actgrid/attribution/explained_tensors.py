"""Explained tensors of a model: their place and the meaning of their axes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from actgrid.errors import OptionError, ShapeError
from actgrid.models.frameworks import tensorflow
from actgrid.rendering import TokenGrid

__all__ = ["ExplainedTensor", "ValueLayout", "make_baseline"]

_BASELINES = "baseline must be a number, one number for each channel, 'mean', or an input"
# Names of the axes of an input (N, ..., C) between N and C, by the number of its axes. A table
# (N, C) has no position: its values themselves are explained.
_AXES = {
    1: (),
    2: ("feature",),
    3: ("time",),
    4: ("height", "width"),
    5: ("depth", "height", "width"),
}


class ExplainedTensor(NamedTuple):
    """Record of a tensor of a model whose values are explained.

    Attributes
    ----------
    name
        Name of the model input; for the output of an embedding, of the input with the tokens.
    position
        Position among the flattened inputs of an `ExplainedBatch` (order of `tf.nest.flatten`).
    channels_first
        Whether the tensor is (N, C, ...).
    embedding
        Path of the layer whose output is explained, for tokens, which have no gradient; None: the
        input itself is explained.
    grid
        Grid of the patches of an image, if the embedding makes tokens of them; else None.
    """

    name: str
    position: int
    channels_first: bool = False
    embedding: str | None = None
    grid: TokenGrid | None = None


class ValueLayout(NamedTuple):
    """Record of the meaning of the axes of an explained tensor.

    Attributes
    ----------
    rank
        Number of axes, with the batch axis.
    channels_first
        Whether the tensor is (N, C, ...).
    """

    rank: int
    channels_first: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the axes, without batch and channels."""
        return _AXES[self.rank]

    @property
    def channel_axis(self) -> int | None:
        """Axis of the channels: 1 or -1; None for a table (N, C), whose values are explained."""
        return None if self.rank < 3 else 1 if self.channels_first else -1

    @property
    def spatial_slice(self) -> slice:
        """Slice of the shape that has the axes of `names`."""
        if self.channel_axis is None:
            return slice(1, None)
        return slice(2, None) if self.channels_first else slice(1, -1)

    def to_channels_last(self, values: Any) -> Any:
        """Return an array with the channels as its last axis; a table gets one channel."""
        if self.channel_axis is None:
            return values[..., None]
        return np.moveaxis(values, 1, -1) if self.channels_first else values

    def from_channels_last(self, values: Any) -> Any:
        """Return an array of `to_channels_last` with its own order of axes."""
        if self.channel_axis is None:
            return values[..., 0]
        return np.moveaxis(values, -1, 1) if self.channels_first else values


def make_baseline(value: Any, tensor: Any, layout: ValueLayout) -> Any:
    """Convert the option `baseline` to a tensor that broadcasts over an explained tensor.

    For the parameter `value` and the errors see `ExplainedBatch.make_baselines`.
    """
    tf = tensorflow()
    shape = tuple(tensor.shape)
    if isinstance(value, str):
        if value != "mean":
            raise OptionError(f"{_BASELINES}, not {value!r}")
        if layout.channel_axis is None:
            return tf.zeros((1,) * len(shape))
        spatial = range(len(shape))[layout.spatial_slice]
        return tf.reduce_mean(tensor, list(spatial), keepdims=True)
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if not np.isfinite(array).all():
        raise OptionError(f"{_BASELINES}, and finite, not {value!r}")
    if array.ndim == 1 and layout.channel_axis == 1:
        array = array.reshape(-1, *(1,) * (len(shape) - 2))
    array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    try:
        fits = np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"baseline of shape {np.shape(value)} does not broadcast to inputs of {shape}"
        )
    return tf.constant(array)
