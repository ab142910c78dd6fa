"""Find the position of the channel axis of each tensor in the graph of an exported model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

__all__ = ["AxesOperation", "find_data_formats"]

# Numbers of channels of images.
_IMAGE_CHANNELS = frozenset([1, 3, 4])

_Shapes = Mapping[str, Sequence[int | str | None]]


class AxesOperation(NamedTuple):
    """Record of what an operation of a graph does to the axes of its tensors.

    Attributes
    ----------
    inputs
        Names of the tensors that the operation takes; the first has the data.
    outputs
        Names of the tensors that it returns.
    is_first
        Whether the channels of the first input and of the outputs are first, if the operation tells
        it, as a convolution does.
    permutation
        For a transposition, the axis of the input for each axis of the output.
    keeps_axes
        Whether the axes of the outputs are those of the inputs, as in operations on single values.
    """

    inputs: Sequence[str]
    outputs: Sequence[str]
    is_first: bool | None = None
    permutation: Sequence[int] | None = None
    keeps_axes: bool = True


def find_data_formats(
    operations: Sequence[AxesOperation], shapes: _Shapes, images: Iterable[str] = ()
) -> dict[str, bool]:
    """Find the position of the channel axis of each tensor of a graph.

    Some operations, such as convolutions, tell the data format of their input and output. All other
    operations pass it on, from inputs to outputs and from outputs to inputs.

    Parameters
    ----------
    operations
        The operations in the order of execution.
    shapes
        Name of a tensor -> its shape, for tensors of known rank.
    images
        Names of inputs of the graph that are channels first if no operation tells the format and
        axis 1 alone has as many positions as an image has channels.

    Returns
    -------
    dict
        Name of a tensor -> whether its channels are first, for tensors with at least three axes of
        which it is known.
    """
    formats: dict[str, bool] = {}
    for _ in range(2):  # the second time with what the operations behind a tensor tell
        for operation in operations:
            _pass_format(operation, shapes, formats)
        for operation in reversed(operations):
            _pass_format(operation, shapes, formats, is_reversed=True)
        for name in images:
            shape = shapes.get(name, ())
            if len(shape) in (4, 5) and {shape[1], shape[-1]} & _IMAGE_CHANNELS:
                formats.setdefault(name, shape[-1] not in _IMAGE_CHANNELS)
    return formats


def _pass_format(
    operation: AxesOperation, shapes: _Shapes, formats: dict[str, bool], is_reversed: bool = False
) -> None:
    """Set the data formats of the tensors on one side of an operation from the other side."""
    sources, targets = operation.inputs, operation.outputs
    if is_reversed:
        sources, targets = targets, sources
    unknown = [name for name in targets if name not in formats and len(shapes.get(name, ())) > 2]
    if operation.is_first is not None:
        data = targets[:1] if is_reversed else targets
        formats |= {name: operation.is_first for name in unknown if name in data}
        return
    source = next((name for name in sources if name in formats), None)
    if source is None:
        return
    is_first, shape = formats[source], shapes[source]
    rank = len(shape)
    for target in unknown:
        sides = shapes[target]
        if not operation.keeps_axes or len(sides) != rank:
            # The number of channels tells the axis.
            side = shape[1 if is_first else -1]
            if isinstance(side, int) and sides[1 if is_first else -1] == side:
                formats[target] = is_first
        elif operation.permutation is not None:
            axis = 1 if is_first else rank - 1
            axes = list(operation.permutation)
            moved = axes[axis] if is_reversed else axes.index(axis)
            if moved in (1, rank - 1):
                formats[target] = moved == 1
        else:
            formats[target] = is_first
