"""Inspect the inputs of a model, and convert data to its input structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from actgrid.errors import DtypeError, OptionError, ShapeError, suggest
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.network import is_buildable, is_network

__all__ = [
    "as_tensors",
    "build_submodel",
    "find_input_position",
    "flatten_with_paths",
    "free_batch_axis",
    "get_batch_shape",
    "get_fixed_batch_size",
    "get_input_structure",
    "is_real_dtype",
    "iterate_batches",
    "join_batches",
    "list_input_aliases",
    "list_input_layer_names",
    "list_input_names",
    "map_tensors",
    "prepare_inputs",
    "read_input_specs",
]


class _ModelInput(NamedTuple):
    """Record of a symbolic input of a model and every name that users may give it.

    Error messages show the first of `names`.
    """

    tensor: Any
    names: tuple[str, ...]


def get_input_structure(model: Any) -> Any:
    """Return the symbolic inputs of a model in their nested structure.

    Returns
    -------
    structure of KerasTensor or None
        A tensor, list or dict. None: the model has no symbolic inputs. Only functional models, and
        Sequential models with an input, have them.
    """
    structure = getattr(model, "_inputs_struct", None)
    if structure is None and getattr(model, "inputs", None):
        structure = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return structure


def read_input_specs(model: Any) -> Any:
    """Return a model's declared inputs as TensorSpecs; None if they are unknown.

    A Functional or Sequential model declares its inputs. Other models store the shapes of their
    first call.

    Returns
    -------
    structure of TensorSpec or None
        In the structure of the model input. None: the inputs are not known.
    """
    tf = tensorflow()
    structure = get_input_structure(model)
    if structure is not None:
        return tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), structure)
    get_config = getattr(model, "get_build_config", None)  # only Keras models have this method
    config = None if get_config is None else get_config()
    shape = (config or {}).get("input_shape")
    return None if shape is None else _make_specs(shape)


def _make_specs(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {name: _make_specs(item) for name, item in shape.items()}
    if all(side is None or isinstance(side, int) for side in shape):
        return tensorflow().TensorSpec((None, *shape[1:]), keras().config.floatx())
    return [_make_specs(item) for item in shape]


def get_fixed_batch_size(model: Any) -> int | None:
    """Return the fixed batch size of a model's inputs.

    Returns
    -------
    int or None
        None: the model accepts batches of any size, or its inputs have different batch sizes.
    """
    sizes = {spec.shape[0] for spec in tensorflow().nest.flatten(read_input_specs(model)) if spec}
    return next(iter(sizes)) if len(sizes) == 1 else None


def list_input_layer_names(model: Any) -> list[str]:
    """Return the names of a model's input layers, in order.

    The list is empty if the model declares no inputs.

    These are not the names of the symbolic inputs, which Keras numbers.

    Returns
    -------
    list of str
        A name for each input.
    """
    return [tensor._keras_history.operation.name for tensor in getattr(model, "inputs", None) or []]


def list_input_names(model: Any, inputs: Any) -> list[str]:
    """Return the names of a model's inputs, in the order of `tf.nest`.

    Parameters
    ----------
    model
        The model.
    inputs
        Inputs in the structure of the model: the result of `prepare_inputs`, or TensorSpecs.

    Returns
    -------
    list of str
        A name for each input.
    """
    entries = list(_iterate_inputs(get_input_structure(model)))
    if entries:
        return [entry.names[0] for entry in entries]
    paths = [path for path, _ in flatten_with_paths(inputs)]
    if len(paths) == 1 and not any(isinstance(key, str) for key in paths[0]):
        return ["input"]
    return [
        ".".join(map(str, path)) if any(isinstance(key, str) for key in path) else f"input_{number}"
        for number, path in enumerate(paths)
    ]


def list_input_aliases(model: Any) -> list[tuple[str, ...]]:
    """List all names that users may give each symbolic input of a model.

    Returns
    -------
    list of tuple of str
        Names of each input, in the order of the inputs.
    """
    return [entry.names for entry in _iterate_inputs(get_input_structure(model))]


def find_input_position(model: Any, inputs: Any, name: str) -> int:
    """Return the position of a model input by its name.

    Returns
    -------
    int
        Position in the order of `tf.nest.flatten`.

    Raises
    ------
    OptionError
        If the model has no input of this name.
    """
    names = list_input_names(model, inputs)
    for position, aliases in enumerate(
        list_input_aliases(model) or [(known_name,) for known_name in names]
    ):
        if name in aliases:
            return position
    raise OptionError(_explain_unknown_name(name, names))


def _explain_unknown_name(name: object, names: Sequence[str]) -> str:
    hint = suggest(str(name), names)
    return f"the model has no input {name!r}{hint}; inputs: {', '.join(map(repr, names))}"


def flatten_with_paths(
    structure: Any, path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield (path, value) for each leaf of a nested structure of dicts and lists.

    The path is a tuple of keys and positions. The order is that of `tf.nest.flatten`.
    """
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from flatten_with_paths(structure[key], (*path, key))
    elif isinstance(structure, (list, tuple)):
        for position, value in enumerate(structure):
            yield from flatten_with_paths(value, (*path, position))
    else:
        yield path, structure


