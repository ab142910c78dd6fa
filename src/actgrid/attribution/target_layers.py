"""The layer that class activation maps use if none is named."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from actgrid.attribution.methods import layerless_methods
from actgrid.errors import LayerError
from actgrid.models.calls import Call
from actgrid.models.frameworks import tensorflow

__all__ = [
    "ancestors",
    "grid_advice",
    "sides_of",
    "target_calls",
    "token_calls",
]

# Operations that mix channels or neighbouring pixels, by an operand of weights.
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
# Operations that attend: products of two tensors that both derive from the image.
_PRODUCTS = frozenset(["BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"])
# Compiled functions, such as the layers of a SavedModel, hide their operations.
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
# Operations that only move, leave out, merge or repeat values.
_MOVING = (
    _RESIZING
    | _REPEATING
    | frozenset(
        [
            "AvgPool",
            "ExtractImagePatches",
            "MaxPool",
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
# Where Keras has its layers that do the same.
_MOVING_LAYERS = tuple(
    f"keras.src.layers.{folder}." for folder in ("pooling", "preprocessing", "reshaping")
)


class _Place(NamedTuple):
    """How a tensor of rank 3 or more derives from the image.

    `mixings` counts the learned operations that mix, up to 2. `enlarged` tells whether feature
    maps were enlarged on the way. `tokens` tells whether all ways lead through sequences
    (N, T, C) or attention, and `mixed_tokens` whether such sequences were mixed.
    """

    mixings: int = 0
    enlarged: bool = False
    tokens: bool = False
    mixed_tokens: bool = False


def target_calls(
    calls: Sequence[Call], image: Any, scores: Any, outputs: Iterable[Any]
) -> list[Call]:
    """Return the calls that class activation maps can use by themselves, the best one last.

    A call fits if its output

    - lies between the image and the scores,
    - corresponds in space with the image: tensors of rank 4 or more connect the two,
    - comes from learned weights that mix channels or pixels, as those of a convolution do,
    - is not only pooled, padded, cropped, resized, permuted or reshaped, and not 1 x 1,
    - and, if the scores are read from an output with spatial axes, comes before the feature maps
      are enlarged, and before the last learned operation.

    Parameters
    ----------
    calls
        Of a trace, in their order.
    image, scores
        Symbolic tensors of that trace.
    outputs
        The model's output tensors.

    Raises
    ------
    LayerError
        If no call fits.
    """
    flow = _Flow(calls, image)
    way = ancestors([scores])
    spatial_output = any(
        output.name in way and output.shape.rank is not None and output.shape.rank > 2
        and not _is_single(output)
        for output in outputs
    )  # fmt: skip
    before_head = ancestors(
        tensor
        for operation in flow.mixing
        if operation.outputs[0].name in way
        for tensor in operation.inputs
        if tensor.name in flow.from_image
    )
    fitting: dict[str, Call] = {}
    for call in calls:
        name = call.tensor.name
        place = flow.places.get(name)
        if (
            place is not None
            and name in way
            and place.mixings
            and not place.tokens
            and not (spatial_output and (place.enlarged or name not in before_head))
            and call.info.spatial
            and call.info.kind == "image"
            and call.tensor.dtype.is_floating
            and sides_of(call) != (1, 1)
            and not call.node.internal
        ):
            fitting.setdefault(name, call)  # a composite returns the tensor of a layer inside it
    found = [call for call in fitting.values() if not _only_moves(call)]
    of_tokens = any(name in way and place.mixed_tokens for name, place in flow.places.items())
    if of_tokens and all(flow.places[call.tensor.name].mixings < 2 for call in found):
        named = f", or layer={found[-1].info.path!r}, the patch embedding" if found else ""
        raise LayerError(
            "the model works on tokens: give token_grid=(h, w), the number of patches down and "
            f"across, for its last layer of tokens{named}; or take a method that needs no layer: "
            f"{layerless_methods()}"
        )
    if not found:
        reason = (
            "before its last learned operation and before it enlarges feature maps"
            if spatial_output
            else "after a learned operation such as a convolution"
        )
        raise LayerError(
            "the model has no layer with a spatial output that corresponds to the image "
            f"{reason}: name a layer, or take a method that needs no layer: {layerless_methods()}"
        )
    return found


def token_calls(calls: Sequence[Call], scores: Any, tokens: int) -> list[Call]:
    """Return the calls that give at least `tokens` tokens (N, T, C) that lead to the scores.

    Raises
    ------
    LayerError
        If no call does.
    """
    way = ancestors([scores])
    sequences: dict[str, Call] = {}
    for call in calls:
        if (
            call.tensor.name in way
            and call.info.spatial
            and call.info.kind == "sequence"
            and call.tensor.dtype.is_floating
            and not call.node.internal
        ):
            sequences.setdefault(call.tensor.name, call)
    counts = {name: call.info.shape[1] for name, call in sequences.items()}
    fitting = [
        call
        for name, call in sequences.items()
        if (count := counts[name]) is None or count >= tokens
    ]
    if not fitting:
        largest = max((count for count in counts.values() if count is not None), default=0)
        found = f": it has at most {largest}{grid_advice(largest)};" if largest else ":"
        raise LayerError(
            f"the model has no layer of {tokens} or more tokens, (N, T, C){found} leave token_grid "
            f"out, or take a method that needs no layer: {layerless_methods()}"
        )
    return fitting


def grid_advice(tokens: int) -> str:
    """Return the square grid that some tokens fill, after class tokens, as advice."""
    side = math.isqrt(tokens)
    return f", which fill token_grid=({side}, {side})" if side > 1 else ""


def sides_of(call: Call) -> tuple[int | None, ...]:
    """Return height and width of the output of a call."""
    shape = call.info.shape
    return shape[2:] if call.info.data_format == "channels_first" else shape[1:3]


class _Flow:
    """What becomes of the image in the graph that is being traced.

    Attributes
    ----------
    from_image
        Names of all tensors that derive from the image.
    mixing
        Operations that mix such tensors by weights.
    places
        Of the tensors of rank 3 or more that such tensors connect with the image, by their names.
    """

    def __init__(self, calls: Sequence[Call], image: Any) -> None:
        self.from_image = {image.name}
        self.mixing: list[Any] = []
        self.places = {image.name: _Place()}
        # A layer connects its input and output whatever it does inside: a dense layer multiplies
        # matrices, and a group normalization reshapes.
        leaves = {call.tensor.name: call for call in calls if not call.node.composite}
        learned: set[str] = set()
        for operation in image.graph.get_operations():
            inputs = [tensor.name for tensor in operation.inputs]
            outputs = list(operation.outputs)
            if self.from_image.isdisjoint(inputs):
                if operation.type == "ReadVariableOp" or not learned.isdisjoint(inputs):
                    learned.update(tensor.name for tensor in outputs)
                continue
            self.from_image.update(tensor.name for tensor in outputs)
            mixes = _mixes(operation, learned)
            if mixes:
                self.mixing.append(operation)
            attends = operation.type in _PRODUCTS and self.from_image.issuperset(inputs)
            for output in outputs:
                call = leaves.get(output.name)
                place = self._place(operation.inputs, output, mixes, _enlarges(operation))
                if place is not None and attends:
                    place = place._replace(tokens=True)
                if call is not None:
                    place = place or self._of_layer(call)
                    place = place and place._replace(
                        enlarged=place.enlarged or (place.mixings > 0 and self._doubles(call))
                    )
                if place is not None:
                    self.places.setdefault(output.name, place)

    def _place(self, inputs: Any, output: Any, mixes: bool, enlarges: bool) -> _Place | None:
        known = [self.places[tensor.name] for tensor in inputs if tensor.name in self.places]
        rank = output.shape.rank
        if not known or rank is None or rank < 3 or _is_single(output):
            return None
        tokens = rank == 3 or all(place.tokens for place in known)
        mixings = max(place.mixings for place in known)
        return _Place(
            min(mixings + mixes, 2),
            any(place.enlarged for place in known) or (enlarges and mixings > 0),
            tokens,
            any(place.mixed_tokens or (place.tokens and mixes and rank == 3) for place in known),
        )

    def _of_layer(self, call: Call) -> _Place | None:
        inputs = _tensors(call.inputs)
        inside = ancestors([call.tensor], {tensor.name for tensor in inputs})
        mixes = any(operation.outputs[0].name in inside for operation in self.mixing)
        return self._place(inputs, call.tensor, mixes, enlarges=False)

    @staticmethod
    def _doubles(call: Call) -> bool:
        """Return whether a layer makes its input at least twice as high or wide."""
        first = call.info.data_format == "channels_first"
        axes = slice(2, 4) if first else slice(1, 3)
        return any(
            before is not None and after is not None and after >= 2 * before
            for tensor in _tensors(call.inputs)
            if tensor.shape.rank == call.tensor.shape.rank == 4
            for before, after in zip(tensor.shape[axes], call.tensor.shape[axes], strict=True)
        )


def _tensors(inputs: Any) -> list[Any]:
    tf = tensorflow()
    return [value for value in tf.nest.flatten(inputs) if isinstance(value, tf.Tensor)]


def _mixes(operation: Any, learned: set[str]) -> bool:
    """Return whether an operation mixes channels or pixels by learned weights."""
    if operation.type in _FUNCTIONS:
        return any(tensor.dtype == tensorflow().resource for tensor in operation.inputs)
    return operation.type in _MIXING and any(tensor.name in learned for tensor in operation.inputs)


def _enlarges(operation: Any) -> bool:
    """Return whether an operation makes pictures larger."""
    if operation.type == "Conv2DBackpropInput":
        return bool(max(operation.get_attr("strides")) > 1)
    if operation.type in _RESIZING:
        sides = zip(operation.inputs[0].shape[1:3], operation.outputs[0].shape[1:3], strict=True)
        return any(before is None or after is None or before < after for before, after in sides)
    return operation.type in _REPEATING


def _is_single(tensor: Any) -> bool:
    """Return whether a tensor has one position only, with channels last or first."""
    shape = list(tensor.shape)
    return len(shape) == 4 and [1, 1] in (shape[1:3], shape[2:])


def _only_moves(call: Call) -> bool:
    """Return whether a layer only moves, merges or repeats the values of its input."""
    if call.info.parameters:
        return False
    operation = call.tensor.op
    while operation.type in ("Cast", "Identity"):
        operation = operation.inputs[0].op
    module = type(call.node.layer).__module__
    return operation.type in _MOVING or module.startswith(_MOVING_LAYERS)


def ancestors(tensors: Iterable[Any], stop: Iterable[str] = ()) -> set[str]:
    """Return the names of tensors and of all that they derive from, up to those of `stop`."""
    found = set(stop)
    start = len(found)
    waiting = list(tensors)
    while waiting:
        tensor = waiting.pop()
        if tensor.name not in found:
            found.add(tensor.name)
            waiting += tensor.op.inputs
    return found.difference(stop) if start else found
