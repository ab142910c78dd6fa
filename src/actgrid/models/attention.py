"""Find the attention scores that layers compute, and name the axes of layer outputs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from actgrid.models.calls import Call, RawScores, keeps_positions
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.layers import AttentionScores, LayerInfo, Node, join_attention_path
from actgrid.models.tensor_axes import (
    PRODUCTS,
    Axis,
    TensorAxes,
    follow_axes,
    make_axes,
    name_axes,
)
from actgrid.rendering import TokenGrid

__all__ = ["find_attention"]

# A softmax over several axes is computed as an exponential.
_SOFTMAX = frozenset(["Exp", "Softmax"])
_ATTENTION_TYPE = "AttentionScores"


def find_attention(
    model: Any,
    inputs: Any,
    calls: Sequence[Call],
    operations: Sequence[Any],
    start: int,
    aliases: Mapping[str, str],
) -> list[Call]:
    """Return the layer calls of a trace with the attention scores among them.

    Scores are found in the graph, as a softmax of the product of tensors with positions, whatever
    layer computes them and whether it returns them or not. They are a call of their own, before the
    call of the innermost layer that computes both the product and the softmax. The axes of all
    outputs are named.

    Parameters
    ----------
    model
        The traced model.
    inputs
        Its symbolic inputs.
    calls
        The layer calls, in the order in which they end.
    operations
        Operations that the trace created, in order.
    start
        Number of the first of these operations.
    aliases
        For replaced tensors: name of the tensor -> name of its replacement.
    """
    if not _may_have_tokens(inputs, calls, operations):
        return list(calls)
    tf = tensorflow()
    roots = {
        tensor.name: make_axes(
            tensor.shape.as_list(), find_input_data_format(model, position) == "channels_first"
        )
        for position, tensor in enumerate(tf.nest.flatten(inputs))
        if tensor is not None and tensor.shape.rank is not None
    }
    layer_inputs = {
        call.tensor.name: tensor
        for call in calls
        if keeps_positions(call) and (tensor := _get_first_tensor(call.inputs)) is not None
    }
    token_names = _list_token_names(calls)
    axes = follow_axes(operations, roots, aliases, layer_inputs, token_names)
    learned = _find_learned_tokens(calls, axes)
    if learned:
        axes = follow_axes(operations, roots | learned, aliases, layer_inputs, token_names)
    for call in calls:
        # Heads of tensors that do not depend on the input, such as embeddings of positions.
        source = _get_first_tensor(call.inputs)
        if (
            call.tensor.name not in axes
            and not call.node.is_composite
            and len(call.info.shape) == 4
            and source is not None
            and source.shape.rank == 3
        ):
            own = operations[call.span.start - start : call.span.stop - start]
            convention = {source.name: make_axes(source.shape.as_list())}
            axes = follow_axes(own, convention, {}, {}) | axes
    scores = _find_scores(calls, operations, start, axes)
    uses_tokens = any(tensor_axes.is_scores for tensor_axes in axes.values())
    described = [
        replace(call, info=_describe_axes(call.info, axes.get(call.tensor.name), uses_tokens))
        for call in calls
    ]
    if not scores:
        return described
    paths = Counter(call.info.path for call in calls)
    result: list[Call] = []
    pending = sorted(scores, key=lambda score: score.position)
    for position, call in enumerate(described):
        while pending and pending[0].position <= position:
            result.append(_make_call(pending.pop(0), calls, axes, paths))
        result.append(call)
    return result + [_make_call(score, calls, axes, paths) for score in pending]


def _may_have_tokens(inputs: Any, calls: Sequence[Call], operations: Sequence[Any]) -> bool:
    """Return whether a model may compute attention, or make sequences of images."""
    tensors = tensorflow().nest.flatten(inputs)
    ranks = [tensor.shape.rank or 0 for tensor in tensors if tensor is not None]
    if any(len(call.info.shape) == 3 for call in calls) and max(ranks, default=0) > 3:
        return True
    products = PRODUCTS - {"MatMul"}
    return any(operation.type in products for operation in operations)


def _list_token_names(calls: Sequence[Call]) -> set[str]:
    """Return the names of tensors (N, positions, C) that Keras's attention layers receive."""
    tf, layers = tensorflow(), keras().layers
    classes = (
        *(layers.MultiHeadAttention, layers.GroupQueryAttention),
        *(layers.Attention, layers.AdditiveAttention),
    )
    return {
        tensor.name
        for call in calls
        if isinstance(call.node.layer, classes)
        for tensor in filter(tf.is_symbolic_tensor, tf.nest.flatten(call.inputs))
        if (tensor.shape.rank or 0) > 2 and tensor.dtype.is_floating
    }


