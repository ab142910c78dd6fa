"""Watching a model's layers while it is traced."""

from __future__ import annotations

import functools
import re
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from actgrid.errors import ModelError
from actgrid.models.calls import Call, Trace
from actgrid.models.data_formats import input_data_format, permuted_format
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.inputs import input_specs, is_real, map_tensors, prepare_inputs
from actgrid.models.layers import LayerInfo, Node, model_operations
from actgrid.models.network import is_network
from actgrid.models.refusals import running
from actgrid.models.time_steps import TimeSteps, is_time_distributed, sample_wise
from actgrid.options import DATA_FORMATS

__all__ = ["build", "known_specs", "leaves", "trace_inputs", "trace_model", "unchanged"]

# Layers and operations after which no axis is known to be that of channels.
_MOVES_AXES = {"Reshape", "Moveaxis", "Swapaxes"}
_FIRST_OUTPUTS = re.compile(r"(\[0\])+$")
# One trace at a time: two at once would undo each other's changes to a model they share.
_TRACING = threading.RLock()
# By model, TensorSpecs of what was given for it to be run on, and of what it could be traced with
# of that. What it is only tried on is neither.
_GIVEN: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()
_TRACED: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


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


def build(model: Any, inputs: Any) -> None:
    """Make the layers and weights of a Keras model that makes them when first called.

    To be called with whatever a model is to be run on; see `known_specs`.

    Raises
    ------
    ModelError
        If it cannot be run on these inputs.
    """
    if is_network(model):
        return
    if not model.built:
        with _TRACING, running(inputs):
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
        with running(inputs):
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


def trace_inputs(model: Any, x: Any) -> Any:
    """Return what a model can be traced with: `x`, or if that is None what the model says it takes.

    Raises
    ------
    ModelError
        If it does not say, or cannot be run on `x`.
    """
    if x is not None:
        inputs = prepare_inputs(model, x)
        build(model, inputs)
        return inputs
    specs = known_specs(model)
    if specs is None:
        raise ModelError(_unknown_input(model))
    return specs


def known_specs(model: Any) -> Any:
    """Return what a model takes as TensorSpecs, as it says or was run on; None if not known."""
    # Models that are not functional may not know it: Keras keeps no dtypes, and no shapes where
    # the model's own `build` takes none.
    specs = _TRACED.get(model)
    return input_specs(model) if specs is None else specs


def _unknown_input(model: Any) -> str:
    """Return why it is not known what a model takes, and the way on."""
    shapes = (model.get_build_config() or {}).get("shapes_dict")
    if shapes:
        arguments = ", ".join(name.removesuffix("_shape") for name in shapes)
        return (
            f"the model {model.name!r} takes several arguments ({arguments}), and actgrid, like "
            "model.predict, gives it one: write call(self, inputs) with a dict or list of them"
        )
    if model.built:
        return (
            f"the input of the model {model.name!r} is not known, as Keras keeps no shapes for "
            "its build(): pass an input, once"
        )
    return f"the input of the model {model.name!r} is not known: call it once, or pass an input"
