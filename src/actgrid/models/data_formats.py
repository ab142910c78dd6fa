"""Find the data format of the inputs of a model from its layers."""

from __future__ import annotations

from typing import Any

from actgrid.models.frameworks import keras
from actgrid.models.inputs import get_input_structure
from actgrid.models.layers import collect_layers
from actgrid.models.network import is_network
from actgrid.options import DATA_FORMATS

__all__ = ["find_input_data_format", "permute_data_format"]

# For each axis of a tensor, the axis of the model input that it corresponds to.
_Axes = tuple[int, ...]


def find_input_data_format(model: Any, position: int = 0) -> str:
    """Find the data format of an input of a model.

    The format is that of the first layer with a data format that the input reaches, converted
    through layers that permute axes. Without such a layer it is
    ``keras.config.image_data_format()``.

    Parameters
    ----------
    model
        The model.
    position
        Position of the input, in the order of `tf.nest`.

    Returns
    -------
    str
        ``"channels_last"`` or ``"channels_first"``.
    """
    if is_network(model):
        return model.inputs[position].data_format if model.inputs else "channels_last"
    return _trace_format(model, position) or str(keras().config.image_data_format())


def _trace_format(model: Any, position: int) -> str | None:
    k = keras()
    if get_input_structure(model) is None or not hasattr(model, "operations"):
        return _scan_layers(model)
    symbolic_input = model.inputs[position]
    rank = len(symbolic_input.shape)
    # Axes of the model input that the axes of each derived tensor correspond to, by tensor id.
    axes_by_tensor: dict[int, _Axes] = {id(symbolic_input): tuple(range(rank))}
    for operation in model.operations:  # in topological order
        for node in operation._inbound_nodes:
            for input_position, tensor in enumerate(node.input_tensors):
                axes = axes_by_tensor.get(id(tensor))
                if axes is None:
                    continue
                if isinstance(operation, k.Model):
                    declared = _trace_format(operation, input_position)
                else:
                    declared = _get_declared_format(operation) or _scan_layers(operation)
                if declared is not None:
                    return _convert_to_input_format(declared, axes)
                permutation = _get_permutation(operation, rank)
                output_axes = (
                    axes if permutation is None else tuple(axes[axis] for axis in permutation)
                )
                axes_by_tensor |= {
                    id(output): output_axes for output in node.outputs if len(output.shape) == rank
                }
    return None


def _scan_layers(layer: Any) -> str | None:
    """Find the data format of the input of a layer or model from its sublayers.

    The first sublayer that has a data format decides. Sublayers that permute the axes before it are
    taken into account.

    Returns
    -------
    str or None
        ``"channels_first"`` or ``"channels_last"``. None: no sublayer has a data format, or the
        channel axis is neither first nor last.
    """
    axes: _Axes = (0, 1, 2, 3)
    if not hasattr(layer, "_flatten_layers"):  # an operation
        return None
    for node in collect_layers(layer):
        if (permutation := _get_permutation(node.layer, len(axes))) is not None:
            axes = tuple(axes[axis] for axis in permutation)
        if (declared := _get_declared_format(node.layer)) is not None:
            return _convert_to_input_format(declared, axes)
    return None


def _get_declared_format(operation: Any) -> str | None:
    declared = getattr(operation, "data_format", None)
    return str(declared) if declared in DATA_FORMATS else None


def _convert_to_input_format(declared: str, axes: _Axes) -> str | None:
    """Return the data format of an input whose axes a layer receives permuted.

    Parameters
    ----------
    declared
        Data format of the layer.
    axes
        For each axis of the layer's input, the axis of the model input that it comes from.

    Returns
    -------
    str or None
        Data format of the model input. None: the channel axis is neither first nor last.
    """
    axis = axes[1 if declared == "channels_first" else -1]
    return {1: "channels_first", len(axes) - 1: "channels_last"}.get(axis)


def _get_permutation(operation: Any, rank: int) -> _Axes | None:
    """Return the axis permutation that a Permute layer or Transpose operation applies.

    Returns
    -------
    tuple of int or None
        For each output axis, the input axis. None: any other layer.
    """
    if isinstance(operation, keras().layers.Permute) and len(operation.dims) == rank - 1:
        return (0, *operation.dims)
    axes = getattr(operation, "axes", None)
    if type(operation).__name__ == "Transpose" and axes is not None and len(axes) == rank:
        return tuple(axis % rank for axis in axes)
    return None


def permute_data_format(layer: Any, data_format: str, rank: int) -> str | None:
    """Return the data format of a layer's output from the data format of its input.

    Returns
    -------
    str or None
        The other format if the layer permutes the channel axis; None if the layer moves the
        channels to neither end.
    """
    permutation = _get_permutation(layer, rank)
    if permutation is None:
        return data_format
    channel_axis = permutation.index(1 if data_format == "channels_first" else rank - 1)
    return {1: "channels_first", rank - 1: "channels_last"}.get(channel_axis)