def _iterate_inputs(structure: Any) -> Iterator[_ModelInput]:
    """Yield a `_ModelInput` for each symbolic input of a model.

    An input can be named by its key in the structure, by its path, and by the name of its layer. A
    key that several inputs share names none of them.

    Parameters
    ----------
    structure
        The symbolic inputs in their nested structure.

    Yields
    ------
    _ModelInput
        The tensor and names of an input.
    """
    leaves = [] if structure is None else list(flatten_with_paths(structure))
    keys = [path[-1] if path and isinstance(path[-1], str) else None for path, _ in leaves]
    for (path, tensor), key in zip(leaves, keys, strict=True):
        history = getattr(tensor, "_keras_history", None)
        layer = tensor.name if history is None else history.operation.name
        dotted_path = (
            [".".join(map(str, path))] if any(isinstance(part, str) for part in path) else []
        )
        if key is None:
            names = [layer, *dotted_path]
        else:
            names = [*([key] if keys.count(key) == 1 else []), *dotted_path, layer]
        yield _ModelInput(tensor, tuple(dict.fromkeys([*names, tensor.name])))


def build_submodel(model: Any, outputs: Any) -> Any:
    """Return a Keras model with the inputs of a model and other symbolic outputs."""
    inputs = model.inputs
    return keras().Model(inputs if len(inputs) > 1 else inputs[0], outputs)


def get_batch_shape(inputs: Any) -> Any:
    """Return the shape of a batch of model inputs.

    Returns
    -------
    tuple of int or dict
        Shape of the array. For a dict of arrays: input name -> shape.
    """
    if isinstance(inputs, Mapping):
        return {name: array.shape for name, array in inputs.items()}
    return inputs.shape


def join_batches(batches: Sequence[Any]) -> Any:
    """Concatenate batches of model inputs along the batch axis.

    Each batch is an array, or a dict of arrays by input name.
    """
    if isinstance(batches[0], Mapping):
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return np.concatenate(batches)


def is_real_dtype(dtype: Any) -> bool:
    """Return whether a TensorFlow dtype holds integers, floats or bools."""
    return bool(dtype.is_floating or dtype.is_integer or dtype.is_bool)


def as_tensors(x: Any) -> Any:
    """Convert the arrays in a structure of model inputs to tensors.

    TensorSpecs in the structure are kept.
    """
    return map_tensors(_convert_to_tensor, x)


def free_batch_axis(tensor: Any) -> Any:
    """Return the TensorSpec of a tensor or TensorSpec, with any batch size."""
    return tensorflow().TensorSpec((None, *tensor.shape[1:]), tensor.dtype)


