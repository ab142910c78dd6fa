"""Watching a model's layers while it is traced."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.layers import LayerInfo, Node, model_layers
from actgrid.rendering.tiles import DATA_FORMATS

__all__ = ["Call", "build", "trace_calls"]

# One trace at a time: two at once would undo each other's changes to a model they share.
_TRACING = threading.RLock()


@dataclass(frozen=True)
class Call:
    """A layer's output, as a symbolic tensor of the graph being traced."""

    node: Node
    info: LayerInfo
    tensor: Any


@contextmanager
def _watched(layer: Any, name: str, record: Callable[[Any], None]) -> Iterator[None]:
    """Call `record` with what the method `name` of a layer returns in this thread."""
    original = getattr(layer, name)
    # A method that is a tf.function of its own would keep its layers' outputs to itself.
    original = getattr(original, "python_function", original)
    tracer = threading.get_ident()

    @functools.wraps(original)
    def watched(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        if threading.get_ident() == tracer:
            record(outputs)
        return outputs

    # Past Keras's attribute tracking, which a layer that is built may refuse.
    attributes = vars(layer)
    own = attributes.get(name)
    attributes[name] = watched
    try:
        yield
    finally:
        if own is None:
            del attributes[name]
        else:
            attributes[name] = own


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Hold back what layers assign to a model's variables, but for the state of random seeds."""
    with keras().StatelessScope() as scope:
        yield
    for variable in model.variables:
        if variable.path.endswith("seed_generator_state"):
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)


def build(model: Any, inputs: Any) -> None:
    """Make the layers and weights of a model that makes them when first called."""
    if not model.built:
        with _TRACING:
            model(inputs, training=False)


def _outputs(outputs: Any, suffix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (suffix of the layer path, tensor) of each output in a structure."""
    if isinstance(outputs, dict):
        for key, value in outputs.items():
            yield from _outputs(value, f"{suffix}[{key}]")
    elif isinstance(outputs, (list, tuple)):
        for position, value in enumerate(outputs):
            yield from _outputs(value, f"{suffix}[{position}]" if position else suffix)
    else:
        yield suffix, outputs


def _data_format(layer: Any, before: str) -> str:
    """Return the data format of a layer's output, given that of the layer before it."""
    k = keras()
    stated = getattr(layer, "data_format", None)
    if stated in DATA_FORMATS:
        return str(stated)
    # After axes were moved by hand, only convention tells.
    if isinstance(layer, (k.layers.Permute, k.layers.Reshape)):
        return str(k.config.image_data_format())
    return before


def trace_calls(model: Any, inputs: Any, training: bool = False) -> list[Call]:
    """Run a model on symbolic inputs and return the output of every call of a layer inside.

    To be called while a `tf.function` is traced. Calls come in the order in which they end;
    those in loops and branches, whose tensors do not outlive them, are left out.
    """
    tf = tensorflow()
    recorded: list[tuple[Node, Any]] = []
    with _TRACING, ExitStack() as watching:
        # A recurrent layer also runs its cell once outside of the loop, only to learn shapes.
        for node in (node for node in model_layers(model) if not node.looped):
            quantized = getattr(node.layer, "quantization_mode", None) is not None
            name = "quantized_call" if quantized else "call"
            record = functools.partial(lambda node, outputs: recorded.append((node, outputs)), node)
            watching.enter_context(_watched(node.layer, name, record))
        watching.enter_context(_watched(model, "call", lambda outputs: None))
        if training:
            watching.enter_context(_unchanged(model))
        model(inputs, training=training)

    graph = tf.compat.v1.get_default_graph()
    calls: list[Call] = []
    counts: Counter[str] = Counter()
    # A layer that does not say has the format of the one before it.
    data_format = keras().config.image_data_format()
    for node, outputs in recorded:
        data_format = _data_format(node.layer, data_format)
        captured = [
            (suffix, tensor)
            for suffix, tensor in _outputs(outputs)
            if isinstance(tensor, tf.Tensor)
            and getattr(tensor, "graph", graph) is graph
            and (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool)
            and tensor.shape.rank is not None
        ]
        if not captured:
            continue
        repeat = counts[node.path]
        counts[node.path] += 1
        for suffix, tensor in captured:
            info = LayerInfo(
                path=node.path + (f":{repeat}" if repeat else "") + suffix,
                type=type(node.layer).__name__,
                shape=tuple(tensor.shape.as_list()),
                dtype=tensor.dtype.name,
                data_format=data_format,
                parameters=node.layer.count_params() if node.layer.built else 0,
                index=node.index,
            )
            calls.append(Call(node, info, tensor))
    return calls
