"""Watching a model's layers while it is traced."""

from __future__ import annotations

import functools
import re
import textwrap
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actgrid.errors import DeviceError, ModelError
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import is_real
from actgrid.models.layers import LayerInfo, Node, model_layers
from actgrid.rendering.tiles import DATA_FORMATS

__all__ = [
    "Call",
    "Logits",
    "Trace",
    "before_softmax",
    "build",
    "logits_of",
    "reason",
    "refusal",
    "trace_model",
    "unchanged",
]

# Keras makes text bold.
_TERMINAL = re.compile(r"\x1b\[\d*m")
# As in "Conv2DCustomBackpropInputOp only supports NHWC".
_CHANNELS_FIRST = re.compile(r"only supports (the )?N(HW|DHW)C")
# One trace at a time: two at once would undo each other's changes to a model they share.
_TRACING = threading.RLock()


@dataclass(frozen=True)
class Call:
    """A layer's output, as a symbolic tensor of the graph being traced.

    `inputs` are the arguments that the layer was called with.
    """

    node: Node
    info: LayerInfo
    tensor: Any
    inputs: Any = field(repr=False)


class Trace(NamedTuple):
    """One run of a model on symbolic inputs: what it returns, and the calls of its layers.

    Calls come in the order in which they end; those in loops and branches, whose tensors do not
    outlive them, are left out.
    """

    outputs: Any
    calls: list[Call]


@contextmanager
def _watched(layer: Any, name: str, record: Callable[[Any, Any], None]) -> Iterator[None]:
    """Call `record` with what the method `name` of a layer takes and returns in this thread."""
    original = getattr(layer, name)
    compiled = getattr(getattr(type(layer), name, None), "python_function", None)
    if compiled is not None:
        # A tf.function of its own would keep its layers' outputs to itself; inside ours it needs
        # no compiling, only its `if` and `for` on tensors converted.
        original = functools.partial(tensorflow().autograph.to_graph(compiled), layer)
    tracer = threading.get_ident()

    @functools.wraps(getattr(layer, name))
    def watched(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        if threading.get_ident() == tracer:
            record((args, kwargs), outputs)
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


def unchanged() -> Any:
    """Return a context in which a model is traced so that its state stays when it is run.

    That is what a stateful layer remembers, and the seeds of layers that are random in use. Each
    function wants a context of its own: it cannot read what another one has assigned there.
    """
    return keras().StatelessScope()


@contextmanager
def _seeds_moved(model: Any) -> Iterator[None]:
    """Hold back what layers assign to a model's variables, but for the state of random seeds."""
    with unchanged() as scope:
        yield
    for variable in model.variables:
        if variable.path.endswith("seed_generator_state"):
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)


@contextmanager
def _running(inputs: Any) -> Iterator[None]:
    """Raise ModelError where a model fails on its inputs, and say of what shapes these are."""
    try:
        yield
    except (ValueError, NotImplementedError, tensorflow().errors.OpError) as error:
        raise refusal(inputs, error) from error


def refusal(inputs: Any, error: Exception) -> ModelError:
    """Return the error to raise where a model fails on its inputs: of what shapes, and why.

    Parameters
    ----------
    inputs
        Tensors, or a structure of them.
    error
        What TensorFlow or Keras raised.
    """
    tf = tensorflow()
    shapes = ", ".join(
        str(tuple(tensor.shape)) for tensor in tf.nest.flatten(inputs) if tensor is not None
    )
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return ModelError(
            f"the device has not enough memory for inputs of {shapes}: give a smaller batch_size, "
            "or smaller images"
        )
    if _CHANNELS_FIRST.search(str(error)):
        return DeviceError(
            "this device cannot run the channels-first convolutions of the model: TensorFlow "
            f"computes them on a GPU, or on a CPU for which it uses oneDNN; {reason(error)}"
        )
    if isinstance(error, tf.errors.UnimplementedError):
        return DeviceError(f"this device cannot run the model: {reason(error)}")
    return ModelError(f"the model cannot be run on {shapes}: {reason(error)}")


def reason(error: Exception) -> str:
    """Return what is wrong, in one line, without where in whose code it was found."""
    text = _TERMINAL.sub("", str(error))
    if text.startswith("Graph execution error"):
        # After a traceback, and before the names of operations.
        text = text.split("\n\t")[0].strip().splitlines()[-1]
    return textwrap.shorten(text, 300)


