"""The data format of a model's inputs, as the layers of the model state it."""

from __future__ import annotations

from typing import Any

from actgrid.models.frameworks import keras
from actgrid.models.inputs import input_structure
from actgrid.models.layers import model_layers
from actgrid.models.network import is_network
from actgrid.options import DATA_FORMATS

__all__ = ["input_data_format", "permuted_format"]

# The axis of the input that each axis of a tensor holds.
_Axes = tuple[int, ...]


def input_data_format(model: Any, position: int = 0) -> str:
    """Return ``"channels_last"`` or ``"channels_first"`` for an input of a model.

    The first layer with a data format that the input reaches decides, through layers that permute
    axes. Where no layer has one, the setting of Keras does: ``keras.config.image_data_format()``.

    Parameters
    ----------
    position
        Which input, in the order of TensorFlow's nests.
    """
    if is_network(model):
        return model.inputs[position].data_format if model.inputs else "channels_last"
    return _format_of(model, position) or str(keras().config.image_data_format())


def _format_of(model: Any, position: int) -> str | None:
    k = keras()
    if input_structure(model) is None or not hasattr(model, "operations"):
        return _format_in_order(model)
    symbolic = model.inputs[position]
    rank = len(symbolic.shape)
    # Of each tensor that the input becomes, which axes of the input its axes hold.
    reached: dict[int, _Axes] = {id(symbolic): tuple(range(rank))}
    for operation in model.operations:  # in an order in which they can run
        for node in operation._inbound_nodes:
            for place, tensor in enumerate(node.input_tensors):
                axes = reached.get(id(tensor))
                if axes is None:
                    continue
                if isinstance(operation, k.Model):
                    stated = _format_of(operation, place)
                else:
                    stated = _stated(operation) or _format_in_order(operation)
                if stated is not None:
                    return _in_input(stated, axes)
                moved = _permutation(operation, rank)
                after = axes if moved is None else tuple(axes[axis] for axis in moved)
                reached |= {
                    id(output): after for output in node.outputs if len(output.shape) == rank
                }
    return None


def _format_in_order(layer: Any) -> str | None:
    """Return the format of the input of a layer, by the first one inside it that has a format."""
    axes: _Axes = (0, 1, 2, 3)
    if not hasattr(layer, "_flatten_layers"):  # an operation
        return None
    for node in model_layers(layer):
        if (moved := _permutation(node.layer, len(axes))) is not None:
            axes = tuple(axes[axis] for axis in moved)
        if (stated := _stated(node.layer)) is not None:
            return _in_input(stated, axes)
    return None


def _stated(operation: Any) -> str | None:
    stated = getattr(operation, "data_format", None)
    return str(stated) if stated in DATA_FORMATS else None


def _in_input(stated: str, axes: _Axes) -> str | None:
    """Return the format of an input whose axes reach a layer with a data format in this order."""
    axis = axes[1 if stated == "channels_first" else -1]
    return {1: "channels_first", len(axes) - 1: "channels_last"}.get(axis)


def _permutation(operation: Any, rank: int) -> _Axes | None:
    """Return the axes of its input that a layer or operation puts in the place of each axis."""
    if isinstance(operation, keras().layers.Permute) and len(operation.dims) == rank - 1:
        return (0, *operation.dims)
    axes = getattr(operation, "axes", None)
    if type(operation).__name__ == "Transpose" and axes is not None and len(axes) == rank:
        return tuple(axis % rank for axis in axes)
    return None


def permuted_format(layer: Any, data_format: str, rank: int) -> str | None:
    """Return the format of what a layer makes of an input of this format.

    Returns
    -------
    str or None
        Another one if the layer permutes the axes; None if it moves the channels to neither end.
    """
    moved = _permutation(layer, rank)
    if moved is None:
        return data_format
    place = moved.index(1 if data_format == "channels_first" else rank - 1)
    return {1: "channels_first", rank - 1: "channels_last"}.get(place)
