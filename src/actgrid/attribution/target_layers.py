"""Choice of the default layer of class activation maps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from actgrid.attribution.methods import list_layerless_methods
from actgrid.errors import LayerError
from actgrid.models.calls import Call, keeps_positions
from actgrid.models.frameworks import tensorflow

__all__ = [
    "TokenLayerError",
    "collect_ancestors",
    "find_target_calls",
    "find_token_calls",
    "get_output_sides",
    "suggest_token_grid",
]

# Operations that mix channels or neighbouring pixels if one operand is a weight.
_MIXING = frozenset(
    [
        "BatchMatMul",
        "BatchMatMulV2",
        "BatchMatMulV3",
        "Conv2D",
        "Conv2DBackpropInput",
        "Conv3D",
        "Conv3DBackpropInputV2",
        "DepthwiseConv2dNative",
        "Einsum",
        "MatMul",
        "XlaConvV2",
    ]
)
# Loops, as in recurrent layers, and their replacements on GPUs.
_LOOPS = frozenset(["CudnnRNNV3", "StatelessWhile", "While"])
# Operations that compute attention if both operands derive from the input.
_PRODUCTS = frozenset(["BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"])
# Calls of compiled functions, such as the layers of a SavedModel, whose operations are hidden.
_FUNCTIONS = frozenset(["PartitionedCall", "StatefulPartitionedCall"])
_RESIZING = frozenset(
    [
        "ResizeArea",
        "ResizeBicubic",
        "ResizeBilinear",
        "ResizeNearestNeighbor",
        "ScaleAndTranslate",
    ]
)
_REPEATING = frozenset(["BroadcastTo", "DepthToSpace", "Tile"])
# Operations that only move, drop, merge or repeat values.
_MOVING = (
    _RESIZING
    | _REPEATING
    | frozenset(
        [
            "AvgPool",
            "AvgPool3D",
            "ExtractImagePatches",
            "MaxPool",
            "MaxPool3D",
            "MirrorPad",
            "Pad",
            "PadV2",
            "Reshape",
            "Slice",
            "SpaceToDepth",
            "StridedSlice",
            "Transpose",
        ]
    )
)
# Modules of the Keras layers that do the same.
_MOVING_LAYERS = tuple(
    f"keras.src.layers.{folder}." for folder in ("pooling", "preprocessing", "reshaping")
)


class TokenLayerError(LayerError):
    """The model works on tokens, so that no layer with height and width suits."""


class _Derivation(NamedTuple):
    """Record of how a tensor of rank 3 or more is computed from the explained input.

    Attributes
    ----------
    mixing_count
        Number of learned operations that mix channels or positions, at most 2.
    is_enlarged
        Whether feature maps were enlarged between the input and the tensor.
    is_tokens
        Whether every path from an image or volume leads through sequences (N, T, C) or attention.
    has_mixed_tokens
        Whether learned operations mixed such sequences.
    """

    mixing_count: int = 0
    is_enlarged: bool = False
    is_tokens: bool = False
    has_mixed_tokens: bool = False


def find_target_calls(
    calls: Sequence[Call], explained: Any, scores: Any, outputs: Iterable[Any]
) -> list[Call]:
    """Return the layer calls that suit class activation maps, the default call last.

    A call is suitable if its output

    - lies between the explained input and the scores,
    - has as many axes as the input, and corresponds to it in position: tensors of rank 4 or more
      connect the two, for a sequence (N, T, C) tensors of rank 3 or more,
    - comes from learned weights that mix channels or positions, such as those of a convolution,
    - is not only pooled, padded, cropped, resized, permuted or reshaped, and has more than one
      position,
    - and, if the scores are read from an output with spatial axes, comes before the feature maps
      are enlarged, and before the last learned operation.

    Parameters
    ----------
    calls
        The calls of a trace, in order.
    explained, scores
        Symbolic tensors of the trace.
    outputs
        The model's output tensors.

    Raises
    ------
    LayerError
        If no call is suitable.
    """
    flow = _InputFlow(calls, explained)
    score_ancestors = collect_ancestors([scores])
    has_spatial_output = any(
        output.name in score_ancestors and output.shape.rank is not None and output.shape.rank > 2
        and not _is_single(output)
        for output in outputs
    )  # fmt: skip
    before_head = collect_ancestors(
        tensor
        for operation in flow.mixing_operations
        if operation.outputs[0].name in score_ancestors
        for tensor in operation.inputs
        if tensor.name in flow.from_input
    )
    candidates: dict[str, Call] = {}
    for call in calls:
        name = call.tensor.name
        derivation = flow.derivations.get(name)
        if (
            derivation is not None
            and name in score_ancestors
            and derivation.mixing_count
            and not derivation.is_tokens
            and not (has_spatial_output and (derivation.is_enlarged or name not in before_head))
            and len(call.info.shape) == explained.shape.rank
            and call.tensor.dtype.is_floating
            and any(side != 1 for side in get_output_sides(call))
            and not call.node.is_internal
        ):
            candidates.setdefault(name, call)  # a composite returns the tensor of a layer inside it
    suitable = [call for call in candidates.values() if not _only_moves(call)]
    uses_tokens = any(
        name in score_ancestors and derivation.has_mixed_tokens
        for name, derivation in flow.derivations.items()
    )
    if uses_tokens and all(
        flow.derivations[call.tensor.name].mixing_count < 2 for call in suitable
    ):
        embedding = (
            f", or layer={suitable[-1].info.path!r}, the patch embedding" if suitable else ""
        )
        raise TokenLayerError(
            "the model works on tokens: pass token_grid=(h, w), the number of patches in height "
            f"and width, to use its last layer of tokens{embedding}; or use a method that needs no "
            f"layer: {list_layerless_methods()}"
        )
    if not suitable:
        requirement = (
            "before its last trained operation and before the first upsampling"
            if has_spatial_output
            else "after a trained operation such as a convolution"
        )
        raise LayerError(
            "the model has no layer with a spatial output that corresponds to the input "
            f"{requirement}: choose a layer, or use a method that needs no layer: "
            f"{list_layerless_methods()}"
        )
    return suitable


def find_token_calls(calls: Sequence[Call], scores: Any, tokens: int | None = None) -> list[Call]:
    """Return the layer calls whose output is (N, T, C) with T >= `tokens`.

    Without `tokens`, they are the calls whose grid of tokens is known. Calls are in the order of
    execution. Calls on which the scores do not depend are left out.

    Raises
    ------
    LayerError
        If there is no such call.
    """
    score_ancestors = collect_ancestors([scores])
    sequences: dict[str, Call] = {}
    for call in calls:
        if (
            call.tensor.name in score_ancestors
            and call.info.is_spatial
            and call.info.kind == "sequence"
            and call.tensor.dtype.is_floating
            and not call.node.is_internal
        ):
            sequences.setdefault(call.tensor.name, call)
    counts = {name: call.info.shape[1] for name, call in sequences.items()}
    suitable = [
        call
        for name, call in sequences.items()
        if (
            call.info.token_grid is not None
            if tokens is None
            else (count := counts[name]) is None or count >= tokens
        )
    ]
    if not suitable:
        largest = max((count for count in counts.values() if count is not None), default=0)
        hint = f": it has at most {largest}{suggest_token_grid(largest)};" if largest else ":"
        raise LayerError(
            f"the model has no layer of {tokens or 1} or more tokens, (N, T, C){hint} leave "
            f"token_grid out, or use a method that needs no layer: {list_layerless_methods()}"
        )
    return suitable


def suggest_token_grid(tokens: int) -> str:
    """Return advice for an error message: the largest square grid of the tokens."""
    side = math.isqrt(tokens)
    return f", which fill token_grid=({side}, {side})" if side > 1 else ""


def get_output_sides(call: Call) -> tuple[int | None, ...]:
    """Return the lengths of the axes between batch and channels, such as (height, width)."""
    shape = call.info.shape
    return shape[2:] if call.info.data_format == "channels_first" else shape[1:3]


class _InputFlow:
    """Tensors and operations of a traced graph that derive from the explained input.

    Attributes
    ----------
    from_input
        Names of all tensors that derive from the input.
    mixing_operations
        Operations that mix such tensors by learned weights.
    derivations
        Derivation of each tensor that is connected to the input by tensors of rank 3 or more, by
        the tensor's name.
    """

    def __init__(self, calls: Sequence[Call], explained: Any) -> None:
        self.from_input = {explained.name}
        self.mixing_operations: list[Any] = []
        self.derivations = {explained.name: _Derivation()}
        self._rank = explained.shape.rank
        # A layer connects its input and output whatever operations it has inside: a dense layer
        # reshapes for its matrix product, and a recurrent layer has a loop.
        leaves = {call.tensor.name: call for call in calls if keeps_positions(call)}
        learned: set[str] = set()
        for operation in explained.graph.get_operations():
            inputs = [tensor.name for tensor in operation.inputs]
            outputs = list(operation.outputs)
            if self.from_input.isdisjoint(inputs):
                if operation.type == "ReadVariableOp" or not learned.isdisjoint(inputs):
                    learned.update(tensor.name for tensor in outputs)
                continue
            self.from_input.update(tensor.name for tensor in outputs)
            mixes = _mixes(operation, learned)
            if mixes:
                self.mixing_operations.append(operation)
            attends = operation.type in _PRODUCTS and self.from_input.issuperset(inputs)
            for output in outputs:
                call = leaves.get(output.name)
                derivation = self._derive(operation.inputs, output, mixes, _enlarges(operation))
                if derivation is not None and attends and self._rank > 3:
                    derivation = derivation._replace(is_tokens=True)
                if call is not None:
                    derivation = derivation or self._derive_from_layer(call)
                    derivation = derivation and derivation._replace(
                        is_enlarged=derivation.is_enlarged
                        or (derivation.mixing_count > 0 and self._doubles(call))
                    )
                if derivation is not None:
                    self.derivations.setdefault(output.name, derivation)

    def _derive(self, inputs: Any, output: Any, mixes: bool, enlarges: bool) -> _Derivation | None:
        """Return a `_Derivation` of an operation's output.

        It records how many operations with learned weights lie between the input and the output,
        and whether the output is enlarged or a sequence of tokens.

        None: the output does not depend on the input or has no spatial axes.
        """
        input_derivations = [
            self.derivations[tensor.name] for tensor in inputs if tensor.name in self.derivations
        ]
        rank = output.shape.rank
        if not input_derivations or rank is None or rank < 3 or _is_single(output):
            return None
        # The positions of a sequence are no tokens: they correspond to those of the input.
        is_tokens = self._rank > 3 and (
            rank == 3 or all(derivation.is_tokens for derivation in input_derivations)
        )
        mixing_count = max(derivation.mixing_count for derivation in input_derivations)
        return _Derivation(
            min(mixing_count + mixes, 2),
            any(derivation.is_enlarged for derivation in input_derivations)
            or (enlarges and mixing_count > 0),
            is_tokens,
            any(
                derivation.has_mixed_tokens or (derivation.is_tokens and mixes and rank == 3)
                for derivation in input_derivations
            ),
        )

    def _derive_from_layer(self, call: Call) -> _Derivation | None:
        """Return a `_Derivation` of a layer's output: how it is computed from the input.

        None: the output does not depend on the input or has no spatial axes.
        """
        inputs = _flatten_tensors(call.inputs)
        inside = collect_ancestors([call.tensor], {tensor.name for tensor in inputs})
        mixes = any(
            output.name in inside
            for operation in self.mixing_operations
            for output in operation.outputs
        )
        return self._derive(inputs, call.tensor, mixes, enlarges=False)

    def _doubles(self, call: Call) -> bool:
        """Return whether a layer at least doubles the length of an axis of its input."""
        channels_first = call.info.data_format == "channels_first"
        axes = slice(2, None) if channels_first else slice(1, -1)
        return any(
            before is not None and after is not None and after >= 2 * before
            for tensor in _flatten_tensors(call.inputs)
            if tensor.shape.rank == call.tensor.shape.rank == self._rank
            for before, after in zip(tensor.shape[axes], call.tensor.shape[axes], strict=True)
        )


def _flatten_tensors(inputs: Any) -> list[Any]:
    tf = tensorflow()
    return list(filter(tf.is_symbolic_tensor, tf.nest.flatten(inputs)))


def _mixes(operation: Any, learned: set[str]) -> bool:
    """Return whether an operation mixes channels or positions by learned weights."""
    if operation.type in _FUNCTIONS | _LOOPS and any(
        tensor.dtype == tensorflow().resource for tensor in operation.inputs
    ):
        return True
    return operation.type in _MIXING | _LOOPS and any(
        tensor.name in learned for tensor in operation.inputs
    )


def _enlarges(operation: Any) -> bool:
    """Return whether an operation enlarges feature maps."""
    if operation.type in ("Conv2DBackpropInput", "Conv3DBackpropInputV2"):
        return bool(max(operation.get_attr("strides")) > 1)
    if operation.type in _RESIZING:
        sides = zip(operation.inputs[0].shape[1:3], operation.outputs[0].shape[1:3], strict=True)
        return any(before is None or after is None or before < after for before, after in sides)
    return operation.type in _REPEATING


def _is_single(tensor: Any) -> bool:
    """Return whether a tensor of rank 4 has height 1 and width 1, in any data format."""
    shape = list(tensor.shape)
    return len(shape) == 4 and [1, 1] in (shape[1:3], shape[2:])


def _only_moves(call: Call) -> bool:
    """Return whether a layer without weights only moves, merges or repeats values."""
    if call.info.parameters:
        return False
    operation = call.tensor.op
    # Layers of sequences compute with an additional axis.
    while operation.type in ("Cast", "ExpandDims", "Identity", "Squeeze"):
        operation = operation.inputs[0].op
    module = type(call.node.layer).__module__
    return operation.type in _MOVING or module.startswith(_MOVING_LAYERS)


def collect_ancestors(tensors: Iterable[Any], stop: Iterable[str] = ()) -> set[str]:
    """Return the names of tensors and of all tensors from which they are computed.

    Parameters
    ----------
    stop
        Names of tensors at which the search ends. These names, and names of tensors that are
        reached only through them, are not returned.

    Returns
    -------
    set of str
        Names of symbolic tensors.
    """
    visited = set(stop)
    start = len(visited)
    pending = list(tensors)
    while pending:
        tensor = pending.pop()
        if tensor.name not in visited:
            visited.add(tensor.name)
            pending += tensor.op.inputs
    return visited.difference(stop) if start else visited