def build(model: Any, inputs: Any) -> None:
    """Make the layers and weights of a model that makes them when first called.

    Raises
    ------
    ModelError
        If it cannot be run on these inputs.
    """
    if not model.built:
        with _TRACING, _running(inputs):
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


class _DataFormats:
    """The data format of each tensor: a layer that does not say has that of what it is given."""

    def __init__(self) -> None:
        self._of_tensor: dict[int, str] = {}

    def of(self, layer: Any, inputs: Any, outputs: Any) -> str:
        """Return the format of a layer's outputs, and remember it for the layers they go to."""
        k, nest = keras(), tensorflow().nest
        stated = getattr(layer, "data_format", None)
        given = [self._of_tensor.get(id(tensor)) for tensor in nest.flatten(inputs)]
        # After axes were moved by hand, as at the model's inputs, only convention tells.
        moved = isinstance(layer, (k.layers.Permute, k.layers.Reshape))
        inherited = None if moved else next(filter(None, given), None)
        found = stated if stated in DATA_FORMATS else inherited or k.config.image_data_format()
        self._of_tensor |= {id(tensor): found for tensor in nest.flatten(outputs)}
        return str(found)


def trace_model(model: Any, inputs: Any, training: bool = False) -> Trace:
    """Run a model on symbolic inputs, to be called while a `tf.function` is traced.

    Raises
    ------
    ModelError
        If the model cannot be run on them.
    """
    tf = tensorflow()
    recorded: list[tuple[Node, Any, Any]] = []
    with _TRACING, ExitStack() as watching:
        # A recurrent layer also runs its cell once outside of the loop, only to learn shapes.
        for node in (node for node in model_layers(model) if not node.looped):
            quantized = getattr(node.layer, "quantization_mode", None) is not None
            name = "quantized_call" if quantized else "call"

            def record(inputs: Any, outputs: Any, node: Node = node) -> None:
                recorded.append((node, inputs, outputs))

            watching.enter_context(_watched(node.layer, name, record))
        watching.enter_context(_watched(model, "call", lambda inputs, outputs: None))
        if training:
            watching.enter_context(_seeds_moved(model))
        with _running(inputs):
            results = model(inputs, training=training)

    graph = tf.compat.v1.get_default_graph()
    calls: list[Call] = []
    counts: Counter[str] = Counter()
    data_formats = _DataFormats()
    for node, taken, outputs in recorded:
        data_format = data_formats.of(node.layer, taken, outputs)
        captured = [
            (suffix, tensor)
            for suffix, tensor in _outputs(outputs)
            if isinstance(tensor, tf.Tensor)
            and getattr(tensor, "graph", graph) is graph
            and is_real(tensor.dtype)
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
            calls.append(Call(node, info, tensor, taken))
    return Trace(results, calls)


class Logits(NamedTuple):
    """What a model's output is a softmax or sigmoid of.

    `tensor` has the shape of the output; `activation` is ``"softmax"`` or ``"sigmoid"``.
    """

    tensor: Any
    activation: str


_LOGIT_ACTIVATIONS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
# Operations that keep all values, in their order, whatever the shape.
_KEEPING = frozenset(["Cast", "ExpandDims", "Identity", "Reshape", "Squeeze"])


def logits_of(tensor: Any) -> Logits | None:
    """Return the logits before a softmax or sigmoid; None if a tensor comes from neither.

    Reshapes, casts and identities after the activation are looked behind.
    """
    operation = tensor.op
    while operation.type in _KEEPING or _takes_one_value(operation):
        operation = operation.inputs[0].op
    activation = _LOGIT_ACTIVATIONS.get(operation.type)
    if activation is None:
        return None
    logits = operation.inputs[0]
    if operation.outputs[0] is not tensor:
        tf = tensorflow()
        logits = tf.ensure_shape(tf.reshape(logits, tf.shape(tensor)), tensor.shape)
    return Logits(logits, activation)


def _takes_one_value(operation: Any) -> bool:
    """Return whether an operation takes the only value of each sample, as ``x[:, 0]`` may."""
    if operation.type != "StridedSlice":
        return False
    shapes = operation.inputs[0].shape, operation.outputs[0].shape
    return all(shape.rank and shape[1:].num_elements() == 1 for shape in shapes)


def before_softmax(tensor: Any) -> Any:
    """Return what a symbolic tensor is the softmax of; None if it is not seen to be one."""
    logits = logits_of(tensor)
    return None if logits is None or logits.activation != "softmax" else logits.tensor