def map_tensors(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Apply a function to each tensor in a structure of model inputs.

    The function is not called for None, which stands for an omitted optional input.

    Returns
    -------
    structure
        The results in the structure of `inputs`.
    """

    def apply(tensor: Any) -> Any:
        return None if tensor is None else function(tensor)

    return tensorflow().nest.map_structure(apply, inputs)


def iterate_batches(inputs: Any, batch_size: int) -> Iterator[Any]:
    """Yield consecutive parts of a batch of model inputs, with at most `batch_size` samples."""
    tensors = [tensor for tensor in tensorflow().nest.flatten(inputs) if tensor is not None]
    for start in range(0, len(tensors[0]), batch_size):
        yield map_tensors(itemgetter(slice(start, start + batch_size)), inputs)


def _convert_to_tensor(value: Any) -> Any:
    tf = tensorflow()
    if isinstance(value, (tf.Tensor, tf.TensorSpec)):
        return value
    try:
        array = np.asarray(value)
        if array.dtype == np.float64:
            # As in `model.predict`: float64 is NumPy's default, not a request for it.
            array = array.astype(keras().config.floatx())
        return tf.convert_to_tensor(array)
    except (ValueError, TypeError) as error:
        raise DtypeError(
            f"the model's input must be arrays of numbers, not {type(value).__name__}: {error}"
        ) from error


def prepare_inputs(model: Any, x: Any, *, single: bool = False) -> Any:
    """Convert data to tensors in the input structure of a model.

    The accepted forms are those of ``model.predict``: arrays or lists of numbers, a list for one
    input, a batch without a channel axis of length 1. The keys of a dict are names of inputs: the
    key that the model was created with, the path of keys, or the name of the input layer.

    Parameters
    ----------
    model
        The model.
    x
        Arrays, tensors or TensorSpecs, alone or in a list, tuple or dict.
    single
        Whether `x` may also be one sample without a batch axis.

    Returns
    -------
    structure of tensor
        The inputs with batch axes, in the structure of the model input.

    Raises
    ------
    DtypeError
        If a value is not an array of numbers.
    OptionError
        If a key of a dict is not an input of the model.
    ShapeError
        If an input is missing, or the number of inputs or a shape does not fit the model.
    """
    structure = get_input_structure(model)
    if structure is None:
        inputs = as_tensors(_join_samples(x) if is_network(model) and is_buildable(model) else x)
        if single and getattr(inputs, "shape", None) is not None and inputs.shape.rank == 3:
            specs = read_input_specs(model)
            rank = specs.shape.rank if isinstance(specs, tensorflow().TensorSpec) else 4
            return inputs[None] if rank == 4 else inputs
        return inputs
    entries = list(_iterate_inputs(structure))
    values = _arrange_values(structure, x, [entry.names[0] for entry in entries])
    tensors = [
        _unpack_value(value, entry.tensor) for value, entry in zip(values, entries, strict=True)
    ]
    if single:
        tensors = _add_batch_axes(tensors, [tuple(entry.tensor.shape) for entry in entries])
    for position, entry in enumerate(entries):
        tensors[position] = _fit_shape(
            tensors[position], entry, has_several_inputs=len(entries) > 1
        )
    return tensorflow().nest.pack_sequence_as(structure, tensors)


def _join_samples(x: Any) -> Any:
    """Join a list of numbers or of samples to one array; return another value unchanged."""
    if not isinstance(x, (list, tuple)):
        return x
    try:
        array = np.asarray(x)
    except (TypeError, ValueError):  # samples of different shapes
        return x
    are_batches = array.ndim > 4 and hasattr(x[0], "shape")
    return x if are_batches or array.dtype.kind not in "biuf" else array


def _arrange_values(structure: Any, x: Any, names: Sequence[str]) -> list[Any]:
    """Return the values that a user passed as model input, in the order of the inputs.

    Parameters
    ----------
    structure
        Symbolic inputs of the model in their nested structure.
    x
        Values of the inputs: a dict, list or array.
    names
        Names of the inputs, for error messages.

    Returns
    -------
    list
        One value for each input, in the order of `tf.nest.flatten`.
    """
    if isinstance(x, Mapping):
        if isinstance(structure, Mapping) and set(x) == set(structure):
            return [
                value
                for key in sorted(x)
                for value in _arrange_values(structure[key], x[key], names)
            ]
        return _arrange_named_values(structure, x, names)
    children: list[Any] | None = None
    if isinstance(structure, Mapping):
        # Keras reads a list by position only if the keys are sorted; else the order is ambiguous.
        if list(structure) == sorted(structure):
            children = list(structure.values())
    elif isinstance(structure, (list, tuple)):
        children = list(structure)
    else:
        return [x]
    if children is not None:
        if len(children) == 1 and not (isinstance(x, (list, tuple)) and len(x) == 1):
            return _arrange_values(children[0], x, names)
        if isinstance(x, (list, tuple)):
            if len(x) == len(children):
                pairs = zip(children, x, strict=True)
                return [
                    value
                    for child, value_part in pairs
                    for value in _arrange_values(child, value_part, names)
                ]
            if len(x) == len(list(flatten_with_paths(structure))):
                return list(x)
    count = len(x) if isinstance(x, (list, tuple)) else 1
    name_list = ", ".join(map(repr, names))
    if children is None:
        raise ShapeError(
            f"the model takes a dict of the inputs {name_list}, not {_describe_value(x)}"
        )
    raise ShapeError(f"the model takes {len(names)} inputs ({name_list}), not {count}")


def _arrange_named_values(structure: Any, x: Mapping[Any, Any], names: Sequence[str]) -> list[Any]:
    """Return values that were passed by input name, in the order of the inputs.

    Parameters
    ----------
    structure
        Symbolic inputs of the model in their nested structure.
    x
        Input name -> value.
    names
        Names of the inputs, for error messages.

    Returns
    -------
    list
        One value for each input, in the order of `tf.nest.flatten`.
    """
    entries = list(_iterate_inputs(structure))
    known_names = [entry.names[0] for entry in entries]
    values_by_position: dict[int, Any] = {}
    for name, value in x.items():
        positions = [position for position, entry in enumerate(entries) if name in entry.names]
        if not positions and isinstance(structure, Mapping) and name in structure:
            # A key of the outer dict names all inputs below it.
            paths = [path for path, _ in flatten_with_paths(structure)]
            positions = [position for position, path in enumerate(paths) if path[0] == name]
            values_by_position |= zip(
                positions, _arrange_values(structure[name], value, names), strict=True
            )
        elif not positions:
            raise OptionError(
                _explain_unknown_name(name, names if len(names) == len(entries) else known_names)
            )
        elif positions[0] in values_by_position:
            raise OptionError(f"the input {known_names[positions[0]]!r} is given twice")
        else:
            values_by_position[positions[0]] = value
    missing = [
        known_names[position]
        for position, entry in enumerate(entries)
        if position not in values_by_position and not _is_optional(entry.tensor)
    ]
    if missing:
        raise ShapeError(f"the model also takes the inputs {', '.join(map(repr, missing))}")
    return [values_by_position.get(position) for position in range(len(entries))]


def _is_optional(tensor: Any) -> bool:
    history = getattr(tensor, "_keras_history", None)
    return bool(history is not None and getattr(history.operation, "optional", False))


def _describe_value(x: Any) -> str:
    return f"a {type(x).__name__} of {len(x)}" if isinstance(x, (list, tuple)) else "one array"


def _unpack_value(x: Any, symbolic: Any) -> Any:
    """Convert the value of one model input to a tensor.

    A list of samples is joined to a batch. A list of one batch is unwrapped. None is returned
    unchanged.
    """
    if x is None:
        return None
    is_listed = isinstance(x, (list, tuple)) and x and hasattr(x[0], "shape")
    # A list of samples is a batch; a list of batches is a list of inputs.
    if is_listed and not _is_batch((len(x), *x[0].shape), tuple(symbolic.shape)):
        if len(x) > 1:
            raise ShapeError(f"the model takes 1 input, not {len(x)}")
        x = x[0]
    return _convert_to_tensor(x)


def _is_batch(shape: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Return whether an array shape fits the shape of a model input.

    A last axis of length 1 may be missing in `shape`.
    """
    return _fits(expected, shape) or (expected[-1:] == (1,) and _fits(expected[:-1], shape))


def _add_batch_axes(tensors: Sequence[Any], shapes: Sequence[tuple[int | None, ...]]) -> list[Any]:
    """Add a batch axis to each tensor, if the tensors are the inputs of one sample.

    Tensors that have a batch axis already are returned unchanged.
    """

    def is_sample(tensor: Any, expected: tuple[int | None, ...]) -> bool:
        shape = tuple(tensor.shape)
        without_channels = expected[1:-1] if expected[-1:] == (1,) and len(expected) > 3 else None
        return _fits(expected[1:], shape) or (
            without_channels is not None and _fits(without_channels, shape)
        )

    pairs = [pair for pair in zip(tensors, shapes, strict=True) if pair[0] is not None]
    if all(is_sample(*pair) for pair in pairs):
        return [tensor if tensor is None else tensor[None] for tensor in tensors]
    return list(tensors)


def _fit_shape(tensor: Any, entry: _ModelInput, has_several_inputs: bool) -> Any:
    """Return a tensor in the shape of a model input.

    A last axis of length 1 is added or removed if needed.

    Returns
    -------
    tensor or None
        None: `tensor` is None, an omitted optional input.

    Raises
    ------
    ShapeError
        If the shape does not fit.
    """
    if tensor is None:
        return None
    expected, shape = tuple(entry.tensor.shape), tuple(tensor.shape)
    if _fits(expected, shape):
        return tensor
    if expected[-1:] == (1,) and _fits(expected[:-1], shape):
        return _change_last_axis(tensor, (*shape, 1))
    if shape[-1:] == (1,) and _fits(expected, shape[:-1]):
        return _change_last_axis(tensor, shape[:-1])
    hint = "; add a batch axis: x[None]" if _fits(expected[1:], shape) else ""
    name = f" {entry.names[0]!r}" if has_several_inputs else ""
    raise ShapeError(f"the model takes an input{name} of {expected}, not {shape}{hint}")


def _change_last_axis(tensor: Any, shape: tuple[int | None, ...]) -> Any:
    """Add or remove a last axis of length 1 of a tensor or TensorSpec.

    Parameters
    ----------
    shape
        The new shape, with or without the axis.
    """
    tf = tensorflow()
    if isinstance(tensor, tf.TensorSpec):
        return tf.TensorSpec(shape, tensor.dtype)
    is_added = len(shape) > tensor.shape.rank
    return tf.expand_dims(tensor, -1) if is_added else tf.squeeze(tensor, -1)


def _fits(expected: tuple[int | None, ...], shape: tuple[int | None, ...]) -> bool:
    return len(expected) == len(shape) and all(
        expected_side is None or side is None or expected_side == side
        for expected_side, side in zip(expected, shape, strict=True)
    )
