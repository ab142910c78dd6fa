"""Find the layers in the graph of an exported model from the names of its operations.

Exports keep the name scopes of the program that built the model: the operations
``net_1/conv_1/convolution`` and ``net_1/conv_1/BiasAdd`` are one layer, ``conv``.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

__all__ = [
    "GraphLayer",
    "GraphTensor",
    "OutputLogits",
    "find_layers",
    "find_output_layer",
    "find_output_logits",
    "list_layer_edges",
]

# The names of the scopes around an operation, from outside to inside.
_Scope = tuple[str, ...]

# Operations with trained weights, by the name of the type in lower case without underscores.
_KERNELS = frozenset(
    [
        *("batchmatmul", "batchmatmulv2", "batchmatmulv3", "conv", "conv1d", "conv2d"),
        *("conv2dbackpropinput", "conv3d", "conv3dbackpropinputv2", "convinteger"),
        *("convtranspose", "depthwiseconv2d", "depthwiseconv2dnative", "einsum", "fullyconnected"),
        *("gemm", "gru", "lstm", "matmul", "matmulinteger", "qlinearconv", "qlinearmatmul", "rnn"),
        "transposeconv",
    ]
)
# Operations that do not change the real values of a tensor.
_COPYING = frozenset(
    [
        *("cast", "checknumerics", "dequantize", "dequantizelinear", "ensureshape", "identity"),
        *("identityn", "preventgradient", "quantize", "quantizelinear", "stopgradient"),
    ]
)
_RECURRENT = frozenset(["gru", "lstm", "rnn"])
# Operations that are listed only as a part of a layer.
_PLUMBING = _COPYING | frozenset(
    [
        *("broadcastto", "constantofshape", "expand", "expanddims", "fill", "oneslike", "pack"),
        *("range", "shape", "size", "slice", "squeeze", "stridedslice", "tensorliststack"),
        *("tile", "transpose", "unsqueeze", "zeroslike"),
    ]
)
# Operations that end a layer, if they take tensors of this layer alone.
_ENDINGS = _COPYING | frozenset(
    [
        *("add", "biasadd", "elu", "gelu", "hardswish", "l2normalization", "leakyrelu", "logistic"),
        *("logsoftmax", "mul", "relu", "relu6", "relun1to1", "reshape", "sigmoid", "softmax"),
        *("squeeze", "tanh", "transpose"),
    ]
)
# Activations that compute probabilities, or their logarithms, from logits.
_PROBABILITIES = {
    "logistic": "sigmoid",
    "logsoftmax": "log_softmax",
    "qlinearsigmoid": "sigmoid",
    "qlinearsoftmax": "softmax",
    "sigmoid": "sigmoid",
    "softmax": "softmax",
}
# Scopes that Keras and TensorFlow open inside a layer.
_INNER_SCOPES = frozenset(["Tensordot", "batchnorm", "dropout", "einsum", "moments", "normalize"])
_NUMBER = re.compile(r"_\d+$")
# Names that converters give to tensors, instead of names of the program that built the model.
_GENERATED = re.compile(r"(Stateful)?PartitionedCall(_\d+)*|Identity(_\d+)*|\w+?__\d+|\d*")
# Ends the names that tf2onnx gives to operations it replaces: MatMul__83.
_REPLACED = re.compile(r"\w+__\d+(:\d+)?")
_OUTPUT_NUMBER = re.compile(r":\d+$")


class GraphTensor(NamedTuple):
    """Record of a tensor that an operation of a graph computes.

    Attributes
    ----------
    names
        Names of the operation and the tensor, the best first. A name that TFLite joined from those
        of fused operations (``relu/Relu;conv/Conv2D``) starts with the last operation.
    type
        Type of the operation, such as ``"Conv2D"``.
    inputs
        Positions of the tensors that the operation takes; -1 - i for input i of the graph.
        Constants are left out.
    constants
        Constants and variables that the operation takes, in order: name -> number of trained
        values, 0 for constants such as axes.
    is_output
        Whether the graph returns the tensor.
    is_hidden
        Whether the tensor is never the output of a layer, such as a shape.
    output_name
        Name of the output in the signature, for a tensor with a generated name in no layer.
    softmax_axis
        Axis over which a softmax is computed.
    """

    names: tuple[str, ...]
    type: str
    inputs: tuple[int, ...]
    constants: Mapping[str, int] = {}
    is_output: bool = False
    is_hidden: bool = False
    output_name: str = ""
    softmax_axis: int = -1


class GraphLayer(NamedTuple):
    """Record of a layer that was found in a graph.

    Attributes
    ----------
    path
        Layer path.
    type
        Type of the operation that has the weights, or else of the last operation.
    position
        Position of the tensor that the layer returns.
    sources
        Positions, in the list of layers, of the layers whose outputs the layer takes; -1 - i for
        input i of the graph.
    parameters
        Number of trained values that the layer uses.
    """

    path: str
    type: str
    position: int
    sources: tuple[int, ...]
    parameters: int


class OutputLogits(NamedTuple):
    """Record of the logits of an output that is their softmax or sigmoid.

    Attributes
    ----------
    path
        Path of the layer that returns the logits, or else a path of its own.
    position
        Position of the tensor.
    activation
        ``"softmax"``, ``"log_softmax"`` or ``"sigmoid"``.
    axis
        Axis over which a softmax is computed.
    """

    path: str
    position: int
    activation: str
    axis: int


def find_layers(tensors: Sequence[GraphTensor]) -> list[GraphLayer]:
    """Group the operations of a graph into layers by their name scopes.

    A scope without scopes inside is a layer. Its outputs are the tensors that operations outside
    the scope take; the last output has the path of the scope. Operations outside of such scopes are
    layers themselves, except those that only copy, move or repeat values. If an operation computes
    the output of a scope with scopes inside, the output has the path of that scope.

    In exports of Keras 3, layers have the paths that `actgrid.list_layers` returns for the Keras
    model. Tensors that do not depend on an input of the graph, or that no output depends on, are
    no layers.

    Parameters
    ----------
    tensors
        The computed tensors in the order of execution.

    Returns
    -------
    list of GraphLayer
        The layers in the order of execution. Every output of the graph that depends on an input is
        the output of a layer, or a copy of it; see `find_output_layer`.
    """
    tensors = _mark_copied_outputs(tensors)
    derived: set[int] = set()
    for position, tensor in enumerate(tensors):
        if any(source < 0 or source in derived for source in tensor.inputs):
            derived.add(position)
    positions = sorted(derived & _find_needed(tensors))
    scopes = _find_scopes(tensors, positions)
    is_keras_3 = _uses_keras_3_scopes(scopes.values())
    keys = _shorten_scopes(scopes, is_keras_3)
    groups: dict[_Scope, list[int]] = defaultdict(list)
    for position in positions:
        groups[keys[position]].append(position)
    parents = {key[:length] for key in groups for length in range(len(key))} | {()}
    consumers: dict[int, set[int]] = defaultdict(set)
    for position in positions:
        for source in tensors[position].inputs:
            consumers[source].add(position)

    paths: dict[int, tuple[str, str]] = {}  # position -> (path, type)
    for key, members in groups.items():
        visible = [
            position for position in members if _is_visible(tensors, position, consumers[position])
        ]
        if not visible:
            continue
        kernels = [position for position in members if _is_among(tensors[position], _KERNELS)]
        prefix = [_NUMBER.sub("", name) for name in key] if is_keras_3 else list(key)
        if key in parents or (len(kernels) > 1 and not is_keras_3):
            is_block = key in parents and key
            last = _find_last_output(tensors, keys, consumers, key) if is_block else None
            paths |= _name_operations(tensors, visible, prefix, last)
        else:
            own = set(members)
            outputs = [
                position
                for position in visible
                if tensors[position].is_output or not consumers[position] <= own
            ]
            paths |= _name_outputs(tensors, outputs or visible[-1:], prefix, kernels)
    return _number_layers(tensors, paths)


def find_output_layer(
    tensors: Sequence[GraphTensor], layers: Sequence[GraphLayer], position: int
) -> int | None:
    """Return the number of the layer that computes an output of a graph.

    The output may be a copy of what the layer returns, for example dequantized.

    Parameters
    ----------
    position
        Position of the output in `tensors`.

    Returns
    -------
    int or None
        None: the output does not depend on an input of the graph.
    """
    source = _find_copied_tensor(tensors, position)
    numbers = (number for number, layer in enumerate(layers) if layer.position == source)
    return next(numbers, None)


def find_output_logits(
    tensors: Sequence[GraphTensor], layers: Sequence[GraphLayer], outputs: Iterable[int]
) -> Iterator[tuple[str, OutputLogits]]:
    """Yield the logits of each output that is a softmax or sigmoid.

    Parameters
    ----------
    outputs
        Numbers of the layers that the graph returns.

    Yields
    ------
    tuple
        Path of the output, and its logits.
    """
    paths = {layer.position: layer.path for layer in layers}
    for path, _, position, *_ in (layers[number] for number in outputs):
        activation = _PROBABILITIES.get(_simplify_type(tensors[position]))
        if activation is not None and (source := tensors[position].inputs[0]) >= 0:
            # The tensor before a softmax is usually not the output of a layer.
            logits_path = paths.get(source, f"{path}/logits")
            axis = tensors[position].softmax_axis
            yield path, OutputLogits(logits_path, source, activation, axis)


def list_layer_edges(layers: Sequence[GraphLayer], inputs: Sequence[str]) -> list[tuple[str, str]]:
    """List which layers take which inputs and layer outputs.

    Parameters
    ----------
    inputs
        Names of the inputs of the graph.

    Returns
    -------
    list of tuple of str
        (name of an input, or path of a layer; path of a layer that takes it).
    """
    return [
        (inputs[-1 - source] if source < 0 else layers[source].path, layer.path)
        for layer in layers
        for source in layer.sources
    ]


def _is_visible(tensors: Sequence[GraphTensor], position: int, consumers: Collection[int]) -> bool:
    """Return whether a tensor may be the output of a layer."""
    tensor = tensors[position]
    return tensor.is_output or (
        bool(consumers)
        and not tensor.is_hidden
        and not _prepares_recurrence(tensors, position, consumers)
    )


def _name_operations(
    tensors: Sequence[GraphTensor], positions: Iterable[int], prefix: list[str], last: int | None
) -> dict[int, tuple[str, str]]:
    """Return the path and type of each operation of a scope whose operations are layers.

    Parameters
    ----------
    last
        Position of the tensor that has the path of the scope.
    """
    named = [(position, tensors[position]) for position in positions]
    return {
        position: (
            "/".join(prefix if position == last else [*prefix, _get_own_name(tensor)]),
            tensor.type,
        )
        for position, tensor in named
        if position == last or tensor.is_output or not _is_among(tensor, _PLUMBING)
    }


def _name_outputs(
    tensors: Sequence[GraphTensor], outputs: list[int], prefix: list[str], kernels: list[int]
) -> dict[int, tuple[str, str]]:
    """Return the path and type of each output of a scope that is a layer.

    Parameters
    ----------
    kernels
        Positions of the operations of the layer that have weights.
    """
    # A layer that runs several times in one scope, as in PyTorch, is one type of operation.
    is_repeated = len({tensors[position].type for position in outputs}) == 1
    paths: dict[int, tuple[str, str]] = {}
    for position in outputs:
        if is_repeated or position == outputs[-1]:
            paths[position] = "/".join(prefix), tensors[[*kernels, position][0]].type
        else:
            own_name = _get_own_name(tensors[position])
            paths[position] = "/".join([*prefix, own_name]), tensors[position].type
    return paths


def _mark_copied_outputs(tensors: Sequence[GraphTensor]) -> list[GraphTensor]:
    """Mark the tensors as outputs whose copies the graph returns, instead of the copies."""
    outputs = {
        _find_copied_tensor(tensors, position)
        for position, tensor in enumerate(tensors)
        if tensor.is_output
    }
    return [
        tensor._replace(is_output=position in outputs) for position, tensor in enumerate(tensors)
    ]


def _find_needed(tensors: Sequence[GraphTensor]) -> set[int]:
    """Return the positions of the tensors from which the outputs are computed."""
    needed: set[int] = set()
    pending = [position for position, tensor in enumerate(tensors) if tensor.is_output]
    while pending:
        position = pending.pop()
        if position >= 0 and position not in needed:
            needed.add(position)
            pending += tensors[position].inputs
    return needed


def _find_copied_tensor(tensors: Sequence[GraphTensor], position: int) -> int:
    while _is_among(tensors[position], _COPYING) and len(tensors[position].inputs) == 1:
        (source,) = tensors[position].inputs
        if source < 0:
            break
        position = source
    return position


def _find_last_output(
    tensors: Sequence[GraphTensor],
    keys: Mapping[int, _Scope],
    consumers: Mapping[int, set[int]],
    scope: _Scope,
) -> int | None:
    """Return the position of the last tensor that leaves a scope and the scopes inside it."""

    def is_inside(position: int) -> bool:
        return keys[position][: len(scope)] == scope

    positions = (
        position
        for position in sorted(keys, reverse=True)
        if is_inside(position)
        and not tensors[position].is_hidden
        and (tensors[position].is_output or not all(map(is_inside, consumers[position])))
    )
    return next(positions, None)


def _number_layers(
    tensors: Sequence[GraphTensor], paths: dict[int, tuple[str, str]]
) -> list[GraphLayer]:
    """Make the paths of layers unique, and find the sources of each layer."""
    layers: list[GraphLayer] = []
    counts: Counter[str] = Counter()
    numbers: dict[int, int] = {}
    for position in sorted(paths):
        path, layer_type = paths[position]
        count = counts[path]
        counts[path] += 1
        sources, parameters = _find_sources(tensors, position, numbers)
        numbers[position] = len(layers)
        unique_path = f"{path}:{count}" if count else path
        layers.append(GraphLayer(unique_path, layer_type, position, sources, parameters))
    return layers


def _find_sources(
    tensors: Sequence[GraphTensor], position: int, numbers: dict[int, int]
) -> tuple[tuple[int, ...], int]:
    """Return what the tensor at a position is computed from.

    Returns
    -------
    tuple
        The layers, by number, and inputs on which the tensor depends directly; and the number of
        trained values that the operations in between take.
    """
    sources: dict[int, None] = {}
    constants: dict[str, int] = {}
    visited: set[int] = set()
    pending = [position]
    while pending:
        tensor = tensors[pending.pop()]
        constants.update(tensor.constants)
        for source in tensor.inputs:
            if source < 0 or source in numbers:
                sources[numbers.get(source, source)] = None
            elif source not in visited:
                visited.add(source)
                pending.append(source)
    return tuple(sources), sum(constants.values())


def _prepares_recurrence(
    tensors: Sequence[GraphTensor], position: int, consumers: Collection[int]
) -> bool:
    """Return whether a tensor is a transposition that only feeds a recurrent operation."""
    takers = [tensors[consumer] for consumer in consumers if not tensors[consumer].is_hidden]
    return (
        tensors[position].type.lower() == "transpose"
        and len(takers) > 0
        and all(_is_among(taker, _RECURRENT) for taker in takers)
    )


def _find_scopes(tensors: Sequence[GraphTensor], positions: Iterable[int]) -> dict[int, _Scope]:
    """Return the scope of each tensor. It is empty for an operation outside of all scopes."""
    scopes: dict[int, _Scope] = {}
    operations = {_split_name(name) for tensor in tensors for name in tensor.names}
    for position in positions:
        tensor = tensors[position]
        names = [_split_name(name) for name in tensor.names]
        own_scope = next((name[:-1] for name in names if len(name) > 1), None)
        # The operations that an operation needs, such as a shape, may have its name as a scope.
        while own_scope in operations:
            own_scope = own_scope[:-1]
        if own_scope is None and all(_is_generated(tensor, name) for name in tensor.names):
            # The last constant is the bias, or the offset of a fused batch normalization.
            constant_scopes = map(_read_constant_scope, reversed(list(tensor.constants)))
            own_scope = next(filter(None, constant_scopes), None)
            if own_scope is None and tensor.is_output and _is_among(tensor, _ENDINGS):
                # The converter has removed the name, of a layer's activation for example.
                sources = {scopes.get(source) for source in tensor.inputs}
                own_scope = sources.pop() if len(sources) == 1 else None
        scopes[position] = own_scope or ()
    _fold_replaced(tensors, scopes)
    return scopes


def _fold_replaced(tensors: Sequence[GraphTensor], scopes: dict[int, _Scope]) -> None:
    """Give operations that tf2onnx replaced the scope of the operations around them.

    The results of a recurrent layer belong to the scope of its input: tf2onnx leaves only the
    transposition before the layer in the scope, if the layer returns its last state.
    """
    known = {scope for scope in scopes.values() if scope}
    replaced = [
        position
        for position, scope in scopes.items()
        if not scope and all(map(_REPLACED.fullmatch, tensors[position].names))
    ]
    # The scopes of the nearest operations before and behind each replaced operation.
    before: dict[int, set[_Scope]] = defaultdict(set)
    behind: dict[int, set[_Scope]] = defaultdict(set)
    for position in replaced:
        for source in tensors[position].inputs:
            before[position] |= before[source] | {scopes.get(source, ())}
    for position in sorted(scopes, reverse=True):
        scope = scopes[position]
        targets = behind[position] | {scope} if not scope else {scope}
        for source in tensors[position].inputs:
            behind[source] |= targets
    for position in replaced:
        around = [scope for scope in before[position] | behind[position] if scope]
        common = _find_common_scope(around)
        is_between = any(before[position]) and any(behind[position])
        if is_between and common in known:
            scopes[position] = common
            continue
        tensor = tensors[position]
        source = next(iter(tensor.inputs), -1)
        if source < 0:
            continue
        source_type = tensors[source].type.lower()
        is_last_state = _is_among(tensors[source], _RECURRENT) and _is_among(tensor, _PLUMBING)
        if is_last_state or (_is_among(tensor, _RECURRENT) and source_type == "transpose"):
            scopes[position] = scopes.get(source, ())


def _find_common_scope(scopes: Collection[_Scope]) -> _Scope:
    pairs = zip(min(scopes, default=()), max(scopes, default=()), strict=False)
    return tuple(first for first, last in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _is_generated(tensor: GraphTensor, name: str) -> bool:
    name = _OUTPUT_NUMBER.sub("", name)
    return bool(_GENERATED.fullmatch(name) or re.fullmatch(rf"{tensor.type}_\d+", name))


def _split_name(name: str) -> _Scope:
    """Return the scopes and the name of an operation or tensor, without output numbers."""
    name = _OUTPUT_NUMBER.sub("", name.partition(";")[0]).strip("/")
    parts: list[str] = []
    for part in name.split("/"):
        # PyTorch repeats the name of a container in those of its members: layer1/layer1.0.
        if parts and part.startswith(parts[-1] + "."):
            parts.pop()
        parts.append(part)
    return tuple(parts)


def _read_constant_scope(name: str) -> _Scope:
    scope = _split_name(name)[:-1]
    if not scope and "." in name:  # PyTorch: layer1.0.conv1.weight
        scope = (name.rpartition(".")[0],)
    return scope


def _uses_keras_3_scopes(scopes: Iterable[_Scope]) -> bool:
    """Return whether scopes are those of Keras 3, which numbers the scope of each call.

    Keras 3 opens the scope of a layer once to build the layer and once more to call it, so that the
    scope of every call ends in a number: ``net_1/conv_1``.
    """
    scopes = [scope for scope in scopes if scope]
    layer_names = {scope[1] for scope in scopes if len(scope) > 1}
    numbered = [name for name in layer_names if _NUMBER.search(name)]
    # Operations between layers may have scopes of TensorFlow.
    return (
        bool(layer_names)
        and all(_NUMBER.search(scope[0]) for scope in scopes)
        and len(numbered) > 0.75 * len(layer_names)
    )


def _shorten_scopes(scopes: dict[int, _Scope], is_keras_3: bool) -> dict[int, _Scope]:
    """Remove the scope of the model, and scopes inside of layers."""
    outer = {scope[:length] for scope in scopes.values() for length in range(len(scope) + 1)}
    shortened = {
        position: _cut_keras_scopes(scope, outer) if is_keras_3 else _cut_inner_scopes(scope)
        for position, scope in scopes.items()
    }
    while True:
        keys = {scope for scope in shortened.values() if scope}
        shared = len({key[0] for key in keys}) == 1 and any(len(key) > 1 for key in keys)
        if not shared:
            return shortened
        shortened = {position: scope[1:] for position, scope in shortened.items()}
        if is_keras_3:  # the scope of a nested model is part of the path
            return shortened


def _cut_keras_scopes(scope: _Scope, scopes: Collection[_Scope]) -> _Scope:
    """Return the part of a scope that consists of the calls of Keras 3 layers.

    Parameters
    ----------
    scopes
        All scopes of the graph.
    """
    for length, name in enumerate(scope):
        first = _NUMBER.sub("", name)
        # TensorFlow numbers a scope of its own only if it is the second of its name.
        is_second = not _NUMBER.search(first) and (*scope[:length], first) in scopes
        if first == name or is_second:
            return scope[:length]
    return scope


def _cut_inner_scopes(scope: _Scope) -> _Scope:
    while len(scope) > 1 and _NUMBER.sub("", scope[-1]) in _INNER_SCOPES:
        scope = scope[:-1]
    return scope


def _get_own_name(tensor: GraphTensor) -> str:
    names = [_split_name(name)[-1] for name in (*tensor.names, tensor.output_name) if name]
    return next((name for name in names if not _GENERATED.fullmatch(name)), None) or (
        names[0] if names else tensor.type
    )


def _is_among(tensor: GraphTensor, types: frozenset[str]) -> bool:
    return _simplify_type(tensor) in types


def _simplify_type(tensor: GraphTensor) -> str:
    """Return the type of an operation in lower case without underscores."""
    return tensor.type.replace("_", "").lower()
