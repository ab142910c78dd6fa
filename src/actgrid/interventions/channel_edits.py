"""Changes of the channels of a layer's output: constants, means, other inputs, functions."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import DtypeError, LayerError, OptionError, ShapeError
from actgrid.models import LayerInfo
from actgrid.models.frameworks import tensorflow
from actgrid.models.tracing import make_step_error

__all__ = [
    "MEAN",
    "REFERENCE",
    "ChannelEdits",
    "list_position_axes",
    "make_channel_edits",
    "resolve_reference",
    "scale",
    "uses_reference",
]

Array = npt.NDArray[Any]

# Words for values that depend on the input.
MEAN, REFERENCE = "mean", "reference"


@dataclass(frozen=True)
class _Scale:
    """Function that multiplies a tensor by a factor."""

    factor: float

    def __call__(self, values: Any) -> Any:
        return values * tensorflow().cast(self.factor, values.dtype)


def scale(factor: float) -> Callable[[Any], Any]:
    """Return a value for `actgrid.patch` that multiplies a channel by a factor.

    Parameters
    ----------
    factor : float
        The factor. 0 sets the channel to zero, 1 leaves it unchanged.

    Returns
    -------
    callable
        Function of the channel's values.

    Raises
    ------
    OptionError
        If the factor is not a finite number. Also a ValueError.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(name="relu")])
    >>> half = actgrid.interventions.scale(0.5)
    >>> with actgrid.patch(model, {"relu": {0: half}}) as patched:
    ...     np.asarray(patched([[2.0, 2.0]]))
    array([[1., 2.]], dtype=float32)
    """
    if not isinstance(factor, (int, float, np.number)) or not np.isfinite(factor):
        raise OptionError(f"factor must be a finite number: got {factor!r}")
    return _Scale(float(factor))


def list_position_axes(info: LayerInfo) -> tuple[int, ...]:
    """Return the axes of a layer's output without the batch axis and the channel axis."""
    return tuple(axis for axis in range(1, len(info.shape)) if axis != info.channel_axis)


@dataclass(frozen=True, eq=False)
class ChannelEdits:
    """Change of some channels of a layer's output; an `OutputEdit`.

    Attributes
    ----------
    info
        Description of the layer.
    values
        Index of a channel, or None for the whole output -> its new value: an array that broadcasts
        to the channel or the output, ``"mean"``, or a function of the values.
    """

    info: LayerInfo
    values: Mapping[int | None, Any]

    def __call__(self, output: Any) -> Any:
        """Return the changed output of the layer, a symbolic tensor of the same shape."""
        tf = tensorflow()
        if output.shape.rank != len(self.info.shape):
            raise make_step_error(self.info.path)
        output_value = self.values.get(None)
        if output_value is not None:
            output = self._change(output, output_value, list_position_axes(self.info))
        axis, count = self.info.channel_axis, output.shape[self.info.channel_axis]
        # Numbers of all channels are set by one operation, however many channels there are.
        constants = {
            channel: value
            for channel, value in self.values.items()
            if channel is not None and isinstance(value, np.ndarray) and value.ndim == 0
        }
        if constants:
            vector = np.zeros(count, output.dtype.as_numpy_dtype)
            vector[list(constants)] = list(constants.values())
            mask = self._spread(np.isin(np.arange(count), list(constants)))
            output = tf.where(mask, self._spread(vector), output)
        for channel, value in self.values.items():
            if channel is None or channel in constants:
                continue
            values = tf.gather(output, channel, axis=axis)
            changed = self._change(values, value, tuple(range(1, values.shape.rank)))
            mask = self._spread(np.arange(count) == channel)
            output = tf.where(mask, tf.expand_dims(changed, axis), output)
        return output

    def _spread(self, vector: Array) -> Array:
        """Reshape an array with an entry for each channel, to broadcast to the output."""
        sizes = [1] * len(self.info.shape)
        sizes[self.info.channel_axis] = -1
        return vector.reshape(sizes)

    def _change(self, values: Any, value: Any, position_axes: tuple[int, ...]) -> Any:
        """Return the new values of a channel, or of the whole output."""
        tf = tensorflow()
        if isinstance(value, str):
            mean = tf.reduce_mean(tf.cast(values, tf.float32), position_axes, keepdims=True)
            changed = tf.cast(mean, values.dtype)
        elif callable(value):
            changed = tf.cast(tf.convert_to_tensor(value(values)), values.dtype)
            _check_shape(self.info, tuple(changed.shape), tuple(values.shape))
        else:
            changed = tf.constant(value, values.dtype)
        return tf.ensure_shape(tf.broadcast_to(changed, tf.shape(values)), values.shape)

    def fingerprint(self) -> str:
        """Return a text that is the same for equal changes."""
        parts = []
        for channel, value in self.values.items():
            if isinstance(value, np.ndarray):
                digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
                text = f"{value.dtype} {value.shape} {digest}"
            else:
                text = str(getattr(value, "__qualname__", value))
            parts.append(f"{channel}: {text}")
        return ", ".join(parts)


