"""Watching a model's layers while it is traced."""

from __future__ import annotations

import functools
import re
import textwrap
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actgrid.errors import (
    ActgridError,
    DeviceError,
    ModelError,
    UnusableModelError,
    strip_terminal_codes,
)
from actgrid.models.data_formats import input_data_format, permuted_format
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import is_real, map_tensors
from actgrid.models.layers import LayerInfo, Node, model_operations
from actgrid.models.time_steps import TimeSteps, is_time_distributed, sample_wise
from actgrid.rendering.tiles import DATA_FORMATS

__all__ = [
    "Call",
    "Logits",
    "Trace",
    "before_softmax",
    "build",
    "leaves",
    "logits_of",
    "reason",
    "refusal",
    "trace_model",
    "traced_specs",
    "unchanged",
]

# What Keras makes of the error of a layer's `call`: where, the message, and the arguments.
_IN_CALL = re.compile(
    r"Exception encountered when calling (?P<call>.*?)\.\n\n(?P<message>.*?)\n\n"
    r"Arguments received by .*",
    re.DOTALL,
)
# As in "float() argument must be ... not 'SymbolicTensor'", and "Using a symbolic `tf.Tensor` as a
# Python `bool` is not allowed".
_SYMBOLIC = re.compile(r"symbolic", re.IGNORECASE)
_NO_ATTRIBUTE = re.compile(r"'SymbolicTensor' object has no attribute '(\w+)'")
_EAGER_ONLY = (
    "the model runs only eagerly, as it reads values of tensors in Python, and actgrid compiles "
    "models: write keras.ops.where or keras.ops.cond for Python's if, and keras.ops for NumPy, or "
    "put that code into a tf.py_function"
)
# As in "Conv2DCustomBackpropInputOp only supports NHWC".
_CHANNELS_FIRST = re.compile(r"only supports (the )?N(HW|DHW)C")
# Layers and operations after which no axis is known to be that of channels.
_MOVES_AXES = {"Reshape", "Moveaxis", "Swapaxes"}
_FIRST_OUTPUTS = re.compile(r"(\[0\])+$")
# One trace at a time: two at once would undo each other's changes to a model they share.
_TRACING = threading.RLock()
# By model, TensorSpecs of what was given for it to be run on, and of what it could be traced with
# of that. What it is only tried on is neither.
_GIVEN: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_TRACED: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Call:
    """A layer's output, as a symbolic tensor of the graph being traced.

    `inputs` are the arguments that the layer was called with. Where `tensor` was put together for
    a layer that ran once for each time step, `parts` are the steps' outputs.
    """

    node: Node
    info: LayerInfo
    tensor: Any
    inputs: Any = field(repr=False)
    parts: tuple[Any, ...] = field(default=(), repr=False)


class Trace(NamedTuple):
    """One run of a model on symbolic inputs: what it returns, and the calls of its layers.

    Calls come in the order in which they end; those in loops and branches, whose tensors do not
    outlive them, are left out. Of `results`, whatever the model returns, `outputs` are tensors.
    """

    results: Any
    calls: list[Call]

    @property
    def outputs(self) -> Any:
        """The model's output: a tensor, or a structure of tensors, in which some may be None.

        Raises
        ------
        ModelError
            If the model returns anything else, such as None, a string or a sparse tensor.
        """
        tf = tensorflow()
        try:
            flat = tf.nest.flatten(self.results)
        except TypeError as error:  # as of keys that cannot be sorted
            raise ModelError(f"the model's output cannot be read: {error}") from error
        if all(value is None for value in flat):
            raise ModelError("the model returns None instead of an output")
        outputs = map_tensors(_dense_tensor, self.results)
        if isinstance(outputs, tf.Tensor) and not is_real(outputs.dtype):
            raise ModelError(f"the model returns {outputs.dtype.name}, expected real numbers")
        return outputs


def _dense_tensor(value: Any) -> Any:
    """Return what a model gave as one of its outputs as a tensor."""
    tf = tensorflow()
    kind = type(value).__name__
    if isinstance(value, (tf.RaggedTensor, tf.SparseTensor)):
        way = "value.to_tensor()" if kind == "RaggedTensor" else "tf.sparse.to_dense(value)"
        raise ModelError(f"the model returns a {kind}, expected a dense tensor: return {way}")
    try:
        return tf.convert_to_tensor(value)
    except (ValueError, TypeError) as error:
        raise ModelError(f"the model returns a {kind}, expected a tensor") from error


