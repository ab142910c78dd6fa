"""Trace models on symbolic inputs and capture the outputs of their layers."""

from __future__ import annotations

import functools
import re
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from actgrid.errors import LayerError, ModelError, ShapeError
from actgrid.models.attention import find_attention
from actgrid.models.calls import Call, Trace
from actgrid.models.data_formats import find_input_data_format, permute_data_format
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import (
    free_batch_axis,
    is_real_dtype,
    map_tensors,
    prepare_inputs,
    read_input_specs,
)
from actgrid.models.layers import LayerInfo, Node, collect_operations
from actgrid.models.model_cache import INTERCEPTION, accept_model_state, check_model_state
from actgrid.models.model_errors import raise_model_errors
from actgrid.models.network import is_buildable, is_network
from actgrid.models.output_edits import get_output_edits
from actgrid.models.time_steps import TimeSteps, is_sample_wise, is_time_distributed
from actgrid.options import DATA_FORMATS

__all__ = [
    "DataFormats",
    "build_model",
    "copy_input_specs",
    "describe_output",
    "find_input_specs",
    "flatten_outputs",
    "is_tracing",
    "keep_state",
    "make_step_error",
    "prepare_trace_inputs",
    "trace_model",
]

# Layers and operations after which the position of the channel axis is unknown.
_AXIS_MOVING_CLASSES = {"Reshape", "Moveaxis", "Swapaxes"}
# Attribute of Keras's attention layers: whether they use flash attention.
_FLASH_ATTENTION = "_flash_attention"
_FIRST_OUTPUTS = re.compile(r"(\[0\])+$")
# Only one trace runs at a time: a trace replaces methods of the layers, which models may share.
_TRACING = threading.RLock()
# TensorSpecs by model: of the inputs that users passed, and of those inputs on which a trace
# succeeded. Inputs that actgrid only probes a model with are not recorded.
_BUILD_SPECS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_TRACED_SPECS: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


@contextmanager
def _intercept_method(
    layer: Any, name: str, record: Callable[[Any, Any, int], Any], replacement: Any = None
) -> Iterator[None]:
    """Replace a method of a layer in a ``with`` block, so that its calls are recorded.

    Calls in other threads are not recorded.

    Parameters
    ----------
    layer
        The layer, which is changed until the block ends.
    name
        Name of the method.
    record
        Function of ((args, kwargs), outputs, number of the graph's operations before the call) of
        each call. Its return value replaces the outputs.
    replacement
        Function that is called instead of the method, with the original method as its first
        argument. None: the method is called.
    """
    original = getattr(layer, name)
    python_function = getattr(getattr(type(layer), name, None), "python_function", None)
    if python_function is not None:
        # Tensors inside a nested tf.function cannot leave it. Inside the outer function only
        # AutoGraph's conversion of `if` and `for` is needed.
        original = functools.partial(tensorflow().autograph.to_graph(python_function), layer)
    if replacement is not None:
        original = functools.partial(replacement, original)
    tracing_thread = threading.get_ident()
    graph = tensorflow().compat.v1.get_default_graph()

    @functools.wraps(getattr(layer, name))
    def intercepted(*args: Any, **kwargs: Any) -> Any:
        first_operation = graph.version
        outputs = original(*args, **kwargs)
        if threading.get_ident() != tracing_thread:
            return outputs
        return record((args, kwargs), outputs, first_operation)

    setattr(intercepted, INTERCEPTION, True)
    # Bypasses Keras's attribute tracking, which refuses changes to a built layer.
    attributes = vars(layer)
    previous = attributes.get(name)
    attributes[name] = intercepted
    try:
        yield
    finally:
        if previous is None:
            del attributes[name]
        else:
            attributes[name] = previous


@contextmanager
def _disable_flash_attention(model: Any) -> Iterator[None]:
    """Let the layers of a model compute attention scores in a ``with`` block.

    With flash attention, which Keras does not support in TensorFlow, no layer computes all scores
    at once.
    """
    layers = [
        node.layer
        for node in collect_operations(model)
        if getattr(node.layer, _FLASH_ATTENTION, False)
    ]
    for layer in layers:
        vars(layer)[_FLASH_ATTENTION] = False
    try:
        yield
    finally:
        for layer in layers:
            vars(layer)[_FLASH_ATTENTION] = True