def _check_shape(
    info: LayerInfo, shape: tuple[int | None, ...], expected: tuple[int | None, ...]
) -> None:
    """Raise ShapeError unless values of a shape broadcast to a batch of another shape.

    Parameters
    ----------
    expected
        Shape of the channel or the output, with its batch axis; None for an unknown side.
    """
    padded = (1,) * (len(expected) - len(shape)) + shape
    fits = len(padded) == len(expected) and all(
        None in (side, other) or side in (1, other)
        for side, other in zip(padded, expected, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"layer {info.path}: a value of shape {shape} does not fit values of shape {expected}"
        )


def uses_reference(value: Any) -> bool:
    """Return whether a value of `actgrid.patch` may need the activations of the reference."""
    return isinstance(value, str) or (
        isinstance(value, Mapping) and any(map(uses_reference, value.values()))
    )


def make_channel_edits(info: LayerInfo, values: Any, reference: Array | None) -> ChannelEdits:
    """Check the values for a layer of `actgrid.patch`, and return the change of its output.

    Parameters
    ----------
    info
        Description of the layer.
    values
        A value for the whole output, or a dict: channels -> value.
    reference
        Output of the layer for the reference inputs; None: there are none.

    Raises
    ------
    OptionError, LayerError, ShapeError, DtypeError
        If a value or a channel is invalid.
    """
    entries = values if isinstance(values, Mapping) else {None: values}
    if not entries:
        raise OptionError(f"layer {info.path}: expected at least one channel: got {{}}")
    checked: dict[int | None, Any] = {}
    for key, value in entries.items():
        for channel in [None] if key is None else _list_channels(info, key):
            checked[channel] = _check_value(info, channel, value, reference)
    return ChannelEdits(info, checked)


def _list_channels(info: LayerInfo, key: Any) -> list[int]:
    """Return the indices of the channels that a key of `actgrid.patch` names."""
    count = info.channels
    if count is None:
        raise ShapeError(f"layer {info.path} has no fixed number of channels: {info.shape}")
    channels = []
    for item in key if isinstance(key, (tuple, frozenset, range)) else [key]:
        try:
            channel = operator.index(item)
        except TypeError:
            raise OptionError(
                f"layer {info.path}: channels must be integers or tuples of integers: got {key!r}"
            ) from None
        if isinstance(item, bool) or not -count <= channel < count:
            raise LayerError(
                f"layer {info.path} has no channel {item!r}; expected 0 to {count - 1}"
            )
        channels.append(channel % count)
    if not channels:
        raise OptionError(f"layer {info.path}: expected at least one channel: got {key!r}")
    return channels


def resolve_reference(info: LayerInfo, value: str, reference: Array | None) -> Array | None:
    """Return the output of a layer that the values ``"mean"`` and ``"reference"`` stand for.

    Parameters
    ----------
    value
        ``"mean"`` or ``"reference"``.
    reference
        Output of the layer for the reference inputs; None: there are none.

    Returns
    -------
    ndarray or None
        An array that broadcasts to the output. None: the mean of each sample over its positions.

    Raises
    ------
    OptionError
        If the value needs reference inputs.
    ShapeError
        If the value needs a single reference input.
    """
    axes = list_position_axes(info)
    if value == MEAN and reference is not None:
        mean: Array = reference.astype(np.float64).mean((0, *axes), keepdims=True)
        return mean
    if value == MEAN:
        if not axes:
            raise OptionError(
                f"layer {info.path} has no positions to average over: pass reference, the "
                "inputs over which the mean of the channel is computed"
            )
        return None
    if reference is None:
        raise OptionError(
            f"layer {info.path}: value 'reference' needs reference, the input whose activations "
            "are inserted"
        )
    if len(reference) != 1:
        raise ShapeError(
            f"value 'reference' needs a single reference input: got {len(reference)} inputs"
        )
    return reference


def _check_value(info: LayerInfo, channel: int | None, value: Any, reference: Array | None) -> Any:
    """Return a value for a channel, or for the whole output, in the form of `ChannelEdits`."""
    axes = list_position_axes(info)
    if isinstance(value, str):
        if value not in (MEAN, REFERENCE):
            raise OptionError(
                f"layer {info.path}: value must be a number, an array, 'mean', 'reference' or a "
                f"function: got {value!r}"
            )
        replacement = resolve_reference(info, value, reference)
        if replacement is None:
            return MEAN
        if channel is None:
            return replacement
        return np.asarray(np.take(replacement, channel, info.channel_axis))
    if callable(value):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"layer {info.path}: value is not an array: {error}") from error
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise DtypeError(
            f"layer {info.path}: value must be real numbers, 'mean', 'reference' or a function: "
            f"got {value!r}"
        )
    with np.errstate(over="ignore"):
        stored = array.astype(tensorflow().as_dtype(info.dtype).as_numpy_dtype)
    if not np.array_equal(np.isfinite(stored), np.isfinite(array)):
        raise OptionError(
            f"layer {info.path}: value must be in the range of {info.dtype}: got {value!r}"
        )
    if array.ndim:
        positions = tuple(info.shape[axis] for axis in axes)
        # The batch axis of an array must have length 1, as batches of any size are changed.
        _check_shape(info, array.shape, (1, *(info.shape[1:] if channel is None else positions)))
    return array
