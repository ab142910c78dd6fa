"""Watching a model's layers while it is traced."""

from __future__ import annotations

import functools
import math
import operator
import re
import textwrap
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

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
from actgrid.options import DATA_FORMATS

__all__ = [
    "Call",
    "Logits",
    "Trace",
    "before_softmax",
    "bounds_of",
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
# Operations that keep all values, in their order.
_RESHAPING = frozenset(["ExpandDims", "Reshape", "Squeeze"])
_REDUCING = frozenset(["Max", "Mean", "Min", "Sum"])
# Operations that change the order of values, or leave some out.
_REORDERING = frozenset(["Slice", "StridedSlice", "Transpose"])
_SLICE_MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
# Probabilities that are clipped at most so far from 0 and 1 stay what they are.
_CLIPPED = 0.01


def logits_of(tensor: Any) -> Logits | None:
    """Return the logits before a softmax or sigmoid; None if a tensor comes from neither.

    Operations after the activation are applied to the logits if they only move values, such as
    reshapes and transpositions, and ignored if they only clip probabilities near 0 and 1. A
    softmax must keep its classes together. Sigmoids may be concatenated, or be `p` in ``1 - p``.
    """
    operation, moves = tensor.op, []
    while (source := _source(operation)) is not None:
        moves.append(operation)
        operation = source.op
    moves.reverse()
    logits = _logits_before(operation)
    if logits is None:
        return None
    if logits.activation == "softmax" and not _keeps_classes(operation.outputs[0].shape, moves):
        return None
    if not moves:
        return logits
    moved = logits.tensor
    for move in moves:
        moved = _moved(move, moved, list(move.inputs[1:]))
    return logits._replace(tensor=tensorflow().ensure_shape(moved, tensor.shape))


def _logits_before(operation: Any) -> Logits | None:
    """Return the logits of an operation that is an activation, or joins or negates sigmoids."""
    tf = tensorflow()
    if operation.type in _LOGIT_ACTIVATIONS:
        return Logits(operation.inputs[0], _LOGIT_ACTIVATIONS[operation.type])
    if operation.type in ("ConcatV2", "Pack"):
        joined = list(operation.inputs)[: operation.get_attr("N")]
    elif operation.type == "Sub" and _constant(operation.inputs[0]) == 1:
        joined = [operation.inputs[1]]
    else:
        return None
    logits = []
    for tensor in joined:
        found = logits_of(tensor)
        if found is None or found.activation != "sigmoid":
            return None
        logits.append(tf.cast(found.tensor, tf.float32))
    if operation.type == "Sub":
        return Logits(-logits[0], "sigmoid")
    if operation.type == "Pack":
        return Logits(tf.stack(logits, operation.get_attr("axis")), "sigmoid")
    return Logits(tf.concat(logits, operation.inputs[-1]), "sigmoid")


def _source(operation: Any) -> Any:
    """Return the input that an operation only moves or clips near 0 and 1, or None."""
    kind, inputs = operation.type, list(operation.inputs)
    if kind in _RESHAPING or kind in _REORDERING or kind in ("Cast", "Identity"):
        return inputs[0]
    if kind in _REDUCING:
        axes = tensorflow().get_static_value(inputs[1])
        shape = inputs[0].shape
        alone = shape.rank and axes is not None
        return inputs[0] if alone and all(shape[int(axis)] == 1 for axis in axes.flat) else None
    if kind == "ClipByValue":
        low, high = map(_constant, inputs[1:])
        clips = low is None or high is None or low > _CLIPPED or high < 1 - _CLIPPED
        return None if clips else inputs[0]
    if kind in ("Maximum", "Minimum"):
        for tensor, limit in (inputs, inputs[::-1]):
            value = _constant(limit)
            if value is not None and (
                value <= _CLIPPED if kind == "Maximum" else value >= 1 - _CLIPPED
            ):
                return tensor
    return None


def _moved(operation: Any, values: Any, arguments: list[Any]) -> Any:
    """Move values as an operation does; see `_source`."""
    tf = tensorflow()
    if operation.type == "Transpose":
        return tf.transpose(values, *arguments)
    if operation.type == "Slice":
        return tf.slice(values, *arguments)
    if operation.type == "StridedSlice":
        masks = {name: operation.get_attr(name) for name in _SLICE_MASKS}
        return tf.strided_slice(values, *arguments, **masks)
    if operation.type in _RESHAPING or operation.type in _REDUCING:
        output = operation.outputs[0]
        known = _has_sides(output.shape)
        return tf.reshape(values, (-1, *output.shape[1:]) if known else tf.shape(output))
    return values


def _keeps_classes(shape: Any, moves: list[Any]) -> bool:
    """Return whether moves keep the classes of each softmax, on the last axis, together."""
    tf = tensorflow()
    if all(move.type not in _REORDERING for move in moves):
        return True
    if not _has_sides(shape) or not all(_has_sides(move.outputs[0].shape) for move in moves):
        return False
    # Numbers of the values of one sample, moved in their place.
    with tf.init_scope():
        numbers = tf.reshape(tf.range(shape[1:].num_elements()), (1, *shape[1:]))
        for move in moves:
            arguments = [tf.get_static_value(tensor) for tensor in move.inputs[1:]]
            if move.type in _REORDERING and any(value is None for value in arguments):
                return False
            numbers = _moved(move, numbers, arguments)
        found = numbers.numpy().ravel()
    classes = shape[-1]
    if not found.size or found.size % classes:
        return False
    found = np.sort(found.reshape(-1, classes))
    return bool((found == found[:, :1] // classes * classes + np.arange(classes)).all())


def _has_sides(shape: Any) -> bool:
    """Return whether a shape is known but for the number of samples."""
    return bool(shape.rank) and None not in list(shape[1:])


def _constant(tensor: Any) -> float | None:
    """Return the number that a tensor always is; None if it is not one."""
    value = tensorflow().get_static_value(tensor)
    return float(value) if value is not None and np.ndim(value) == 0 else None


_BOUNDS = {
    "Cos": (-1, 1),
    "Erf": (-1, 1),
    "Exp": (0, math.inf),
    "Relu": (0, math.inf),
    "Relu6": (0, 6),
    "Sigmoid": (0, 1),
    "Sin": (-1, 1),
    "Softmax": (0, 1),
    "Softplus": (0, math.inf),
    "Softsign": (-1, 1),
    "Tanh": (-1, 1),
}


def bounds_of(tensor: Any, depth: int = 12) -> tuple[float, float]:
    """Return the least and the largest value that the last operations let a tensor have."""
    operation = tensor.op
    kind, inputs = operation.type, list(operation.inputs)
    value = tensorflow().get_static_value(tensor)
    if value is not None and np.size(value) and np.issubdtype(value.dtype, np.number):
        return float(np.min(value)), float(np.max(value))
    if kind in _BOUNDS:
        return _BOUNDS[kind]
    unknown = (-math.inf, math.inf)
    if depth == 0:
        return unknown
    if kind in _RESHAPING | _REORDERING | {"Cast", "Identity", "Max", "Mean", "Min"}:
        return bounds_of(inputs[0], depth - 1)
    if kind not in {*_ENDS, "ClipByValue", "ConcatV2", "Neg"}:
        return unknown
    count = operation.get_attr("N") if kind == "ConcatV2" else len(inputs)
    bounds = [bounds_of(operand, depth - 1) for operand in inputs[:count]]
    lows, highs = zip(*bounds, strict=True)
    if kind == "ClipByValue":
        return max(lows[0], lows[1]), min(highs[0], highs[2])
    if kind == "ConcatV2":
        return min(lows), max(highs)
    if kind == "Neg":
        return -highs[0], -lows[0]
    if kind == "RealDiv" and lows[1] <= 0 <= highs[1]:
        return unknown
    # An end of the range comes from ends of both ranges.
    ends = [_ENDS[kind](first, second) for first in bounds[0] for second in bounds[1]]
    return unknown if any(map(math.isnan, ends)) else (min(ends), max(ends))


_ENDS: dict[str, Callable[[float, float], float]] = {
    "Add": operator.add,
    "AddV2": operator.add,
    "Maximum": max,
    "Minimum": min,
    "Mul": operator.mul,
    "RealDiv": operator.truediv,
    "Sub": operator.sub,
}


def before_softmax(tensor: Any) -> Any:
    """Return what a symbolic tensor is the softmax of; None if it is not seen to be one."""
    logits = logits_of(tensor)
    return None if logits is None or logits.activation != "softmax" else logits.tensor
