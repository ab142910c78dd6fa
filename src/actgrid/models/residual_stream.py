"""Find the residual stream of a transformer in a traced graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from actgrid.errors import LayerError
from actgrid.models.calls import Call, Trace
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.tensor_axes import PRODUCTS

__all__ = ["StreamState", "find_residual_stream"]

_SUMS = frozenset(["Add", "AddV2"])
# Operations that mix channels or positions, which a residual connection bypasses.
_MIXING = PRODUCTS | {"Conv2D", "DepthwiseConv2dNative"}
_SHAPES = frozenset(["Rank", "Shape", "ShapeN", "Size"])


class StreamState(NamedTuple):
    """The residual stream at one place of a model.

    Attributes
    ----------
    name
        Path of the layer after which this state is, and what was added.
    tensor
        (N, T, C) symbolic values.
    """

    name: str
    tensor: Any


class _Addition(NamedTuple):
    """A residual addition: its operation, the bypassed tensor, and whether it adds attention."""

    operation: Any
    skipped: Any
    has_attention: bool


def find_residual_stream(trace: Trace) -> list[StreamState]:
    """Return the states of the residual stream of a traced model, in order.

    The stream is the chain of additions that leads to the output: each adds to a tensor (N, T, C)
    what attention or dense layers computed from it. If a normalization follows each addition
    (post-norm), the normalized tensors are the states.

    Returns
    -------
    list of StreamState
        The stream before the first addition, and after each addition.

    Raises
    ------
    LayerError
        If the model has no residual additions of tokens.
    """
    tf = tensorflow()
    outputs = list(filter(tf.is_symbolic_tensor, tf.nest.flatten(trace.results)))
    calls = [call for call in trace.calls if not call.node.is_attention]
    scores = {call.scores.tensor.name for call in trace.calls if call.scores is not None}
    additions: list[_Addition] = []
    found = _find_last_addition(outputs, scores)
    while found is not None:
        additions.insert(0, found)
        found = _find_last_addition([found.skipped], scores, is_skipped=True)
    if not additions:
        raise LayerError(
            "the model has no residual stream: no tensor (N, T, C) to which attention or dense "
            "layers add what they compute from it"
        )
    names = _name_states(additions, calls)
    results = [addition.operation.outputs[0] for addition in additions]
    states = [addition.skipped for addition in additions]
    is_normalized = len(additions) > 1 and any(
        state.name != result.name and not _is_same_value(state, result)
        for state, result in zip(states[1:], results, strict=False)
    )
    last = _find_normalized(results[-1], calls) if is_normalized else results[-1]
    return [StreamState(name, tensor) for name, tensor in zip(names, [*states, last], strict=True)]


def _find_last_addition(
    tensors: Sequence[Any], scores: set[str], is_skipped: bool = False
) -> _Addition | None:
    """Return the last residual addition before tensors; None if there is none.

    Parameters
    ----------
    tensors
        Where the search starts.
    scores
        Names of attention scores.
    is_skipped
        Whether the search ends at operations that mix channels or positions, because it follows a
        residual connection.
    """
    visited: set[str] = set()
    pending = [tensor.op for tensor in tensors]
    while pending:
        operation = pending.pop(0)
        if operation.name in visited:
            continue
        visited.add(operation.name)
        addition = _read_addition(operation, scores)
        if addition is not None:
            return addition
        if is_skipped and operation.type in _MIXING:
            continue
        if operation.type not in _SHAPES:
            pending += [tensor.op for tensor in operation.inputs]
    return None


def _read_addition(operation: Any, scores: set[str]) -> _Addition | None:
    """Return the residual addition of an operation.

    None: the operation computes something else.
    """
    if operation.type not in _SUMS or operation.outputs[0].shape.rank != 3:
        return None
    first, second = operation.inputs
    if first.shape.rank != 3 or second.shape.rank != 3:
        return None
    for skipped, added in ((first, second), (second, first)):
        path = _find_path_types(added, skipped)
        if path is not None:
            mixes, names = path
            if mixes:
                return _Addition(operation, skipped, not scores.isdisjoint(names))
    # Two branches from one tensor, such as attention and a dense layer side by side.
    for inner, other in ((first, second), (second, first)):
        nested = _read_addition(inner.op, scores)
        if nested is not None:
            path = _find_path_types(other, nested.skipped)
            if path is not None and path[0]:
                return nested._replace(operation=operation)
    return None


def _find_path_types(start: Any, end: Any) -> tuple[bool, set[str]] | None:
    """Return whether operations between two tensors mix values, and the tensors between them.

    None: the first tensor does not depend on the second.
    """
    names: set[str] = set()
    pending = [start]
    mixes = is_reached = False
    while pending:
        tensor = pending.pop()
        if tensor.name == end.name:
            is_reached = True
            continue
        if tensor.name in names or tensor.op.type in _SHAPES:
            continue
        names.add(tensor.name)
        mixes = mixes or tensor.op.type in _MIXING
        pending += tensor.op.inputs
    return (mixes, names) if is_reached else None


def _is_same_value(tensor: Any, source: Any) -> bool:
    """Return whether a tensor only copies another tensor, as dropout does."""
    while tensor.name != source.name:
        if tensor.op.type not in ("Cast", "Identity"):
            return False
        tensor = tensor.op.inputs[0]
    return True


def _find_normalized(tensor: Any, calls: Sequence[Call]) -> Any:
    """Return the output of the normalization layer after a tensor, or the tensor."""
    tf = tensorflow()
    for call in calls:
        inputs = filter(tf.is_symbolic_tensor, tf.nest.flatten(call.inputs))
        if "Normalization" in call.info.type and any(
            value.name == tensor.name or _is_same_value(value, tensor) for value in inputs
        ):
            return call.tensor
    return tensor


def _name_states(additions: Sequence[_Addition], calls: Sequence[Call]) -> list[str]:
    """Return the names of the states: the layer of each addition, and what it adds."""
    graph_operations = additions[-1].operation.graph.get_operations()
    numbers = {operation.name: index for index, operation in enumerate(graph_operations)}
    names = ["embedding"]
    for addition in additions:
        number = numbers[addition.operation.name]
        around = [
            call.node.path
            for call in calls
            if number in call.span and not isinstance(call.node.layer, keras().Model)
        ]
        kind = "attention" if addition.has_attention else "feed-forward"
        names.append(f"{around[0]}: {kind}" if around else kind)
    return names
