"""`receptive_fields`: follow the pixels of the input through the operations of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from actgrid.models.calls import choose_calls
from actgrid.models.data_formats import input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import map_tensors
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.loading import load_model
from actgrid.models.network import check_compiled
from actgrid.models.networks import network_of
from actgrid.models.receptive_fields import axes, values, windows
from actgrid.models.receptive_fields.operands import Rule
from actgrid.models.receptive_fields.places import (
    WHOLE,
    CannotFollowError,
    Places,
    Span,
    State,
    States,
)
from actgrid.models.receptive_fields.result import Length, ReceptiveField
from actgrid.models.tracing import trace_inputs, trace_model
from actgrid.models.types import LayersLike, ModelInput, ModelLike

__all__ = ["receptive_fields"]


def receptive_fields(
    model: ModelLike, x: ModelInput | None = None, layers: LayersLike = None
) -> dict[str, ReceptiveField | None]:
    """Return the receptive field of each layer's output, in pixels of the model's input.

    They are computed from the operations that TensorFlow runs, so that models of any kind are
    followed alike; see Araujo, Norris and Sim, *Computing Receptive Fields of Convolutional Neural
    Networks*, Distill 2019 (https://distill.pub/2019/computing-receptive-fields).

    Parameters
    ----------
    model
        A Keras model, or anything that `load_model` takes.
    x
        An input of the model, with its batch axis. It is needed where the model's input has no
        fixed size, because the size decides how much a strided layer pads. None: the input that
        the model states.
    layers
        Which layers, see `actgrid.Extractor`; None: every layer with a spatial output.

    Returns
    -------
    dict
        Layer path -> ReceptiveField, in the order in which the layers run. None where a place
        sees the whole image (after global pooling, dense layers, attention), where what it sees
        cannot be followed (operations that are not known, branches of different strides), and
        where the output or the model's input is no image.

    Raises
    ------
    LayerError, ModelError
        As from an extractor, and if the model's input is not known.

    Notes
    -----
    What is the same at every place and comes from the whole image is left out: the gates of
    squeeze-and-excitation, the statistics of group normalization. Padding that mirrors pixels
    counts as padding.

    Examples
    --------
    >>> fields = receptive_fields("keras:VGG16")
    >>> fields["block5_conv3"].size
    (196, 196)
    """
    tf = tensorflow()
    loaded: Any = load_model(model)
    check_compiled(network_of(loaded), "receptive_fields")
    selection = Selection(layers)
    # With one image in the batch every shape is known, also where layers move axes about.
    inputs = map_tensors(
        _with_one_image,
        trace_inputs(loaded, x),
    )
    fields: dict[str, ReceptiveField | None] = {}

    def trace(inputs: Any) -> None:
        calls = choose_calls(loaded, trace_model(loaded, inputs).calls, selection)
        states = follow(tf.compat.v1.get_default_graph(), _start(loaded, tf.nest.flatten(inputs)))
        for call in calls:
            fields[call.info.path] = _field(call.info, states.get(call.tensor.name))

    GraphFunction(trace).trace(inputs)
    return fields


def _with_one_image(spec: Any) -> Any:
    """Return a TensorSpec with a batch of 1; a tensor without axes stays."""
    if not spec.shape.rank:
        return spec
    return tensorflow().TensorSpec((1, *spec.shape[1:]), spec.dtype)


def _start(model: Any, inputs: Sequence[Any]) -> States:
    """Return the states of a model's inputs."""
    images = [
        position
        for position, tensor in enumerate(inputs)
        if tensor is not None and tensor.shape.rank == 4
    ]
    states: States = {tensor.name: WHOLE for tensor in inputs if tensor is not None}
    if len(images) == 1:
        (position,) = images
        first = input_data_format(model, position) == "channels_first"
        axes = (2, 3) if first else (1, 2)
        states[inputs[position].name] = Places((Span(), Span()), axes)
    return states


def _field(info: LayerInfo, state: State) -> ReceptiveField | None:
    axes = (2, 3) if info.data_format == "channels_first" else (1, 2)
    if (
        not isinstance(state, Places)
        or len(info.shape) != 4
        or state.axes != axes
        or any(span.dilation > 1 for span in state.spans)
    ):
        return None

    def both(name: str) -> tuple[Length, Length]:
        y, x = (getattr(span, name) for span in state.spans)
        return _as_length(y), _as_length(x)

    return ReceptiveField(both("size"), both("stride"), both("start"))


def _as_length(number: Fraction) -> Length:
    return int(number) if number.denominator == 1 else number


def follow(graph: Any, states: States) -> States:
    """Return the states of all tensors of a graph that depend on those given."""
    for operation in graph.get_operations():
        given = [states.get(tensor.name) for tensor in operation.inputs]
        if not any(given):
            continue
        found: Sequence[State]
        try:
            found = _RULES[operation.type](operation, given)
        except (KeyError, CannotFollowError):
            found = [WHOLE] * len(operation.outputs)
        for tensor, state in zip(operation.outputs, found, strict=True):
            if state:
                states[tensor.name] = state
    return states


def _function_call(operation: Any, given: Sequence[State]) -> list[State]:
    graph = operation.graph._get_function(operation.get_attr("f").name).graph
    states = {
        tensor.name: state for tensor, state in zip(graph.inputs, given, strict=True) if state
    }
    states = follow(graph, states)
    return [states.get(tensor.name) for tensor in graph.outputs]


# By type of operation. A new operation is a rule in the file of its subject.
_RULES: dict[str, Rule] = {
    **windows.RULES,
    **axes.RULES,
    **values.RULES,
    **dict.fromkeys(["PartitionedCall", "StatefulPartitionedCall"], _function_call),
}
