"""Build the graph of a model: which layer outputs are inputs of which layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from actgrid.models.calls import Call, filter_visible_calls
from actgrid.models.compiled import trace_once
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import is_real_dtype, list_input_names
from actgrid.models.layers import LayerInfo
from actgrid.models.loading import load_model
from actgrid.models.network import ConnectedNetwork, check_connected, is_compiled
from actgrid.models.networks import describe_network_layers, get_network
from actgrid.models.tracing import flatten_outputs, prepare_trace_inputs, trace_model
from actgrid.models.types import ModelInput, ModelLike

__all__ = ["INPUT", "LayerGraph", "build_layer_graph", "describe_inputs"]

# The `LayerInfo.type` of a model's input.
INPUT = "Input"


@dataclass(frozen=True)
class LayerGraph:
    """The layer calls of a model as nodes, and the data flow as edges.

    Attributes
    ----------
    infos
        The nodes: the model's inputs, of type ``"Input"``, then the layer outputs, in the order in
        which the layers run. Layers inside Keras's own composite layers are left out.
    edges
        Pairs (source, target) of positions in `infos`, where source < target. Operations between
        layers count as part of the edge.
    inputs, outputs
        Positions of the model's inputs, and of the outputs that the model returns.
    attention
        The attention scores that layers compute, which are not nodes, in the order in which they
        are computed. Their paths begin with the path of the layer.
    """

    infos: tuple[LayerInfo, ...]
    edges: tuple[tuple[int, int], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attention: tuple[LayerInfo, ...] = ()


def build_layer_graph(model: ModelLike, x: ModelInput | None = None) -> LayerGraph:
    """Return the graph of data flow between the layers of a model.

    Parameters
    ----------
    model
        A Keras model, or any other model that `actgrid.load_model` accepts.
    x
        An input, or a TensorSpec, for a model whose input shape is not known.

    Returns
    -------
    LayerGraph
        The layers and the edges between them.

    Raises
    ------
    ModelError
        If the model's input is not known. Also a ValueError.

    Examples
    --------
    >>> from actgrid.models.graph import build_layer_graph
    >>> graph = build_layer_graph("demo")
    >>> [graph.infos[node].path for edge in graph.edges[:2] for node in edge]
    ['image', 'rescaling', 'rescaling', 'stem_conv']
    """
    network: Any = load_model(model)
    check_connected(get_network(network), "the graph of layers")
    inputs = prepare_trace_inputs(network, x)
    if not is_compiled(get_network(network)):
        return _read_graph(network, inputs)
    graph: LayerGraph = trace_once(network, _trace_graph, inputs)
    return graph


def _read_graph(network: ConnectedNetwork, inputs: Any) -> LayerGraph:
    """Return the graph of a network outside TensorFlow, which lists its connections."""
    infos = [info for info, _ in describe_inputs(network, inputs)]
    count = len(infos)
    infos += describe_network_layers(network, inputs)
    numbers = {info.path: number for number, info in enumerate(infos)}
    edges = {
        (numbers[source], numbers[target])
        for source, target in network.list_edges()
        if source in numbers and numbers[source] < numbers[target]
    }
    return LayerGraph(
        infos=tuple(infos),
        edges=tuple(sorted(edges, key=itemgetter(1, 0))),
        inputs=tuple(range(count)),
        outputs=tuple(numbers[path] for path in network.outputs),
    )


def describe_inputs(model: Any, inputs: Any) -> Iterator[tuple[LayerInfo, Any]]:
    """Yield (`LayerInfo`, tensor) for each symbolic input of a model.

    Inputs that hold no real numbers, such as strings, and inputs of unknown rank are left out.
    """
    tensors = tensorflow().nest.flatten(inputs)
    for position, (name, tensor) in enumerate(
        zip(list_input_names(model, inputs), tensors, strict=True)
    ):
        if tensor is not None and is_real_dtype(tensor.dtype) and tensor.shape.rank is not None:
            shape = tuple(tensor.shape)
            data_format = find_input_data_format(model, position)
            yield LayerInfo(name, INPUT, shape, tensor.dtype.name, data_format, 0, None), tensor


def _trace_graph(model: Any, inputs: Any) -> LayerGraph:
    model_inputs = list(describe_inputs(model, inputs))
    trace = trace_model(model, inputs)
    calls = filter_visible_calls(trace.calls)
    # Node that produced a tensor, by the tensor's name. A layer that returns its input, as dropout
    # does, becomes the producer for the layers after it.
    producers = {tensor.name: index for index, (_, tensor) in enumerate(model_inputs)}
    edges: list[tuple[int, int]] = []
    for index, call in enumerate(calls, len(model_inputs)):
        edges += [
            (producer, index) for producer in _find_producers(_find_sources(call, calls), producers)
        ]
        producers |= {tensor.name: index for tensor in (call.tensor, *call.parts)}
    return LayerGraph(
        infos=(*(info for info, _ in model_inputs), *(call.info for call in calls)),
        edges=tuple(edges),
        inputs=tuple(range(len(model_inputs))),
        outputs=tuple(_find_producers(_list_tensors(trace.results), producers)),
        attention=tuple(call.info for call in trace.calls if call.node.is_attention),
    )


def _find_sources(call: Call, calls: list[Call]) -> list[Any]:
    """Return the tensors that a layer call depends on directly.

    Returns
    -------
    list of tensor
        The input tensors of the call. For a composite layer with recorded inner layers, its own
        output tensor, because the inner layers are separate nodes of the graph.
    """
    inner_prefix = call.node.path + "/"
    if call.node.is_composite and any(
        inner_call.node.path.startswith(inner_prefix) for inner_call in calls
    ):
        return [call.tensor]
    return _list_tensors(call.inputs)


def _list_tensors(structure: Any) -> list[Any]:
    """Return the tensors of a traced graph in a structure, without constants."""
    tf = tensorflow()
    # Layers may be called with eager tensors, such as the positions of a ViT of KerasHub.
    return [leaf for leaf in flatten_outputs(structure) if tf.is_symbolic_tensor(leaf)]


def _find_producers(tensors: Iterable[Any], producers: dict[str, int]) -> list[int]:
    """Return the graph nodes that produced tensors, directly or through operations.

    The TensorFlow graph is searched backward from each tensor. The search stops at tensors in
    `producers`.

    Parameters
    ----------
    producers
        Tensor name -> number of the node that produced the tensor.

    Returns
    -------
    list of int
        Sorted numbers of the nodes.
    """
    nodes: set[int] = set()
    visited: set[str] = set()
    pending = list(tensors)
    while pending:
        tensor = pending.pop()
        if tensor.name in visited:
            continue
        visited.add(tensor.name)
        if tensor.name in producers:
            nodes.add(producers[tensor.name])
        else:
            pending += tensor.op.inputs
    return sorted(nodes)
