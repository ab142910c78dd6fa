"""The calls of a model's layers, as a trace of the model records and chooses them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actgrid.errors import LayerError, ModelError
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import is_real, map_tensors
from actgrid.models.layers import (
    NO_SPATIAL_LAYER,
    LayerInfo,
    Node,
    Selection,
    model_operations,
)

__all__ = ["Call", "Trace", "choose_calls", "visible_calls"]


@dataclass(frozen=True)
class Call:
    """A layer's output, as a symbolic tensor of the graph being traced.

    `inputs` are the arguments that the layer was called with. Where `tensor` was put together for
    a layer that ran once for each time step, `parts` are the steps' outputs.
    """

    node: Node
    info: LayerInfo
    tensor: Any
    inputs: Any = field(repr=False)
    parts: tuple[Any, ...] = field(default=(), repr=False)


class Trace(NamedTuple):
    """One run of a model on symbolic inputs: what it returns, and the calls of its layers.

    Calls come in the order in which they end; those in loops and branches, whose tensors do not
    outlive them, are left out. Of `results`, whatever the model returns, `outputs` are tensors.
    """

    results: Any
    calls: list[Call]

    @property
    def outputs(self) -> Any:
        """The model's output: a tensor, or a structure of tensors, in which some may be None.

        Raises
        ------
        ModelError
            If the model returns anything else, such as None, a string or a sparse tensor.
        """
        tf = tensorflow()
        try:
            flat = tf.nest.flatten(self.results)
        except TypeError as error:  # as of keys that cannot be sorted
            raise ModelError(f"the model's output cannot be read: {error}") from error
        if all(value is None for value in flat):
            raise ModelError("the model returns None instead of an output")
        outputs = map_tensors(_dense_tensor, self.results)
        if isinstance(outputs, tf.Tensor) and not is_real(outputs.dtype):
            raise ModelError(f"the model returns {outputs.dtype.name}, expected real numbers")
        return outputs


def _dense_tensor(value: Any) -> Any:
    """Return what a model gave as one of its outputs as a tensor."""
    tf = tensorflow()
    kind = type(value).__name__
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        way = "value.to_tensor()" if kind == "RaggedTensor" else "tf.sparse.to_dense(value)"
        raise ModelError(f"the model returns a {kind}, expected a dense tensor: return {way}")
    try:
        return tf.convert_to_tensor(value)
    except (ValueError, TypeError) as error:
        raise ModelError(f"the model returns a {kind}, expected a tensor") from error


def choose_calls(model: Any, calls: list[Call], selection: Selection) -> list[Call]:
    """Return the calls of a trace of the model that are wanted.

    Raises
    ------
    LayerError
        If something that is wanted is not among them.
    """
    if selection.everything:
        return _spatial(calls)
    selection.check(model, model_operations(model))
    selection.check_found(model, ((call.node, call.info.path) for call in calls))
    return [call for call in calls if selection.wants(call.node, call.info.path, model)]


def _spatial(calls: list[Call]) -> list[Call]:
    chosen = [call for call in visible_calls(calls) if call.info.spatial]
    if not chosen:
        raise LayerError(NO_SPATIAL_LAYER)
    return chosen


def visible_calls(calls: list[Call]) -> list[Call]:
    """Return the calls that a user knows of, without the insides of Keras's own layers."""
    chosen: list[Call] = []
    for call in calls:
        places = [place for place, other in enumerate(chosen) if other.tensor is call.tensor]
        # The output of a nested model is mostly that of the last layer inside it.
        if not (call.node.composite and places):
            if not call.node.internal:
                chosen.append(call)
        elif getattr(call.node.layer, "layer", None) is chosen[places[-1]].node.layer:
            # A wrapper, such as TimeDistributed, stands for the one layer that it wraps.
            chosen[places[-1]] = call
    return chosen
