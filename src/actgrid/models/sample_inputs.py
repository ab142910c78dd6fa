"""Find the kind of samples that a model takes, such as images or sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from actgrid.errors import FormatError, ShapeError
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import get_input_structure, list_input_aliases, list_input_names
from actgrid.models.tracing import find_input_specs

__all__ = [
    "SampleInput",
    "SampleKind",
    "cast_values",
    "find_sample_input",
    "find_sample_kind",
    "list_inputs",
]

SampleKind: TypeAlias = Literal["image", "sequence", "table", "volume", "text"]
Array = npt.NDArray[Any]

_KINDS: dict[int, SampleKind] = {1: "table", 2: "table", 3: "sequence", 4: "image", 5: "volume"}
# Letters of the axes of a sample, without the channel axis.
_AXES: dict[SampleKind, str] = {
    "image": "HW",
    "sequence": "T",
    "table": "",
    "text": "",
    "volume": "DHW",
}


@dataclass(frozen=True)
class SampleInput:
    """Record of a model input: kind of its samples, shape, channel axis and dtype.

    Attributes
    ----------
    names
        All names of the input, the usual name first.
    kind
        Kind of the samples.
    shape
        Shape of a batch; None for the batch axis and for sides of any length.
    channel_axis
        Position of the channel axis in `shape`.
    dtype
        Name of the dtype, ``"string"`` for strings.
    """

    names: tuple[str, ...]
    kind: SampleKind
    shape: tuple[int | None, ...]
    channel_axis: int
    dtype: str

    @property
    def channels(self) -> int | None:
        """Number of channels; None if any number is accepted, or the input has no channels."""
        return self.shape[self.channel_axis] if len(self.shape) > 1 else None

    def fit_batch(self, values: Array, name: str) -> Array:
        """Add the batch axis, and a channel axis of length 1, to an array if they are missing.

        Parameters
        ----------
        values
            A batch of samples, or a single sample.
        name
            Name of the array, for error messages.

        Returns
        -------
        numpy.ndarray
            The batch, in the shape of the model input.

        Raises
        ------
        FormatError
            If the array is empty, or has strings instead of numbers.
        ShapeError
            If the shape does not fit the input.
        """
        if (values.dtype.kind in "SU") != (self.dtype == "string"):
            expected = "strings" if self.dtype == "string" else "numbers"
            raise FormatError(f"{name} has the dtype {values.dtype}: expected {expected}")
        if not values.size:
            raise FormatError(f"{name} is an empty array of shape {values.shape}: expected samples")
        axis = self.channel_axis
        if _fits(self.shape, values.shape):
            return values
        if _fits(self.shape[1:], values.shape):
            return values[None]
        if self.channels == 1:
            without_channels = self.shape[:axis] + self.shape[axis + 1 :]
            if _fits(without_channels, values.shape):
                return np.expand_dims(values, axis)
            if _fits(without_channels[1:], values.shape):
                return np.expand_dims(values[None], axis)
        raise ShapeError(
            f"{name} has the shape {values.shape}: expected {self._describe_shape()} for several "
            f"samples, or {self._describe_shape(start=1)} for a single sample"
        )

    def fit_channels_last(self, batch: Array, path: Path) -> Array:
        """Convert a batch with the channels last to the shape and dtype of the model input.

        Parameters
        ----------
        batch
            Numbers, (N, ..., C).
        path
            The file of the batch, for error messages.

        Raises
        ------
        FormatError
            If the model takes integers and a value is no integer.
        ShapeError
            If the shape does not fit the input.
        """
        if len(self.shape) > 1:
            batch = np.moveaxis(batch, -1, self.channel_axis)
        if not _fits(self.shape, batch.shape):
            axes = self._axes if batch.ndim == len(self.shape) else "?" * batch.ndim
            sides = zip(axes[1:], batch.shape[1:], strict=True)
            got = ", ".join(f"{letter}={side}".removeprefix("?=") for letter, side in sides)
            raise ShapeError(
                f"{path} holds samples of the shape ({got}); the model takes "
                f"{self._describe_shape(start=1)}"
            )
        return cast_values(batch, self.dtype, path)

    @property
    def _axes(self) -> str:
        """Letters of the axes, such as NTC."""
        rank = len(self.shape)
        if rank == 1:
            return "N"
        letters = list("N" + _AXES[self.kind].ljust(rank - 2, "T"))
        letters.insert(self.channel_axis, "T" if self.kind == "text" else "C")
        return "".join(letters)

    def _describe_shape(self, start: int = 0) -> str:
        """Return the shape as text such as (N, T=100, C=3), from an axis on."""
        sides = [
            letter if side is None else f"{letter}={side}"
            for letter, side in zip(self._axes, self.shape, strict=True)
        ]
        return f"({', '.join(sides[start:])})"


def cast_values(values: Array, dtype: str, path: Path) -> Array:
    """Convert numbers to the dtype of a model input: integers or floats.

    Raises
    ------
    FormatError
        If the dtype is one of integers and a value is no integer of this dtype.
    """
    if np.dtype(dtype).kind not in "iu":
        return values.astype("float64" if dtype == "float64" else "float32", copy=False)
    limits = np.iinfo(dtype)
    is_integer = (values == np.rint(values)) & (values >= limits.min) & (values <= limits.max)
    if not is_integer.all():
        value = values[~is_integer][0]
        raise FormatError(f"{path} holds the value {value:g}: the model takes integers of {dtype}")
    return values.astype(dtype)


def find_sample_kind(model: Any, tokens: Any = None) -> SampleKind | None:
    """Find the kind of samples that a model takes.

    Parameters
    ----------
    model : object
        A model that `load_model` returned.
    tokens : object, default None
        Value of the option `tokens`. If it is given, an input (N, T) takes texts.

    Returns
    -------
    {"image", "sequence", "table", "volume", "text"} or None
        Kind of the input with the most axes, but image before volume. None: the inputs of the model
        are not known.
    """
    sample_input = find_sample_input(model, tokens)
    return None if sample_input is None else sample_input.kind


def find_sample_input(model: Any, tokens: Any = None) -> SampleInput | None:
    """Find the input of a model with the most axes, but an image before a volume.

    Texts count as sequences (N, T, C), to which models convert them.

    Returns
    -------
    SampleInput or None
        None: the inputs of the model are not known, or have more than 5 axes.
    """

    def get_rank(sample_input: SampleInput) -> int:
        rank = 3 if sample_input.kind == "text" else len(sample_input.shape)
        return 6 if rank == 4 else rank

    return max(list_inputs(model, tokens), key=get_rank, default=None)


def list_inputs(model: Any, tokens: Any = None) -> list[SampleInput]:
    """List the inputs of a model in the order of `tf.nest`.

    Returns
    -------
    list of SampleInput
        Empty if the inputs of the model are not known, or an input has more than 5 axes.
    """
    tf = tensorflow()
    specs = find_input_specs(model)
    specs_list = tf.nest.flatten(specs)
    if any(spec is None or spec.shape.rank not in _KINDS for spec in specs_list):
        return []
    aliases = list_input_aliases(model) or [(name,) for name in list_input_names(model, specs)]
    # The specs of other models are those of their first call.
    is_fixed = get_input_structure(model) is not None
    return [
        _describe_input(model, position, spec, aliases[position], is_fixed, tokens)
        for position, spec in enumerate(specs_list)
    ]


def _describe_input(
    model: Any, position: int, spec: Any, names: Sequence[str], is_fixed: bool, tokens: Any
) -> SampleInput:
    """Return the `SampleInput` of the TensorSpec of an input."""
    shape = tuple(spec.shape)
    rank = len(shape)
    kind = _KINDS[rank]
    if spec.dtype == tensorflow().string or (tokens is not None and rank <= 2):
        kind = "text"
    is_channels_first = rank > 2 and find_input_data_format(model, position) == "channels_first"
    axis = 1 if is_channels_first else rank - 1
    sides = tuple(
        side if index and (is_fixed or (index == axis and kind != "text")) else None
        for index, side in enumerate(shape)
    )
    return SampleInput(tuple(names), kind, sides, axis, spec.dtype.name)


def _fits(expected: tuple[int | None, ...], shape: tuple[int, ...]) -> bool:
    return len(expected) == len(shape) and all(
        expected_side in (None, side) for expected_side, side in zip(expected, shape, strict=True)
    )