def _find_learned_tokens(
    calls: Sequence[Call], axes: Mapping[str, TensorAxes]
) -> dict[str, TensorAxes]:
    """Return tokens that do not depend on the input, such as the queries of attention pooling.

    Returns
    -------
    dict
        Name of the tensor -> its axes by convention.
    """
    tf = tensorflow()
    found: dict[str, TensorAxes] = {}
    for call in calls:
        tensors = list(filter(tf.is_symbolic_tensor, tf.nest.flatten(call.inputs)))
        if call.node.is_composite and any(tensor.name in axes for tensor in tensors):
            found |= {
                tensor.name: make_axes(tensor.shape.as_list())
                for tensor in tensors
                if tensor.name not in axes and tensor.shape.rank == 3 and tensor.dtype.is_floating
            }
    return found


def _get_first_tensor(inputs: Any) -> Any:
    tf = tensorflow()
    # A layer may also be called with a constant, which is not part of the graph.
    return next(filter(tf.is_symbolic_tensor, tf.nest.flatten(inputs)), None)


class _Scores(NamedTuple):
    """Attention scores in a graph.

    Attributes
    ----------
    tensor
        The scores after the softmax.
    operands
        The tensors whose product the scores come from: queries and keys in any order.
    owner
        Call of the layer that computes them; None: the model itself.
    position
        Index of the call before which they are computed.
    """

    tensor: Any
    operands: tuple[Any, ...]
    owner: Call | None
    position: int


def _find_scores(
    calls: Sequence[Call], operations: Sequence[Any], start: int, axes: Mapping[str, TensorAxes]
) -> list[_Scores]:
    """Return the attention scores of a graph, each once."""
    numbers = {operation.name: start + index for index, operation in enumerate(operations)}
    found: list[_Scores] = []
    for operation in operations:
        if operation.type not in _SOFTMAX:
            continue
        tensor = operation.outputs[0]
        tensor_axes = axes.get(tensor.name)
        if tensor_axes is None or not tensor_axes.is_scores:
            continue
        if tensor_axes.axes[-1].kind != "position":
            continue
        number = numbers[operation.name]
        around = [index for index, call in enumerate(calls) if number in call.span]
        # The output of a softmax layer also has the zeros of its mask.
        layer = keras().layers.Softmax
        outputs = [
            calls[index].tensor for index in around if isinstance(calls[index].node.layer, layer)
        ]
        if outputs:
            tensor = outputs[0]
        elif operation.type == "Exp":
            continue
        if any(other.tensor is tensor for other in found):
            continue
        product = _find_product(operation, axes)
        owners = [
            index
            for index in around
            if product is None or numbers.get(product.name) in calls[index].span
        ]
        if not owners and around:
            continue  # a softmax layer outside of attention layers: its output is the scores
        owner = None if not owners else calls[owners[0]]
        is_model = owner is not None and isinstance(owner.node.layer, keras().Model)
        if is_model and around[0] != owners[0]:
            continue
        position = around[0] if around else _find_position(calls, number)
        operands = () if product is None else tuple(product.inputs)
        found.append(_Scores(tensor, operands, owner, position))
    return found


def _find_position(calls: Sequence[Call], number: int) -> int:
    later = (index for index, call in enumerate(calls) if call.span.start > number)
    return next(later, len(calls))


def _find_product(operation: Any, axes: Mapping[str, TensorAxes]) -> Any:
    """Return the matrix product that the scores of a softmax come from; None for a sum."""
    pending, visited = [operation], set()
    while pending:
        current = pending.pop()
        if current.name in visited:
            continue
        visited.add(current.name)
        if current.type in PRODUCTS:
            return current
        for tensor in current.inputs:
            tensor_axes = axes.get(tensor.name)
            if tensor_axes is not None and tensor_axes.is_scores:
                pending.append(tensor.op)
    return None


def _make_call(
    scores: _Scores, calls: Sequence[Call], axes: Mapping[str, TensorAxes], paths: Counter[str]
) -> Call:
    """Return the call of attention scores, (N, heads, queries, keys)."""
    owner_path = "" if scores.owner is None else scores.owner.node.path
    path = join_attention_path(owner_path)
    repeat = paths[path]
    paths[path] += 1
    arrangement = _Arrangement.find(axes[scores.tensor.name])
    info = LayerInfo(
        path=path + (f":{repeat}" if repeat else ""),
        type=_ATTENTION_TYPE,
        shape=arrangement.shape,
        dtype=scores.tensor.dtype.name,
        data_format="channels_first",
        parameters=0,
        index=None,
        axes=("batch", "head", "query", "key"),
        grids=(None, None, *arrangement.grids),
    )
    layer = None if scores.owner is None else scores.owner.node.layer
    node = Node(AttentionScores(layer), path, None, is_internal=False, is_looped=False)
    inputs = () if scores.owner is None else scores.owner.inputs
    raw = RawScores(scores.tensor, scores.operands, arrangement.apply, arrangement.has_windows)
    return Call(node, info, arrangement.apply(scores.tensor), inputs, scores=raw)