@contextmanager
def _watched(
    layer: Any, name: str, record: Callable[[Any, Any], Any], instead: Any = None
) -> Iterator[None]:
    """Let `record` see what the method `name` of a layer takes and returns in this thread.

    What `record` returns goes on instead of it. `instead` is called for the method itself, with it
    as the first argument.
    """
    original = getattr(layer, name)
    compiled = getattr(getattr(type(layer), name, None), "python_function", None)
    if compiled is not None:
        # A tf.function of its own would keep its layers' outputs to itself; inside ours it needs
        # no compiling, only its `if` and `for` on tensors converted.
        original = functools.partial(tensorflow().autograph.to_graph(compiled), layer)
    if instead is not None:
        original = functools.partial(instead, original)
    tracer = threading.get_ident()

    @functools.wraps(getattr(layer, name))
    def watched(*args: Any, **kwargs: Any) -> Any:
        outputs = original(*args, **kwargs)
        return record((args, kwargs), outputs) if threading.get_ident() == tracer else outputs

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
    """Raise ModelError where a model fails on its inputs, and say of what shapes these are.

    A model's own code may raise any exception.
    """
    try:
        yield
    except ActgridError:
        raise
    except Exception as error:
        raise refusal(inputs, error) from error


def refusal(inputs: Any, error: Exception) -> ModelError:
    """Return the error to raise where a model fails on its inputs: of what shapes, and why.

    Parameters
    ----------
    inputs
        Tensors, or a structure of them.
    error
        What TensorFlow, Keras, or the model's own code raised.
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
    if _is_eager_only(error):
        return UnusableModelError(f"{_EAGER_ONLY} ({reason(error).partition('. ')[0]})")
    # Errors of other kinds are faults of the model's own code, and not refusals of an input.
    kind = ModelError if _tells_by_message(error) else UnusableModelError
    return kind(f"the model cannot be run on {shapes}: {reason(error)}")


def _tells_by_message(error: Exception) -> bool:
    """Return whether an error is of a kind that TensorFlow and Keras raise with a message."""
    return isinstance(error, (ValueError, NotImplementedError, tensorflow().errors.OpError))


def _is_eager_only(error: Exception) -> bool:
    """Return whether an error comes of what tensors can do only when they have a value."""
    text = str(error)
    if missing := _NO_ATTRIBUTE.search(text):
        with tensorflow().init_scope():  # out of the graph that is being traced
            return hasattr(tensorflow().constant(0), missing[1])
    return _SYMBOLIC.search(text) is not None


def reason(error: Exception) -> str:
    """Return the message of an error in one line, after the name of the call that failed.

    The kind of error is part of it where the message alone may say little, as that of a KeyError.
    """
    # The text of a KeyError is the repr of its message.
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = strip_terminal_codes(str(message))
    if text.startswith("Graph execution error"):
        # After a traceback, and before the names of operations.
        text = text.split("\n\t")[0].strip().splitlines()[-1]
    where = ""
    if in_call := _IN_CALL.fullmatch(text):
        where, text = f"{in_call['call']}: ", in_call["message"]
    if not _tells_by_message(error):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return where + textwrap.shorten(text, 300, placeholder=" ...")


def build(model: Any, inputs: Any) -> None:
    """Make the layers and weights of a model that makes them when first called.

    To be called with whatever a model is to be run on; see `traced_specs`.

    Raises
    ------
    ModelError
        If it cannot be run on these inputs.
    """
    if not model.built:
        with _TRACING, _running(inputs):
            model(inputs, training=False)
    if not getattr(model, "inputs", None):
        _GIVEN[model] = map_tensors(_free_batch, inputs)


def leaves(structure: Any) -> list[Any]:
    """Flatten a structure of dicts, lists and tuples. Keys of a dict need no order."""
    return [value for _, value in _outputs(structure)]


def _outputs(outputs: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (suffix of the layer path, tensor) of each output in a structure.

    The first of a list needs no number, so that a layer's first output has its name.
    """
    if isinstance(outputs, dict):
        for key, value in outputs.items():
            yield from _outputs(value, f"{place}[{key}]")
    elif isinstance(outputs, (list, tuple)):
        for position, value in enumerate(outputs):
            yield from _outputs(value, f"{place}[{position}]")
    else:
        yield _FIRST_OUTPUTS.sub("", place), outputs


class _DataFormats:
    """The data format of each tensor: a layer that does not say has that of what it is given."""

    def __init__(self, model: Any, inputs: Any) -> None:
        self._of_tensor = {
            id(tensor): input_data_format(model, position)
            for position, tensor in enumerate(tensorflow().nest.flatten(inputs))
        }

    def of(self, layer: Any, inputs: Any, *outputs: Any) -> str:
        """Return the format of a layer's outputs, and remember it for the layers they go to."""
        k = keras()
        stated = getattr(layer, "data_format", None)
        given = [self._of_tensor.get(id(tensor)) for tensor in leaves(inputs)]
        inherited = next(filter(None, given), None)
        if any(kind.__name__ in _MOVES_AXES for kind in type(layer).__mro__):
            inherited = None  # only convention tells
        elif inherited is not None:
            inherited = permuted_format(layer, inherited, len(leaves(outputs)[0].shape))
        found = stated if stated in DATA_FORMATS else inherited or k.config.image_data_format()
        self._of_tensor |= {id(tensor): found for tensor in leaves(outputs)}
        return str(found)


