"""How a model's layers feed each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from actgrid.models.calls import Call, Trace, visible_calls
from actgrid.models.data_formats import input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import is_real, names_of
from actgrid.models.layers import LayerInfo
from actgrid.models.loading import load_model
from actgrid.models.network import check_compiled
from actgrid.models.networks import network_of
from actgrid.models.tracing import leaves, trace_inputs, trace_model
from actgrid.models.types import ModelInput, ModelLike

__all__ = ["INPUT", "LayerGraph", "input_infos", "layer_graph"]

# What stands for the class of a layer where a model's input is listed as one.
INPUT = "Input"


@dataclass(frozen=True)
class LayerGraph:
    """A model's inputs and the calls of its layers, and which of them feed which.

    Attributes
    ----------
    infos
        The nodes: the model's inputs, of type ``"Input"``, then what its layers give, in the
        order in which they run. The insides of Keras's own layers are left out.
    edges
        (from, to): positions in `infos`, the first always the lower one. Operations between layers
        count as part of the edge.
    inputs, outputs
        Positions of the model's inputs, and of what it returns.
    """

    infos: tuple[LayerInfo, ...]
    edges: tuple[tuple[int, int], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def layer_graph(model: ModelLike, x: ModelInput | None = None) -> LayerGraph:
    """Return how a model's layers feed each other.

    Parameters
    ----------
    model
        A Keras model, or anything that `actgrid.load_model` takes.
    x
        An input, or a TensorSpec, for a model that does not know the shape of its own.

    Raises
    ------
    ModelError
        If the model's input is not known. Also a ValueError.

    Examples
    --------
    >>> graph = layer_graph("demo")
    >>> [graph.infos[i].path for edge in graph.edges[:2] for i in edge]
    ['image', 'rescaling', 'rescaling', 'stem_conv']
    """
    tf = tensorflow()
    network: Any = load_model(model)
    check_compiled(network_of(network), "the graph of layers")
    found: list[LayerGraph] = []

    def trace(inputs: Any) -> None:
        given = list(input_infos(network, inputs))
        found.append(_connected(given, trace_model(network, inputs)))

    tf.function(trace, autograph=False).get_concrete_function(trace_inputs(network, x))
    return found[-1]


def input_infos(model: Any, inputs: Any) -> Iterator[tuple[LayerInfo, Any]]:
    """Yield a model's symbolic inputs of real numbers, described as if layers gave them."""
    tensors = tensorflow().nest.flatten(inputs)
    for position, (name, tensor) in enumerate(zip(names_of(model, inputs), tensors, strict=True)):
        if tensor is not None and is_real(tensor.dtype) and tensor.shape.rank is not None:
            shape = tuple(tensor.shape)
            data_format = input_data_format(model, position)
            yield LayerInfo(name, INPUT, shape, tensor.dtype.name, data_format, 0, None), tensor


def _connected(given: list[tuple[LayerInfo, Any]], trace: Trace) -> LayerGraph:
    calls = visible_calls(trace.calls)
    # What gave a tensor, by the tensor's name. A layer that passes its input on, as dropout does,
    # takes its place for the layers after it.
    givers = {tensor.name: index for index, (_, tensor) in enumerate(given)}
    edges: list[tuple[int, int]] = []
    for index, call in enumerate(calls, len(given)):
        edges += [(giver, index) for giver in _givers(_sources(call, calls), givers)]
        givers |= {tensor.name: index for tensor in (call.tensor, *call.parts)}
    return LayerGraph(
        infos=(*(info for info, _ in given), *(call.info for call in calls)),
        edges=tuple(edges),
        inputs=tuple(range(len(given))),
        outputs=tuple(_givers(_tensors(trace.results), givers)),
    )


def _sources(call: Call, calls: list[Call]) -> list[Any]:
    """Return the tensors that a call is fed by.

    A composite layer is fed by the layers inside it that are seen: these end before it does.
    """
    inside = call.node.path + "/"
    if call.node.composite and any(one.node.path.startswith(inside) for one in calls):
        return [call.tensor]
    return _tensors(call.inputs)


def _tensors(structure: Any) -> list[Any]:
    tf = tensorflow()
    return [one for one in leaves(structure) if isinstance(one, tf.Tensor)]


def _givers(tensors: Iterable[Any], givers: dict[str, int]) -> list[int]:
    """Return the nodes that tensors come from, looking through the operations in between."""
    found: set[int] = set()
    seen: set[str] = set()
    left = list(tensors)
    while left:
        tensor = left.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        if tensor.name in givers:
            found.add(givers[tensor.name])
        else:
            left += tensor.op.inputs
    return sorted(found)
