"""Compute receptive fields by propagating spans of pixels through a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from actgrid.models.calls import choose_calls
from actgrid.models.compiled import trace_once
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import map_tensors
from actgrid.models.layers import LayerInfo, Selection
from actgrid.models.loading import load_model
from actgrid.models.network import check_compiled
from actgrid.models.networks import get_network, trace_network
from actgrid.models.receptive_fields import axes, values, windows
from actgrid.models.receptive_fields.operands import Rule
from actgrid.models.receptive_fields.result import Length, ReceptiveField
from actgrid.models.receptive_fields.spans import (
    UNTRACKED,
    ImageSpans,
    Span,
    State,
    States,
    UntrackableError,
)
from actgrid.models.tracing import prepare_trace_inputs
from actgrid.models.types import LayersLike, ModelInput, ModelLike

__all__ = ["compute_receptive_fields"]


def compute_receptive_fields(
    model: ModelLike, x: ModelInput | None = None, layers: LayersLike = None
) -> dict[str, ReceptiveField | None]:
    """Compute the receptive field of each layer's output in input pixels.

    The receptive fields are computed from the TensorFlow operations of the model, so that models of
    any kind are supported.

    Parameters
    ----------
    model : keras.Model, str or pathlib.Path
        A Keras model, or any other model that `load_model` accepts.
    x : array_like, list or dict, optional
        An input of the model, with its batch axis. Required if the model's input has no fixed size,
        because the size decides how much a strided layer pads. None: the declared input of the
        model.
    layers : str, int, keras.Layer, type, callable or list of these, optional
        Layers to include; see `actgrid.Extractor`. None: every layer with a spatial output.

    Returns
    -------
    dict of {str: ReceptiveField or None}
        Layer path -> receptive field, in the order in which the layers run. None if a position
        depends on the whole image (after global pooling, dense layers, attention), if an operation
        is unknown or branches have different strides, and if the output or the model's input is not
        an
        image.

    Raises
    ------
    LayerError, ModelError
        As for `actgrid.Extractor`, and if the model's input is not known.

    Notes
    -----
    Values that are equal at every position and depend on the whole image are ignored: the gates of
    squeeze-and-excitation, the statistics of group normalization. Padding that mirrors pixels
    counts as padding.

    References
    ----------
    Araujo, Norris and Sim, 2019, Computing Receptive Fields of Convolutional Neural Networks,
    Distill, https://distill.pub/2019/computing-receptive-fields.

    Examples
    --------
    >>> import keras
    >>> from actgrid.models import compute_receptive_fields
    >>> model = keras.Sequential(
    ...     [
    ...         keras.Input((32, 32, 3)),
    ...         keras.layers.Conv2D(4, 3, name="conv1"),
    ...         keras.layers.Conv2D(4, 3, strides=2, name="conv2"),
    ...     ]
    ... )
    >>> fields = compute_receptive_fields(model)
    >>> fields["conv2"].size, fields["conv2"].stride
    ((5, 5), (2, 2))
    """
    loaded: Any = load_model(model)
    check_compiled(get_network(loaded), "compute_receptive_fields")
    # A batch size of 1 fixes every shape, even where layers move axes.
    inputs = map_tensors(
        _set_batch_size_to_one,
        prepare_trace_inputs(loaded, x),
    )
    body = _TraceFields(Selection(layers).resolve_predicates(loaded))
    fields: dict[str, ReceptiveField | None] = trace_once(loaded, body, inputs)
    return dict(fields)


@dataclass(frozen=True)
class _TraceFields:
    """Function for `trace_once` that returns the receptive fields of selected layers."""

    layers: Selection

    def __call__(self, model: Any, inputs: Any) -> dict[str, ReceptiveField | None]:
        tf = tensorflow()
        calls = choose_calls(model, trace_network(model, inputs).calls, self.layers)
        states = propagate(
            tf.compat.v1.get_default_graph(), _initialize_states(model, tf.nest.flatten(inputs))
        )
        return {
            call.info.path: _make_field(call.info, states.get(call.tensor.name)) for call in calls
        }


def _set_batch_size_to_one(spec: Any) -> Any:
    """Return a TensorSpec with a batch size of 1; return a scalar unchanged."""
    if not spec.shape.rank:
        return spec
    return tensorflow().TensorSpec((1, *spec.shape[1:]), spec.dtype)


def _initialize_states(model: Any, inputs: Sequence[Any]) -> States:
    """Return the tracking states of the inputs of a model, by tensor name.

    The only input of rank 4 is the image, and each index starts with a span of one pixel. Other
    inputs are not tracked.
    """
    image_positions = [
        position
        for position, tensor in enumerate(inputs)
        if tensor is not None and tensor.shape.rank == 4
    ]
    states: States = {tensor.name: UNTRACKED for tensor in inputs if tensor is not None}
    if len(image_positions) == 1:
        (position,) = image_positions
        channels_first = find_input_data_format(model, position) == "channels_first"
        axes = (2, 3) if channels_first else (1, 2)
        states[inputs[position].name] = ImageSpans((Span(), Span()), axes)
    return states


def _make_field(info: LayerInfo, state: State) -> ReceptiveField | None:
    axes = (2, 3) if info.data_format == "channels_first" else (1, 2)
    if (
        not isinstance(state, ImageSpans)
        or len(info.shape) != 4
        or state.axes != axes
        or any(span.dilation > 1 for span in state.spans)
    ):
        return None

    def read_lengths(name: str) -> tuple[Length, Length]:
        y, x = (getattr(span, name) for span in state.spans)
        return _as_length(y), _as_length(x)

    return ReceptiveField(read_lengths("size"), read_lengths("stride"), read_lengths("start"))


def _as_length(number: Fraction) -> Length:
    return int(number) if number.denominator == 1 else number


def propagate(graph: Any, states: States) -> States:
    """Compute the tracking states of all tensors in a graph that depend on the inputs.

    Parameters
    ----------
    graph
        TensorFlow graph.
    states
        Tensor name -> state, for the inputs. The dict is updated.

    Returns
    -------
    dict
        Tensor name -> `ImageSpans`, or `Untracked` if an operation has no rule.
    """
    for operation in graph.get_operations():
        input_states = [states.get(tensor.name) for tensor in operation.inputs]
        if not any(input_states):
            continue
        output_states: Sequence[State]
        try:
            output_states = _RULES[operation.type](operation, input_states)
        except (KeyError, UntrackableError):
            output_states = [UNTRACKED] * len(operation.outputs)
        for tensor, state in zip(operation.outputs, output_states, strict=True):
            if state:
                states[tensor.name] = state
    return states


def _propagate_function_call(operation: Any, input_states: Sequence[State]) -> list[State]:
    graph = operation.graph._get_function(operation.get_attr("f").name).graph
    states = {
        tensor.name: state
        for tensor, state in zip(graph.inputs, input_states, strict=True)
        if state
    }
    states = propagate(graph, states)
    return [states.get(tensor.name) for tensor in graph.outputs]


# By operation type. The rule of a new operation belongs in the file of its subject.
_RULES: dict[str, Rule] = {
    **windows.RULES,
    **axes.RULES,
    **values.RULES,
    **dict.fromkeys(["PartitionedCall", "StatefulPartitionedCall"], _propagate_function_call),
}