def trace_model(model: Any, inputs: Any, training: bool = False) -> Trace:
    """Run a model on symbolic inputs, to be called while a `tf.function` is traced.

    Raises
    ------
    ModelError
        If the model cannot be run on them.
    """
    tf = tensorflow()
    recorded: list[_Record] = []
    time_steps = TimeSteps()
    with _TRACING, ExitStack() as watching:
        # A recurrent layer also runs its cell once outside of the loop, only to learn shapes.
        for node in (node for node in model_operations(model) if not node.looped):
            quantized = getattr(node.layer, "quantization_mode", None) is not None
            name = "quantized_call" if quantized else "call"

            def record(inputs: Any, outputs: Any, node: Node = node) -> Any:
                outputs, given_on = time_steps.capture(outputs)
                recorded.append(_Record(node, inputs, outputs, given_on))
                return given_on

            def distribute(
                original: Any,
                inputs: Any,
                training: Any = None,
                mask: Any = None,
                node: Node = node,
            ) -> Any:
                shape = None if mask is None else mask.shape
                fits = shape is None or tuple(shape[:2]) == tuple(inputs.shape[:2])
                if fits and not training and sample_wise(node.layer.layer):
                    return time_steps.call(node.layer, inputs, mask)
                start = len(recorded)
                outputs = original(inputs, training=training, mask=mask)
                recorded[start:] = _stack_steps(recorded[start:], node.layer.layer)
                return outputs

            instead = distribute if is_time_distributed(node.layer) else None
            watching.enter_context(_watched(node.layer, name, record, instead))
        watching.enter_context(_watched(model, "call", lambda inputs, outputs: outputs))
        if training:
            watching.enter_context(_seeds_moved(model))
        with _running(inputs):
            results = model(inputs, training=training)
    if model in _GIVEN and _GIVEN[model] == map_tensors(_free_batch, inputs):
        _TRACED[model] = _GIVEN[model]

    graph = tf.compat.v1.get_default_graph()
    calls: list[Call] = []
    counts: Counter[str] = Counter()
    data_formats = _DataFormats(model, inputs)
    for node, arguments, outputs, given_on, parts in recorded:
        data_format = data_formats.of(node.layer, arguments, outputs, given_on)
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
        repeat = node.call_number(counts[node.path])
        counts[node.path] += 1
        for suffix, tensor in captured:
            info = LayerInfo(
                path=node.path + (f":{repeat}" if repeat else "") + suffix,
                type=type(node.layer).__name__,
                shape=tuple(tensor.shape.as_list()),
                dtype=tensor.dtype.name,
                data_format=data_format,
                parameters=node.parameters,
                index=node.index,
            )
            calls.append(Call(node, info, tensor, arguments, parts))
    return Trace(results, calls)


class _Record(NamedTuple):
    """A layer's call: its arguments, its outputs, and what goes on to the next layer of these."""

    node: Node
    inputs: Any
    outputs: Any
    given_on: Any
    parts: tuple[Any, ...] = ()


def _stack_steps(records: list[_Record], layer: Any) -> list[_Record]:
    """Stack the calls of the single steps in which a TimeDistributed runs `layer`.

    Calls stay as they are where the steps do not call the same layers.
    """
    tf = tensorflow()
    steps: list[list[_Record]] = [[]]
    for record in records:
        steps[-1].append(record)
        if record.node.layer is layer:
            steps.append([])
    *complete, rest = steps
    if rest or len({tuple(record.node.path for record in step) for step in complete}) != 1:
        return records
    stacked = []
    for calls in zip(*complete, strict=True):
        structures = [record.outputs for record in calls]
        if not all(isinstance(tensor, tf.Tensor) for tensor in leaves(structures)):
            return records
        outputs = tf.nest.map_structure(lambda *tensors: tf.stack(tensors, 1), *structures)
        inputs = [record.inputs for record in calls]
        parts = (*leaves(structures), *(part for record in calls for part in record.parts))
        stacked.append(_Record(calls[0].node, inputs, outputs, outputs, parts))
    return stacked


def _free_batch(tensor: Any) -> Any:
    return tensorflow().TensorSpec((None, *tensor.shape[1:]), tensor.dtype)


def traced_specs(model: Any) -> Any:
    """Return TensorSpecs of what a model was last run on; None if it was not.

    Models that are not functional may not know it: Keras keeps no dtypes, and no shapes where the
    model's own `build` takes none.
    """
    return _TRACED.get(model)


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