class _Arrangement(NamedTuple):
    """Conversion of attention scores to the axes batch, heads, queries and keys.

    Attributes
    ----------
    axes
        The axes of the scores, in which heads that were merged with the batch are separate.
    split
        Index of the axis of the batch and heads that is split; None if there is none.
    groups
        Indices of the axes that become batch, heads, queries and keys.
    """

    axes: tuple[Axis, ...]
    split: int | None
    groups: tuple[tuple[int, ...], ...]

    @classmethod
    def find(cls, tensor_axes: TensorAxes) -> _Arrangement:
        """Return the arrangement of scores with the given axes."""
        axes = list(tensor_axes.axes)
        split = None
        for index, axis in enumerate(tensor_axes.axes):
            if axis.kind == "batch" and any(part.kind == "head" for part in axis.parts):
                split = index
                axes[index : index + 1] = [
                    part if part.kind == "head" else part._replace(kind="batch")
                    for part in axis.parts
                ]
        separate = TensorAxes(tuple(axes), is_scores=True)
        positions, heads = separate.positions, separate.heads
        batch = set(range(len(axes))).difference(positions, heads)
        middle = len(positions) // 2
        groups = (sorted(batch), heads, positions[:middle], positions[middle:])
        return cls(separate.axes, split, tuple(map(tuple, groups)))

    @property
    def has_windows(self) -> bool:
        """True if the batch axis counts windows of images, or other groups of tokens."""
        batch = [self.axes[index] for index in self.groups[0]]
        return len(batch) > 1 or any(len(axis.parts) > 1 for axis in batch)

    @property
    def shape(self) -> tuple[int | None, ...]:
        """The static shape of the converted scores."""
        return tuple(
            _multiply_sizes([self.axes[index] for index in group]) for group in self.groups
        )

    @property
    def grids(self) -> list[TokenGrid | None]:
        """The grids of queries and keys."""
        return [_find_grid([self.axes[index] for index in group]) for group in self.groups[2:]]

    def apply(self, tensor: Any) -> Any:
        """Return the converted scores, (N, heads, queries, keys)."""
        tf = tensorflow()
        if self.split is not None:
            added = len(self.axes) - tensor.shape.rank
            sides = tf.unstack(tf.shape(tensor))
            parts = [axis.size for axis in self.axes[self.split + 1 : self.split + 1 + added]]
            sides[self.split : self.split + 1] = [-1, *parts]
            tensor = tf.reshape(tensor, sides)
        order = [index for group in self.groups for index in group]
        if order != list(range(len(order))):
            tensor = tf.transpose(tensor, order)
        if any(len(group) != 1 for group in self.groups):
            lengths = tf.shape(tensor)
            ends = np.cumsum([len(group) for group in self.groups]).tolist()
            sides = [
                tf.reduce_prod(lengths[end - len(group) : end]) if size is None else size
                for group, end, size in zip(self.groups, ends, self.shape, strict=True)
            ]
            tensor = tf.reshape(tensor, sides)
        tensor.set_shape(self.shape)
        return tensor


def _multiply_sizes(axes: list[Axis]) -> int | None:
    sizes = [axis.size for axis in axes]
    return None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]


def _find_grid(axes: list[Axis]) -> TokenGrid | None:
    """Return the grid of queries or keys, which may have an axis for height and for width."""
    if len(axes) == 1:
        return axes[0].grid
    height, width = (axes[0].size, axes[1].size) if len(axes) == 2 else (None, None)
    return None if height is None or width is None else TokenGrid(height, width)


def _describe_axes(info: LayerInfo, tensor_axes: TensorAxes | None, uses_tokens: bool) -> LayerInfo:
    """Return the description of an output with the names and grids of its axes."""
    if tensor_axes is None or len(tensor_axes.axes) != len(info.shape):
        return info
    grids = tuple(axis.grid for axis in tensor_axes.axes)
    has_heads = uses_tokens and (tensor_axes.is_scores or bool(tensor_axes.heads))
    rank = len(info.shape)
    if has_heads:
        names = name_axes(tensor_axes)
        first = names[1:2] != ("token",)
        return replace(
            info,
            axes=names,
            grids=grids,
            data_format="channels_first" if first else "channels_last",
        )
    has_patches = any(axis.is_patches for axis in tensor_axes.axes)
    if rank != 3 or not (uses_tokens or has_patches):
        return info
    (position,) = tensor_axes.positions[:1] or (1,)
    lacks_grid = tensor_axes.axes[position].is_patches and not any(grids)
    names = ("batch", "token", "channel") if position == 1 else ("batch", "channel", "token")
    return replace(info, axes=names, grids=grids, lacks_grid=lacks_grid)