def keep_state() -> Any:
    """Return a context in which running a traced model does not change its state.

    The state consists of the memory of stateful layers and the seeds of random layers. Each
    `tf.function` needs its own context, because it cannot read tensors of another function.

    Returns
    -------
    context manager
        The context, which also returns the temporary values of variables.
    """
    return keras().StatelessScope()


@contextmanager
def _keep_state_except_seeds(model: Any) -> Iterator[None]:
    """Restore the variables of a model after the ``with`` block, except random seeds.

    Values that the block assigned to random seeds are kept.
    """
    with keep_state() as scope:
        yield
    for variable in model.variables:
        if variable.path.endswith("seed_generator_state"):
            value = scope.get_current_value(variable)
            if value is not None:
                variable.assign(value)


def build_model(model: Any, inputs: Any) -> None:
    """Build a model that creates its weights, or knows its outputs, only in its first call.

    Must be called with every input that a user passes; see `find_input_specs`.

    Raises
    ------
    ModelError
        If the model cannot be run on these inputs.
    """
    if is_network(model):
        if is_buildable(model) and (tensors := tensorflow().nest.flatten(inputs)):
            if tensors[0] is not inputs:
                raise ShapeError(
                    f"the function {model.name} takes one array: got a {type(inputs).__name__} of "
                    f"{len(tensors)} arrays"
                )
            if hasattr(tensors[0], "numpy"):  # no TensorSpec
                model.build_from(tensors[0].numpy())
        return
    if not model.built:
        check_model_state(model)
        with _TRACING, raise_model_errors(inputs):
            model(inputs, training=False)
        accept_model_state(model)
    if not getattr(model, "inputs", None):
        _BUILD_SPECS[model] = map_tensors(free_batch_axis, inputs)


def copy_input_specs(source: Any, target: Any) -> None:
    """Give a model the recorded inputs of another model with the same layers."""
    for specs in (_BUILD_SPECS, _TRACED_SPECS):
        if source in specs:
            specs[target] = specs[source]


def is_tracing(model: Any) -> bool:
    """Return whether this thread traces the layer calls of a model at the moment.

    While another thread traces any model, the function waits.
    """
    with _TRACING:
        return getattr(vars(model).get("call"), INTERCEPTION, False)


def flatten_outputs(structure: Any) -> list[Any]:
    """Return the tensors in a nested structure of dicts, lists and tuples.

    Unlike `tf.nest.flatten`, dict keys are not sorted.
    """
    return [value for _, value in _iterate_outputs(structure)]


