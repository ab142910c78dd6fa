"""Record layer calls while a model is traced, and select calls by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actgrid.errors import LayerError, ModelError
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import is_real_dtype, map_tensors
from actgrid.models.layers import (
    NO_SPATIAL_LAYER,
    LayerInfo,
    Node,
    Selection,
    collect_operations,
)
from actgrid.models.network import is_network

__all__ = ["Call", "RawScores", "Trace", "choose_calls", "filter_visible_calls", "keeps_positions"]


class RawScores(NamedTuple):
    """Attention scores as a model computes them, with any order of axes.

    Attributes
    ----------
    tensor
        The scores after the softmax.
    operands
        The tensors whose product the scores come from: queries and keys in any order. Empty if they
        come from a sum.
    arrange
        Function that converts the scores, or their gradient, to (N, heads, queries, keys).
    has_windows
        Whether N counts windows of an image, and not only samples.
    """

    tensor: Any
    operands: tuple[Any, ...]
    arrange: Callable[[Any], Any]
    has_windows: bool = False


@dataclass(frozen=True)
class Call:
    """Record of one call of a layer, with its output as a symbolic tensor.

    Attributes
    ----------
    node
        The layer.
    info
        Description of the output.
    tensor
        The output.
    inputs
        Arguments that the layer was called with.
    span
        Numbers of the graph's operations that the call created.
    parts
        Outputs of the separate time steps, if `tensor` was stacked from a layer that ran once for
        each time step; else empty.
    scores
        For attention scores: the scores as the model computes them; else None.
    """

    node: Node
    info: LayerInfo
    tensor: Any
    inputs: Any = field(repr=False)
    span: range = field(default=range(0), repr=False)
    parts: tuple[Any, ...] = field(default=(), repr=False)
    scores: RawScores | None = field(default=None, repr=False)


class Trace(NamedTuple):
    """Record of the output and layer calls of a model run on symbolic inputs.

    Attributes
    ----------
    results
        The return value of the model, of any type.
    calls
        Layer calls in the order in which they end. Calls inside loops and branches are left out,
        because their tensors do not exist outside.
    """

    results: Any
    calls: list[Call]

    @property
    def outputs(self) -> Any:
        """Output of the traced model: a tensor, or a structure of tensors and None.

        Raises
        ------
        ModelError
            If the model returns a value that is not a tensor, such as None, a string or a sparse
            tensor.
        """
        tf = tensorflow()
        try:
            flat = tf.nest.flatten(self.results)
        except TypeError as error:  # such as keys that cannot be sorted
            raise ModelError(f"the model's output cannot be read: {error}") from error
        if all(value is None for value in flat):
            raise ModelError("the model returns None instead of an output")
        outputs = map_tensors(_convert_to_dense, self.results)
        if isinstance(outputs, tf.Tensor) and not is_real_dtype(outputs.dtype):
            raise ModelError(f"the model returns {outputs.dtype.name}; expected real numbers")
        return outputs


def _convert_to_dense(value: Any) -> Any:
    """Convert one output value of a model to a dense TensorFlow tensor.

    Raises
    ------
    ModelError
        If the value is a ragged or sparse tensor, or no tensor.
    """
    tf = tensorflow()
    type_name = type(value).__name__
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        conversion = (
            "value.to_tensor()" if type_name == "RaggedTensor" else "tf.sparse.to_dense(value)"
        )
        raise ModelError(
            f"the model returns a {type_name}; expected a dense tensor: return {conversion}"
        )
    try:
        return tf.convert_to_tensor(value)
    except (ValueError, TypeError) as error:
        raise ModelError(f"the model returns a {type_name}; expected a tensor") from error


def keeps_positions(call: Call) -> bool:
    """Return whether the output of a layer may correspond to its input in position.

    This holds for layers without layers inside, for recurrent layers, which contain a cell, and for
    wrappers such as TimeDistributed.
    """
    layers = keras().layers
    return not call.node.is_composite or isinstance(call.node.layer, (layers.RNN, layers.Wrapper))


def choose_calls(model: Any, calls: list[Call], selection: Selection) -> list[Call]:
    """Return the recorded layer calls of a model whose layers are selected.

    Returns
    -------
    list of Call
        The calls in the order of `calls`.

    Raises
    ------
    LayerError
        If the selection names a layer that was not called.
    """
    if is_network(model):
        paths = {info.path for info in selection.select([call.info for call in calls])}
        return [call for call in calls if call.info.path in paths]
    if selection.selects_all:
        return _choose_spatial(calls)
    selection.check_model(model, collect_operations(model))
    selection.check_calls(model, ((call.node, call.info.path) for call in calls))
    return [call for call in calls if selection.matches(call.node, call.info.path, model)]


def _choose_spatial(calls: list[Call]) -> list[Call]:
    visible = filter_visible_calls(calls, keep_attention=True)
    chosen = [call for call in visible if call.info.is_spatial]
    if not chosen:
        raise LayerError(NO_SPATIAL_LAYER)
    return chosen


def filter_visible_calls(calls: list[Call], keep_attention: bool = False) -> list[Call]:
    """Remove the layer calls that Keras makes inside its own layers.

    If a composite layer, such as a nested model, returns the same tensor as its last inner layer,
    the inner layer is kept. If it is a wrapper, such as TimeDistributed, the wrapper is kept.

    Parameters
    ----------
    calls
        Layer calls in order.
    keep_attention
        Whether to keep attention scores, and to leave out the layers that return the same scores.

    Returns
    -------
    list of Call
        The remaining calls, in order.
    """
    chosen: list[Call] = []
    for call in calls:
        positions = [
            position
            for position, chosen_call in enumerate(chosen)
            if chosen_call.tensor is call.tensor
        ]
        # A nested model usually returns the output tensor of its last layer.
        if call.node.is_attention:
            if keep_attention:
                chosen = [other for other in chosen if other.tensor is not call.tensor]
                chosen.append(call)
        elif keep_attention and any(chosen[position].node.is_attention for position in positions):
            continue
        elif not (call.node.is_composite and positions):
            if not call.node.is_internal:
                chosen.append(call)
        elif getattr(call.node.layer, "layer", None) is chosen[positions[-1]].node.layer:
            # A wrapper such as TimeDistributed is listed instead of the layer that it wraps.
            chosen[positions[-1]] = call
    return chosen
