"""Follow the axes of tensors through a traced graph: heads, tokens and grids of patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from actgrid.models.frameworks import tensorflow
from actgrid.rendering import TokenGrid

__all__ = ["PRODUCTS", "Axis", "TensorAxes", "follow_axes", "name_axes"]

# Matrix products, which compute attention scores if both operands depend on the input.
PRODUCTS = frozenset(["BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "MatMul"])
_SUMS = frozenset(["Add", "AddV2", "Sub"])
_SHAPES = frozenset(["Rank", "Shape", "ShapeN", "Size"])
# Operations that make tokens of tensors of which the axes are not known.
_SOURCES = frozenset(["BroadcastTo", "GatherV2", "ResourceGather", "Tile"])
_REDUCTIONS = frozenset(["All", "Any", "ArgMax", "ArgMin", "Max", "Mean", "Min", "Prod", "Sum"])
# Number of equal parts into which models split the output of one projection: query, key, value.
_PROJECTION_PARTS = 3
_SIDES = ("depth", "height", "width")


class Axis(NamedTuple):
    """An axis of a tensor.

    Attributes
    ----------
    kind
        ``"batch"``, ``"position"`` (time step, token, row or column), ``"inner"`` (position within
        a window or patch), ``"channel"``, ``"head"`` or ``"other"``.
    size
        Length; None if it is not fixed.
    grid
        Grid of patches that the positions form, if it is known.
    is_patches
        Whether the positions are patches of an image.
    parts
        Axes that were merged into this axis, in order; empty if none were.
    """

    kind: str
    size: int | None
    grid: TokenGrid | None = None
    is_patches: bool = False
    parts: tuple[Axis, ...] = ()

    @property
    def has_positions(self) -> bool:
        """True if the axis counts positions, alone or together with attention heads."""
        if self.kind in ("head", "other"):
            return any(part.kind == "position" for part in self.parts)
        return self.kind == "position"

    def resize(self, size: int | None) -> Axis:
        """Return the axis with another length, of which the grid and the parts are not known."""
        return self if size == self.size else Axis(self.kind, size, None, self.is_patches)


class TensorAxes(NamedTuple):
    """The axes of a tensor.

    Attributes
    ----------
    axes
        The axes in order.
    is_scores
        Whether the values are attention scores: a product of positions with positions.
    """

    axes: tuple[Axis, ...]
    is_scores: bool = False

    @property
    def positions(self) -> list[int]:
        """Indices of the axes of positions."""
        return [index for index, axis in enumerate(self.axes) if axis.kind == "position"]

    @property
    def heads(self) -> list[int]:
        """Indices of the axes of attention heads."""
        return [index for index, axis in enumerate(self.axes) if axis.kind == "head"]


def make_axes(shape: Sequence[int | None], channels_first: bool = False) -> TensorAxes:
    """Return the axes that a tensor of this shape has by convention."""
    kinds = ["batch", *["position"] * (len(shape) - 2), "channel"][: len(shape)]
    if channels_first:
        kinds[1:] = ["channel", *["position"] * (len(shape) - 2)]
    return TensorAxes(tuple(map(Axis, kinds, shape)))


def name_axes(tensor_axes: TensorAxes) -> tuple[str, ...]:
    """Return the name of each axis, such as batch, head, query and key."""
    positions = tensor_axes.positions
    names = [axis.kind for axis in tensor_axes.axes]
    if tensor_axes.is_scores:
        sides = ["query"] * (len(positions) // 2)
        sides += ["key"] * (len(positions) - len(sides))
    elif len(positions) == 1:
        sides = ["token"]
    else:
        sides = list(_SIDES[-len(positions) :]) if len(positions) <= len(_SIDES) else []
    for index, side in zip(positions, sides, strict=False):
        names[index] = side
    return tuple(names)


def follow_axes(
    operations: Iterable[Any],
    roots: Mapping[str, TensorAxes],
    aliases: Mapping[str, str],
    layer_inputs: Mapping[str, Any],
    token_names: Set[str] = frozenset(),
) -> dict[str, TensorAxes]:
    """Return the axes of every tensor that depends on the inputs of a model.

    Parameters
    ----------
    operations
        Operations of the graph, in the order of execution.
    roots
        Axes of the model's inputs, by the name of the tensor.
    aliases
        Names of tensors that have the axes of another tensor, by the name of that tensor.
    layer_inputs
        For outputs of layers that keep the positions of their input: the tensor that the layer was
        called with.
    token_names
        Names of tensors that are known to be (N, positions, C), such as inputs of attention layers.

    Returns
    -------
    dict
        Name of a tensor -> its axes. Tensors whose axes are not known are left out.
    """
    known = dict(roots)
    for operation in operations:
        if operation.type in _SHAPES:
            continue
        inputs = [known.get(tensor.name) for tensor in operation.inputs]
        outputs = operation.outputs
        is_anchor = any(
            output.name in token_names or output.name in layer_inputs for output in outputs
        )
        if not any(inputs) and operation.type not in _SOURCES and not is_anchor:
            continue
        try:
            results = _RULES.get(operation.type, _copy_axes)(operation, inputs)
        except (AttributeError, IndexError, KeyError, StopIteration, TypeError, ValueError):
            results = [None] * len(outputs)  # an unusual form of the operation
        for output, result in zip(outputs, results, strict=False):
            rank = output.shape.rank
            if result is None and (layer_input := layer_inputs.get(output.name)) is not None:
                result = known.get(layer_input.name)
                if result is not None and len(result.axes) != rank:
                    result = None
            if result is None and output.name in token_names:
                result = make_axes(output.shape.as_list())
            if result is None or rank != len(result.axes):
                continue
            sizes = output.shape.as_list()
            # Lengths that TensorFlow does not know may follow from those of the inputs.
            axes = tuple(
                axis if size is None else axis.resize(size)
                for axis, size in zip(result.axes, sizes, strict=True)
            )
            known[output.name] = _assume_positions(
                result._replace(axes=axes), output.name in token_names
            )
            if output.name in aliases:
                known[aliases[output.name]] = known[output.name]
            if known[output.name].is_scores and operation.type in _SUMS:
                _mark_biases(operation, known[output.name], known)
    return known


def _assume_positions(tensor_axes: TensorAxes, is_tokens: bool) -> TensorAxes:
    """Return the axes of a tensor whose axes are known to be (N, positions, C), or may be.

    An example are tokens that a dense layer makes of features.

    Parameters
    ----------
    tensor_axes
        The axes that follow from the operations.
    is_tokens
        Whether the tensor is known to be (N, positions, C).
    """
    if is_tokens:
        convention = make_axes([axis.size for axis in tensor_axes.axes]).axes
        axes = (
            axis._replace(kind=expected.kind)
            for axis, expected in zip(tensor_axes.axes, convention, strict=True)
        )
        return TensorAxes(tuple(axes))
    kinds = [axis.kind for axis in tensor_axes.axes]
    if kinds in (["batch", "other", "channel"], ["batch", "head", "channel"]):
        batch, axis, channel = tensor_axes.axes
        return tensor_axes._replace(axes=(batch, axis._replace(kind="position"), channel))
    return tensor_axes


def _mark_biases(operation: Any, axes: TensorAxes, known: dict[str, TensorAxes]) -> None:
    """Give terms that are added to attention scores, such as biases, the axes of the scores."""
    pending = [operation]
    while pending:
        current = pending.pop()
        if current.type in _SUMS:
            for tensor in current.inputs:
                own = known.get(tensor.name)
                if tensor.shape.rank == len(axes.axes) and not (own and own.is_scores):
                    known[tensor.name] = axes
                    pending.append(tensor.op)


_Inputs = Sequence[TensorAxes | None]
_Results = Sequence[TensorAxes | None]


def _copy_axes(operation: Any, inputs: _Inputs) -> _Results:
    """Return axes for operations that keep the order of axes, such as element-wise ones."""
    candidates = [axes for axes in inputs if axes is not None]
    results: list[TensorAxes | None] = []
    for output in operation.outputs:
        rank = output.shape.rank
        fitting = [axes for axes in candidates if len(axes.axes) == rank]
        results.append(_combine(fitting, output.shape.as_list()) if fitting else None)
    return results


def _combine(candidates: list[TensorAxes], shape: list[int | None]) -> TensorAxes:
    """Return the axes of the result of an element-wise operation on broadcast tensors."""
    main = max(candidates, key=lambda axes: (axes.is_scores, len(axes.heads)))
    axes = []
    for index, size in enumerate(shape):
        options = [candidate.axes[index] for candidate in [main, *candidates]]
        options = [axis for axis in options if axis.size == size] or options
        kinds = [axis for axis in options if axis.kind == main.axes[index].kind != "other"]
        kinds = kinds or [axis for axis in options if axis.kind != "other"] or options
        axes.append(next((axis for axis in kinds if axis.grid or axis.parts), kinds[0]))
    return TensorAxes(tuple(axes), main.is_scores or _is_pairwise(axes, candidates))


def _is_pairwise(axes: list[Axis], candidates: list[TensorAxes]) -> bool:
    """Return whether positions are combined with positions by broadcasting, each with each."""
    repeated = {
        tuple(candidate.axes[index].size == 1 for candidate in candidates)
        for index, axis in enumerate(axes)
        if axis.kind == "position" and axis.size != 1
    }
    return len(candidates) == 2 and {(True, False), (False, True)} <= repeated


def _convolve(operation: Any, inputs: _Inputs) -> _Results:
    """Return axes for operations that read neighbouring positions, such as convolutions."""
    result = _copy_axes(operation, inputs)[0]
    if result is None or operation.get_attr("data_format") != b"NHWC":
        return [result]
    by_convention = make_axes(operation.outputs[0].shape.as_list()).axes
    axes = (
        axis if axis.kind == expected.kind else expected
        for axis, expected in zip(result.axes, by_convention, strict=True)
    )
    return [TensorAxes(tuple(axes))]


def _get_constant(tensor: Any) -> Any:
    value = tensorflow().get_static_value(tensor)
    if value is None:
        raise ValueError("not a constant")
    return value


def _transpose(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    permutation = _get_constant(operation.inputs[1])
    return [source._replace(axes=tuple(source.axes[index] for index in permutation))]


def _expand_dims(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    position = int(_get_constant(operation.inputs[1])) % (len(source.axes) + 1)
    axes = list(source.axes)
    axes.insert(position, Axis("other", 1))
    return [source._replace(axes=tuple(axes))]


def _squeeze(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    rank = len(source.axes)
    removed = {index % rank for index in operation.get_attr("squeeze_dims")}
    removed = removed or {index for index, axis in enumerate(source.axes) if axis.size == 1}
    return [_remove_axes(source, removed)]


def _remove_axes(source: TensorAxes, removed: Iterable[int]) -> TensorAxes:
    indices = set(removed)
    axes = tuple(axis for index, axis in enumerate(source.axes) if index not in indices)
    kept = TensorAxes(axes, source.is_scores)
    return kept._replace(is_scores=source.is_scores and len(kept.positions) >= 2)


def _unpack(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    axis = operation.get_attr("axis") % len(source.axes)
    return [_remove_axes(source, [axis])] * len(operation.outputs)


def _pack(operation: Any, inputs: _Inputs) -> _Results:
    source = next(filter(None, inputs))
    position = operation.get_attr("axis") % (len(source.axes) + 1)
    axes = list(source.axes)
    axes.insert(position, Axis("other", len(inputs)))
    return [source._replace(axes=tuple(axes))]


def _reduce(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    rank = len(source.axes)
    axes = _get_constant(operation.inputs[1])
    removed = {int(axis) % rank for axis in (axes.ravel() if hasattr(axes, "ravel") else [axes])}
    if operation.outputs[0].shape.rank == rank:
        return [source]
    return [_remove_axes(source, removed)]


def _gather(operation: Any, inputs: _Inputs) -> _Results:
    """Return the axes of rows that are looked up in a table, or selected from a tensor."""
    params, indices = inputs[0], inputs[1]
    index_rank = operation.inputs[1].shape.rank
    is_resource = operation.type == "ResourceGather"
    axis = 0 if is_resource or len(inputs) < 3 else int(_get_constant(operation.inputs[2]))
    if params is None:
        if indices is None:
            indices = _assume_tokens(operation.inputs[1])
        if indices is None or axis != 0:
            return [None]
        # The last axis of token indices is one of positions, not of channels.
        tokens = tuple(
            item._replace(kind="position") if item.kind == "channel" else item
            for item in indices.axes
        )
        count = operation.outputs[0].shape.rank - len(tokens)
        return [TensorAxes((*tokens, *[Axis("channel", None)] * count))]
    axis %= len(params.axes)
    if index_rank == 0:
        return [_remove_axes(params, [axis])]
    selected = params.axes[axis]
    replaced = Axis(selected.kind, None, None, selected.is_patches)
    axes = list(params.axes)
    axes[axis : axis + 1] = [replaced] * index_rank
    return [params._replace(axes=tuple(axes))]


def _assume_tokens(indices: Any) -> TensorAxes | None:
    """Return the axes of indices (N, T) of unknown origin, such as the words of texts."""
    if indices.shape.rank != 2 or indices.shape[0] is not None:
        return None
    return make_axes(indices.shape.as_list())


def _one_hot(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    tokens = (axis._replace(kind="position") for axis in source.axes[1:])
    return [TensorAxes((source.axes[0], *tokens, Axis("channel", None)))]


def _repeat(operation: Any, inputs: _Inputs) -> _Results:
    """Return the axes of a repeated tensor, such as a class token for each sample."""
    if inputs[0] is not None:
        return _copy_axes(operation, inputs[:1])
    output = operation.outputs[0]
    has_tokens = output.shape.rank == 3 and output.dtype.is_floating
    return [make_axes(output.shape.as_list()) if has_tokens else None]


def _slice_axis(axis: Axis, start: int, stop: int | None) -> Axis:
    """Return the part of an axis between two positions; the parts of the grid that it has."""
    size = None if axis.size is None else (axis.size if stop is None else stop) - start
    grid = axis.grid
    if grid is not None and axis.size is not None:
        stop = axis.size if stop is None else stop
        first, last = grid.patches.start, grid.patches.stop
        keeps_patches = start <= first and stop >= last
        grid = grid._replace(leading=first - start, trailing=stop - last) if keeps_patches else None
    elif start or stop is not None:
        grid = None
    return Axis(axis.kind, size, grid, axis.is_patches, axis.parts if size == axis.size else ())


def _strided_slice(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    begin, end, strides = (_get_constant(tensor).tolist() for tensor in operation.inputs[1:4])
    masks = {
        name: int(operation.get_attr(f"{name}_mask"))
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    axes: list[Axis] = []
    remaining = list(source.axes)
    for index in range(len(begin)):
        bit = 1 << index
        if masks["new_axis"] & bit:
            axes.append(Axis("other", 1))
        elif masks["ellipsis"] & bit:
            later = len(begin) - index - 1
            later -= bin(masks["new_axis"] >> (index + 1)).count("1")
            count = len(remaining) - later
            axes += remaining[:count]
            remaining = remaining[count:]
        elif masks["shrink_axis"] & bit:
            remaining.pop(0)
        else:
            axis = remaining.pop(0)
            size = axis.size
            first = 0 if masks["begin"] & bit else begin[index]
            last = None if masks["end"] & bit else end[index]
            if first == 0 and last is None and strides[index] == 1:
                axes.append(axis)
            elif size is None or strides[index] != 1:
                axes.append(Axis(axis.kind, None, None, axis.is_patches))
            else:
                start, stop, _ = slice(first, last).indices(size)
                axes.append(_slice_axis(axis, start, stop))
    result = TensorAxes((*axes, *remaining), source.is_scores)
    return [result._replace(is_scores=source.is_scores and len(result.positions) >= 2)]


def _slice(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    begin, sizes = (_get_constant(tensor).tolist() for tensor in operation.inputs[1:3])
    axes = [
        axis
        if (start, size) in ((0, -1), (0, axis.size))
        else _slice_axis(axis, start, None if size < 0 else start + size)
        for axis, start, size in zip(source.axes, begin, sizes, strict=True)
    ]
    return [source._replace(axes=tuple(axes))]


def _split(operation: Any, inputs: _Inputs) -> _Results:
    is_sized = operation.type == "SplitV"
    source = inputs[0 if is_sized else 1]
    if source is None:
        return [None]
    index = int(_get_constant(operation.inputs[2 if is_sized else 0])) % len(source.axes)
    axis, start = source.axes[index], 0
    results = []
    for output in operation.outputs:
        size = output.shape[index]
        part = axis
        if size is not None and size != axis.size:
            part = _slice_axis(axis, start, start + size)
            start += size
        axes = (*source.axes[:index], part, *source.axes[index + 1 :])
        results.append(source._replace(axes=axes))
    return results


def _concatenate(operation: Any, inputs: _Inputs) -> _Results:
    *tensors, axis_tensor = operation.inputs
    known = [axes for axes in inputs[:-1] if axes is not None]
    rank = len(known[0].axes)
    index = int(_get_constant(axis_tensor)) % rank
    shape = operation.outputs[0].shape.as_list()
    result = _combine(known, shape)
    parts = [None if axes is None else axes.axes[index] for axes in inputs[:-1]]
    sizes: list[int | None] = [
        tensor.shape[index] if part is None else part.size
        for tensor, part in zip(tensors, parts, strict=True)
    ]
    known_sizes = [size for size in sizes if size is not None]
    is_known = len(known_sizes) == len(sizes)
    with_grid = [number for number, part in enumerate(parts) if part is not None and part.grid]
    grid = None
    if len(with_grid) == 1 and is_known:
        number = with_grid[0]
        own = parts[number].grid  # type: ignore[union-attr]
        assert own is not None
        grid = own._replace(
            leading=own.leading + sum(known_sizes[:number]),
            trailing=own.trailing + sum(known_sizes[number + 1 :]),
        )
    is_patches = any(part is not None and part.is_patches for part in parts)
    size = sum(known_sizes) if is_known else None
    kinds = [part.kind for part in parts if part is not None]
    kind = next((kind for kind in kinds if kind != "other"), "other")
    joined = Axis(kind, size, grid, is_patches)
    return [result._replace(axes=(*result.axes[:index], joined, *result.axes[index + 1 :]))]


def _multiply_matrices(operation: Any, inputs: _Inputs) -> _Results:
    first, second = inputs[0], inputs[1]
    names = ("transpose_a", "transpose_b") if operation.type == "MatMul" else ("adj_x", "adj_y")
    first_flag, second_flag = (bool(operation.get_attr(name)) for name in names)
    rank = operation.outputs[0].shape.rank
    batch = [f"b{index}" for index in range(rank - 2)]
    letters = [
        _swap_last([*batch[rank - tensor.shape.rank :], *pair], flag)
        for tensor, pair, flag in zip(
            operation.inputs,
            (("row", "sum"), ("sum", "column")),
            (first_flag, second_flag),
            strict=True,
        )
    ]
    return [_contract((first, second), letters, [*batch, "row", "column"], operation.inputs)]


def _swap_last(letters: list[str], is_swapped: bool) -> list[str]:
    return [*letters[:-2], letters[-1], letters[-2]] if is_swapped else letters


def _sum_products(operation: Any, inputs: _Inputs) -> _Results:
    equation = operation.get_attr("equation").decode().replace(" ", "")
    terms, output = equation.split("->")
    operands = terms.split(",")
    if len(operands) != 2:
        source = inputs[0]
        if len(operands) != 1 or source is None or "." in equation:
            return [None]
        return [source._replace(axes=tuple(source.axes[operands[0].index(x)] for x in output))]
    letters = [
        _expand_ellipsis(term, tensor.shape.rank)
        for term, tensor in zip(operands, operation.inputs, strict=True)
    ]
    rank = operation.outputs[0].shape.rank
    return [_contract(inputs, letters, _expand_ellipsis(output, rank), operation.inputs)]


def _expand_ellipsis(term: str, rank: int) -> list[str]:
    """Return the letters of an operand of an Einsum equation, with names for its ellipsis."""
    if "..." not in term:
        return list(term)
    before, after = term.split("...")
    count = rank - len(before) - len(after)
    return [*before, *(f"b{index - count}" for index in range(count)), *after]


def _contract(
    inputs: _Inputs, letters: Sequence[list[str]], output: list[str], tensors: Sequence[Any]
) -> TensorAxes:
    """Return the axes of a product of two tensors that is summed over common axes.

    Parameters
    ----------
    inputs
        Axes of the two tensors; None for weights.
    letters
        A letter for each axis of the tensors. Axes of the same letter are multiplied.
    output
        The letters of the result.
    tensors
        The two tensors.
    """
    by_letter: dict[str, Axis] = {}
    for axes, own_letters in zip(inputs, letters, strict=True):
        if axes is None:
            continue
        for letter, axis in zip(own_letters, axes.axes, strict=True):
            present = by_letter.get(letter)
            if present is None or present.size == 1 or (axis.grid and not present.grid):
                by_letter[letter] = axis
    summed = [by_letter[letter] for letter in by_letter if letter not in output]
    summed_kinds = {axis.kind for axis in summed}
    new = [letter for letter in output if letter not in by_letter]
    weights = next((index for index, axes in enumerate(inputs) if axes is None), None)
    if weights is not None and new:
        data = 1 - weights
        pairs = zip(letters[data], inputs[data].axes, strict=True)  # type: ignore[union-attr]
        batch = next((letter for letter, axis in pairs if axis.kind == "batch"), "")
        shape = dict(zip(letters[weights], tensors[weights].shape.as_list(), strict=True))
        if shape.get(batch, 1) != 1 or len(letters[weights]) != len(shape):
            kinds = ["position"] * len(new)  # learned queries for every sample
        elif len(new) == 1:
            # A dense layer mixes positions only if positions are all that it sums over.
            is_mixed = len(summed_kinds) == 1 and len(output) > 2
            kinds = [summed[0].kind if is_mixed else "channel"]
        else:
            kinds = [*["head"] * (len(new) - 1), "channel"]
        by_letter |= {
            letter: Axis(kind, shape.get(letter)) for letter, kind in zip(new, kinds, strict=True)
        }
    result = TensorAxes(tuple(by_letter[letter] for letter in output))
    return result._replace(is_scores=_is_scores(result, output, inputs, letters, summed_kinds))


def _is_scores(
    result: TensorAxes,
    output: list[str],
    inputs: _Inputs,
    letters: Sequence[list[str]],
    summed_kinds: set[str],
) -> bool:
    """Return whether a product compares positions with positions, as attention does."""
    positions = {output[index] for index, axis in enumerate(result.axes) if axis.has_positions}
    for axes, own_letters in zip(inputs, letters, strict=True):
        if axes is not None and axes.is_scores:
            own = {
                letter
                for letter, axis in zip(own_letters, axes.axes, strict=True)
                if axis.has_positions
            }
            return own <= positions
    if any(axes is None for axes in inputs) and "position" in summed_kinds:
        return False
    own_positions = [positions.intersection(own_letters) for own_letters in letters]
    is_compared = bool(own_positions[0] - own_positions[1] and own_positions[1] - own_positions[0])
    return is_compared and "position" not in summed_kinds and bool(summed_kinds)


def _reshape(operation: Any, inputs: _Inputs) -> _Results:
    source = inputs[0]
    if source is None:
        return [None]
    output = operation.outputs[0]
    if output.shape.rank is None:
        return [None]
    axes = _reshape_axes(source, output.shape.as_list())
    if axes is None:
        return [None]
    result = TensorAxes(axes, source.is_scores)
    count = sum(axis.has_positions for axis in axes)
    return [result._replace(is_scores=source.is_scores and count >= 2)]


def _reshape_axes(source: TensorAxes, shape: list[int | None]) -> tuple[Axis, ...] | None:
    """Return the axes of a reshaped tensor, by matching lengths from the right and the left.

    None: the lengths cannot be matched.
    """
    pending = [part for axis in source.axes for part in _flatten_parts(axis)]
    is_image = len(source.positions) > 1 and not source.is_scores
    if shape == [None, None] and len(source.axes) > 2:
        # A matrix product of tensors (`tf.tensordot`) sums over the last axis.
        outer = [part for axis in source.axes[:-1] for part in _flatten_parts(axis)]
        return _merge(outer, source), source.axes[-1]
    is_unknown = len(shape) == len(source.axes) - 1 and not any(shape)
    if is_unknown and source.axes[-2].kind == "head":
        # The heads of each token are joined.
        joined = [part for axis in source.axes[-2:] for part in _flatten_parts(axis)]
        return (*source.axes[:-2], _merge(joined, source))
    right: list[Axis] = []
    sizes = list(shape)
    if sizes[0] is None and source.axes[0].size is None and sizes.count(None) == 2:
        sizes[sizes.index(None, 1)] = _find_length(source, pending, sizes)
    while sizes and pending:
        size = sizes[-1]
        last = pending[-1]
        if size is None or last.size is None:
            unknown = sum(axis.size is None for axis in pending)
            if size is None and last.size is None and sizes.count(None) == unknown:
                right.append(_restore(pending.pop(), source))
                sizes.pop()
                continue
            break
        if size == 1 and right and right[-1].kind == "channel" and last.kind == "position":
            right.append(Axis("head", 1))
            sizes.pop()
            continue
        if size == 1 and len(sizes) > 1 and last.kind == "batch":
            right.append(Axis("other", 1))  # an added axis, not the batch of one sample
            sizes.pop()
            continue
        group = _take_group(pending, size, is_image)
        if group is None:
            break
        right.append(_merge(group, source))
        sizes.pop()
    left: list[Axis] = []
    while sizes and pending and sizes[0] == pending[0].size and len(sizes) > 1:
        left.append(_restore(pending.pop(0), source))
        sizes.pop(0)
    if not sizes and pending and right:  # a batch of one sample, which has no axis of its own
        leftmost = [*pending, *_flatten_parts(right.pop())]
        right.append(_merge(leftmost, source))
        pending = []
    if len(sizes) == 1 and pending:
        middle = [_merge(pending, source)]
    elif not pending:
        middle = [Axis("other", size) for size in sizes]
    elif len(sizes) == len(pending):
        middle = [_restore(axis, source) for axis in pending]
    else:
        return None
    axes = _settle_heads([*left, *middle, *reversed(right)])
    if axes and axes[0] == Axis("other", 1):
        axes[0] = Axis("batch", 1)
    if all(axis.kind != "position" for axis in axes):
        # The windows have become samples.
        axes = [axis._replace(kind="position") if axis.kind == "inner" else axis for axis in axes]
    return tuple(axes)


def _find_length(source: TensorAxes, pending: list[Axis], sizes: list[int | None]) -> int | None:
    """Return the second unknown length of a new shape; the first is that of the batch.

    None: it does not follow from the other lengths.
    """
    rest = math.prod(size for size in sizes if size is not None)
    # Samples may have been merged with windows, which stay merged or become separate again.
    for axes in (pending, source.axes):
        known = [axis.size for axis in axes[1:] if axis.size is not None]
        total = math.prod(known)
        if len(known) < len(axes) - 1 or total % rest:
            continue
        length = total // rest
        # A length of 1 means that the first axis is split, as after a product of tensors.
        if length > 1 and (axes is source.axes or length == pending[-1].size):
            return length
    return None


def _restore_axes(parts: list[Axis], source: TensorAxes) -> list[Axis]:
    """Return axes in which the parts of an axis that was merged before are this axis again."""
    parts = list(parts)
    for axis in source.axes:
        own = _flatten_parts(axis)
        starts = range(len(parts) - len(own) + 1) if len(own) > 1 else ()
        start = next((start for start in starts if parts[start : start + len(own)] == own), None)
        if start is not None:
            parts[start : start + len(own)] = [axis]
    return parts


def _flatten_parts(axis: Axis) -> list[Axis]:
    return [part for own in axis.parts for part in _flatten_parts(own)] if axis.parts else [axis]


def _restore(axis: Axis, source: TensorAxes) -> Axis:
    return _merge([axis], source)


def _take_group(pending: list[Axis], size: int, is_image: bool) -> list[Axis] | None:
    """Remove the last axes of which the lengths multiply to `size`; an axis may be split.

    Returns
    -------
    list of Axis or None
        The axes in order. None: there are no such axes; `pending` is unchanged.
    """
    if size == 1 and pending[-1].size != 1:
        return [Axis("other", 1)]
    group: list[Axis] = []
    rest = list(pending)
    product = 1
    while product < size or not group:
        if not rest or rest[-1].size is None or size % product:
            return None
        axis = rest.pop()
        needed = size // product
        length = axis.size
        assert length is not None
        if length > needed:
            if length % needed:
                return None
            outer, inner = _split_axis(axis, length // needed, needed, is_image)
            rest.append(outer)
            axis, length = inner, needed
        elif needed % length:
            return None
        group.insert(0, axis)
        product *= length
    pending[:] = rest
    return group


def _split_axis(axis: Axis, outer: int, inner: int, is_image: bool) -> tuple[Axis, Axis]:
    """Return the two axes into which one is split, such as heads and the channels of each."""
    kind = axis.kind
    if kind == "channel":
        return Axis("head", outer), Axis("channel", inner)
    if kind == "position":
        inner_kind = "inner" if is_image else "position"
        return (
            Axis("position", outer, None, axis.is_patches),
            Axis(inner_kind, inner, None, axis.is_patches),
        )
    return Axis(kind, outer), Axis(kind, inner)


def _merge(parts: list[Axis], source: TensorAxes) -> Axis:
    """Return the axis of merged axes, which knows its parts."""
    own = tuple(parts)
    parts = _restore_axes(parts, source)
    parts = [axis for axis in parts if axis.size != 1 or axis.kind in ("batch", "channel")] or parts
    if len(parts) == 1:
        return parts[0]
    kinds = [axis.kind for axis in parts]
    sizes = [axis.size for axis in parts]
    size = None if None in sizes else math.prod(sizes)  # type: ignore[arg-type]
    for kind in ("batch", "channel", "head"):
        if kind in kinds:
            return Axis(kind, size, parts=own)
    if set(kinds) == {"position", "inner"}:
        return Axis("position", size, parts=own)
    if set(kinds) in ({"position"}, {"inner"}):
        grid = None
        if len(parts) == 2 and None not in sizes:
            grid = TokenGrid(sizes[0], sizes[1])  # type: ignore[arg-type]
        return Axis("position", size, grid, True, own)
    return Axis("other", size, parts=own)


def _settle_heads(axes: list[Axis]) -> list[Axis]:
    """Correct the kind of the axis that counts query, key and value in a joint projection."""
    heads = [index for index, axis in enumerate(axes) if axis.kind == "head" and not axis.parts]
    parts = [index for index in heads if axes[index].size == _PROJECTION_PARTS]
    if len(heads) > 1 and parts:
        axes = list(axes)
        axes[parts[0]] = Axis("other", _PROJECTION_PARTS)
    return axes


_RULES: dict[str, Callable[[Any, _Inputs], _Results]] = {
    "ArgMax": _reduce,
    "AvgPool": _convolve,
    "BatchMatMul": _multiply_matrices,
    "BatchMatMulV2": _multiply_matrices,
    "BatchMatMulV3": _multiply_matrices,
    "BroadcastTo": _repeat,
    "ConcatV2": _concatenate,
    "Conv2D": _convolve,
    "DepthwiseConv2dNative": _convolve,
    "Einsum": _sum_products,
    "ExpandDims": _expand_dims,
    "GatherV2": _gather,
    "MatMul": _multiply_matrices,
    "MaxPool": _convolve,
    "OneHot": _one_hot,
    "Pack": _pack,
    "Reshape": _reshape,
    "ResourceGather": _gather,
    "Slice": _slice,
    "Split": _split,
    "SplitV": _split,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Tile": _repeat,
    "Transpose": _transpose,
    "Unpack": _unpack,
    **dict.fromkeys(_REDUCTIONS, _reduce),
}