def _iterate_outputs(outputs: Any, suffix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (suffix of the layer path, tensor) for each output of a layer.

    The first output of a list has no number, so that the first output of a layer has the layer's
    name.

    Parameters
    ----------
    outputs
        Nested structure of dicts, lists and tuples of tensors.
    suffix
        Suffix for the whole structure, such as ``[1]``.

    Yields
    ------
    tuple
        (suffix, tensor).
    """
    if isinstance(outputs, dict):
        for key, value in outputs.items():
            yield from _iterate_outputs(value, f"{suffix}[{key}]")
    elif isinstance(outputs, (list, tuple)):
        for position, value in enumerate(outputs):
            yield from _iterate_outputs(value, f"{suffix}[{position}]")
    else:
        yield _FIRST_OUTPUTS.sub("", suffix), outputs


class DataFormats:
    """Data formats of the tensors in a traced model.

    A layer without an own data format has the data format of its input.
    """

    def __init__(self, model: Any, inputs: Any) -> None:
        self._formats_by_id = {
            id(tensor): find_input_data_format(model, position)
            for position, tensor in enumerate(tensorflow().nest.flatten(inputs))
        }

    def copy(self, source: Any, target: Any) -> None:
        """Give a tensor the data format of another tensor."""
        self._formats_by_id[id(target)] = self._formats_by_id[id(source)]

    def assign(self, layer: Any, inputs: Any, *outputs: Any) -> str:
        """Determine the data format of a layer's outputs, and remember it.

        Returns
        -------
        str
            ``"channels_first"`` or ``"channels_last"``.
        """
        k = keras()
        declared = getattr(layer, "data_format", None)
        input_formats = [self._formats_by_id.get(id(tensor)) for tensor in flatten_outputs(inputs)]
        inherited = next(filter(None, input_formats), None)
        if any(kind.__name__ in _AXIS_MOVING_CLASSES for kind in type(layer).__mro__):
            inherited = None  # only the convention is left
        elif inherited is not None:
            inherited = permute_data_format(
                layer, inherited, len(flatten_outputs(outputs)[0].shape)
            )
        data_format = (
            declared if declared in DATA_FORMATS else inherited or k.config.image_data_format()
        )
        self._formats_by_id |= {id(tensor): data_format for tensor in flatten_outputs(outputs)}
        return str(data_format)


def trace_model(
    model: Any,
    inputs: Any,
    training: bool = False,
    replacements: Mapping[str, Any] | None = None,
    updates_state: bool = False,
) -> Trace:
    """Run a model on symbolic inputs and record its layer calls.

    Must be called while a `tf.function` is traced.

    Parameters
    ----------
    replacements
        Layer path -> replacement of this output of a layer call: a tensor, or a function of the
        output that returns a tensor. The layer runs anyway.
    updates_state
        Whether variables such as moving averages change in training mode.

    Returns
    -------
    Trace
        Outputs of the model, and its layer calls with the replaced outputs.

    Raises
    ------
    ModelError
        If the model cannot be run on these inputs.
    LayerError
        If an output that is to be replaced does not exist, or exists only in a loop.
    """
    tf = tensorflow()
    check_model_state(model)
    graph = tf.compat.v1.get_default_graph()
    start = graph.version
    replacements, edits = replacements or {}, get_output_edits(model)
    changed_paths: set[str] = set()
    aliases: dict[str, str] = {}
    records: list[_Record] = []
    time_steps = TimeSteps()
    with _TRACING, ExitStack() as interceptions:
        interceptions.callback(accept_model_state, model)  # also after an error, and last
        interceptions.enter_context(_disable_flash_attention(model))
        # A recurrent layer also runs its cell once outside the loop, only to infer shapes.
        for node in (node for node in collect_operations(model) if not node.is_looped):
            quantized = getattr(node.layer, "quantization_mode", None) is not None
            method_name = "quantized_call" if quantized else "call"

            def record(inputs: Any, outputs: Any, first_operation: int, node: Node = node) -> Any:
                earlier_calls = sum(record.node is node for record in records)

                def change(outputs: Any) -> Any:
                    path = _format_call_path(node, earlier_calls)
                    # The edits of a patched model also change an output that is replaced.
                    for changes in (replacements, edits):
                        outputs, paths = _replace_outputs(path, outputs, changes, aliases)
                        changed_paths.update(paths)
                    return outputs

                if replacements or edits:
                    outputs, passed_outputs = time_steps.capture(outputs, change)
                else:
                    outputs, passed_outputs = time_steps.capture(outputs)
                span = range(first_operation, graph.version)
                records.append(_Record(node, inputs, outputs, passed_outputs, span))
                return passed_outputs

            def distribute(
                original: Any,
                inputs: Any,
                training: Any = None,
                mask: Any = None,
                node: Node = node,
            ) -> Any:
                shape = None if mask is None else mask.shape
                mask_fits = shape is None or tuple(shape[:2]) == tuple(inputs.shape[:2])
                if mask_fits and not training and is_sample_wise(node.layer.layer):
                    return time_steps.call(node.layer, inputs, mask)
                first_record = len(records)
                outputs = original(inputs, training=training, mask=mask)
                records[first_record:] = _stack_time_steps(records[first_record:], node.layer.layer)
                return outputs

            replacement = distribute if is_time_distributed(node.layer) else None
            interceptions.enter_context(
                _intercept_method(node.layer, method_name, record, replacement)
            )
        interceptions.enter_context(
            _intercept_method(model, "call", lambda inputs, outputs, first_operation: outputs)
        )
        if training and not updates_state:
            interceptions.enter_context(_keep_state_except_seeds(model))
        with raise_model_errors(inputs):
            results = model(inputs, training=training)
    for path in (*replacements, *edits):
        if path not in changed_paths:
            raise LayerError(
                f"the output of the layer {path} cannot be changed: expected a layer that the "
                "model calls outside of loops"
            )
    if model in _BUILD_SPECS and _BUILD_SPECS[model] == map_tensors(free_batch_axis, inputs):
        _TRACED_SPECS[model] = _BUILD_SPECS[model]

    calls: list[Call] = []
    counts: Counter[str] = Counter()
    data_formats = DataFormats(model, inputs)
    for node, arguments, outputs, passed_outputs, span, parts in records:
        data_format = data_formats.assign(node.layer, arguments, outputs, passed_outputs)
        tensors = [
            (suffix, tensor)
            for suffix, tensor in _iterate_outputs(outputs)
            if isinstance(tensor, tf.Tensor)
            and getattr(tensor, "graph", graph) is graph
            and is_real_dtype(tensor.dtype)
            and tensor.shape.rank is not None
        ]
        if not tensors:
            continue
        repeat = node.call_number(counts[node.path])
        counts[node.path] += 1
        for suffix, tensor in tensors:
            shape = tensor.shape.as_list()
            info = describe_output(node, repeat, suffix, shape, tensor.dtype.name, data_format)
            calls.append(Call(node, info, tensor, arguments, span, parts))
    operations = graph.get_operations()[start:]
    return Trace(results, find_attention(model, inputs, calls, operations, start, aliases))


def describe_output(
    node: Node,
    repeat: int,
    suffix: str,
    shape: Iterable[int | None],
    dtype: str,
    data_format: str,
) -> LayerInfo:
    """Return the `LayerInfo` of an output of a layer call.

    Parameters
    ----------
    repeat
        Number of the call, from 0.
    suffix
        Suffix of the layer path for one of several outputs, such as ``[1]``; else empty.
    """
    return LayerInfo(
        path=node.path + (f":{repeat}" if repeat else "") + suffix,
        type=type(node.layer).__name__,
        shape=tuple(shape),
        dtype=dtype,
        data_format=data_format,
        parameters=node.parameters,
        index=node.index,
    )


def _replace_outputs(
    path: str, outputs: Any, replacements: Mapping[str, Any], aliases: dict[str, str]
) -> tuple[Any, list[str]]:
    """Replace some outputs of a layer call, see `trace_model`.

    Parameters
    ----------
    path
        Path of the layer call.
    aliases
        Name of a replaced tensor -> name of its replacement; replaced outputs are added.

    Returns
    -------
    tuple
        The outputs, and the paths of those that were replaced.
    """
    suffixes = iter([suffix for suffix, _ in _iterate_outputs(outputs)])
    replaced: list[str] = []

    def replace(tensor: Any) -> Any:
        output_path = path + next(suffixes)
        replacement = replacements.get(output_path)
        if replacement is None:
            return tensor
        result = replacement(tensor) if callable(replacement) else replacement
        if result.shape.rank != tensor.shape.rank:
            raise make_step_error(output_path)
        aliases[tensor.name] = result.name
        replaced.append(output_path)
        return result

    return _map_outputs(replace, outputs), replaced


def make_step_error(path: str) -> LayerError:
    """Return the error that the output of a layer exists only for single time steps."""
    return LayerError(
        f"the output of the layer {path} cannot be changed, because it runs for each time step: "
        "expected the layer TimeDistributed around it"
    )


def _map_outputs(function: Callable[[Any], Any], outputs: Any) -> Any:
    """Apply a function to each output of a layer, in the order of `_iterate_outputs`."""
    if isinstance(outputs, dict):
        return {key: _map_outputs(function, value) for key, value in outputs.items()}
    if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        return type(outputs)(*(_map_outputs(function, value) for value in outputs))
    if isinstance(outputs, (list, tuple)):
        return type(outputs)(_map_outputs(function, value) for value in outputs)
    return function(outputs)


def _format_call_path(node: Node, earlier_calls: int) -> str:
    """Return the path of a layer call, given the number of earlier calls of the layer."""
    repeat = node.call_number(earlier_calls)
    return node.path + (f":{repeat}" if repeat else "")


class _Record(NamedTuple):
    """Record of one layer call during a trace.

    `outputs` are the outputs that are shown, and `passed_outputs` those that the next layer
    receives. `span` are the numbers of the graph's operations that the call created.
    """

    node: Node
    inputs: Any
    outputs: Any
    passed_outputs: Any
    span: range
    parts: tuple[Any, ...] = ()


def _stack_time_steps(records: list[_Record], layer: Any) -> list[_Record]:
    """Stack the recorded calls of the time steps of a TimeDistributed layer.

    Returns
    -------
    list of _Record
        One record for all steps of each inner layer. The records are unchanged if the steps do not
        call the same layers.
    """
    tf = tensorflow()
    steps: list[list[_Record]] = [[]]
    for record in records:
        steps[-1].append(record)
        if record.node.layer is layer:
            steps.append([])
    *complete_steps, incomplete_step = steps
    if (
        incomplete_step
        or len({tuple(record.node.path for record in step) for step in complete_steps}) != 1
    ):
        return records
    stacked = []
    for step_records in zip(*complete_steps, strict=True):
        structures = [record.outputs for record in step_records]
        if not all(isinstance(tensor, tf.Tensor) for tensor in flatten_outputs(structures)):
            return records
        outputs = tf.nest.map_structure(lambda *tensors: tf.stack(tensors, 1), *structures)
        inputs = [record.inputs for record in step_records]
        parts = (
            *flatten_outputs(structures),
            *(part for record in step_records for part in record.parts),
        )
        span = range(step_records[0].span.start, step_records[-1].span.stop)
        stacked.append(_Record(step_records[0].node, inputs, outputs, outputs, span, parts))
    return stacked


def prepare_trace_inputs(model: Any, x: Any) -> Any:
    """Return the inputs to trace a model with: `x`, or the model's TensorSpecs.

    Returns
    -------
    structure of tensor or TensorSpec
        The inputs in the structure of the model input.

    Raises
    ------
    ModelError
        If `x` is None and the model's input is not known, or the model cannot be run on `x`.
    """
    if x is not None:
        inputs = prepare_inputs(model, x)
        build_model(model, inputs)
        return inputs
    specs = find_input_specs(model)
    if specs is None:
        raise ModelError(_explain_unknown_input(model))
    return specs


def find_input_specs(model: Any) -> Any:
    """Return the inputs of a model as TensorSpecs.

    Returns
    -------
    structure of TensorSpec or None
        In the structure of the model input. None: the inputs are not known.
    """
    # A model that is not functional may not know its inputs: Keras stores no dtypes, and no shapes
    # if the `build` method of the model takes none.
    specs = _TRACED_SPECS.get(model)
    return read_input_specs(model) if specs is None else specs


def _explain_unknown_input(model: Any) -> str:
    """Return an error message for a model whose input is not known.

    The message gives the reason and what to do.
    """
    shapes = (model.get_build_config() or {}).get("shapes_dict")
    if shapes:
        arguments = ", ".join(name.removesuffix("_shape") for name in shapes)
        return (
            f"the model {model.name!r} takes several arguments: got {arguments}; expected one, as "
            "for model.predict: write call(self, inputs) with a dict or list of them"
        )
    if model.built:
        return (
            f"the input of the model {model.name!r} is not known, because Keras stores no shapes "
            "for its build(): pass an input, once"
        )
    return f"the input of the model {model.name!r} is not known: call it once, or pass an input"
