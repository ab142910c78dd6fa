"""The inputs of a model: structure, names, shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from actgrid.errors import DtypeError, OptionError, ShapeError, suggest
from actgrid.models.frameworks import keras, tensorflow

__all__ = [
    "as_tensors",
    "batch_shape",
    "batch_size_of",
    "input_aliases",
    "input_names",
    "input_specs",
    "input_structure",
    "is_real",
    "join_batches",
    "leaves_with_paths",
    "map_tensors",
    "names_of",
    "partial_model",
    "position_of",
    "prepare_inputs",
]


class _ModelInput(NamedTuple):
    """A symbolic input of a model with all names that stand for it.

    The first of `names` is shown to users.
    """

    tensor: Any
    names: tuple[str, ...]


def input_structure(model: Any) -> Any:
    """Return a model's symbolic inputs in the structure that it takes; None if it has none.

    Functional models and Sequential models with an input have symbolic inputs.
    """
    structure = getattr(model, "_inputs_struct", None)
    if structure is None and getattr(model, "inputs", None):
        structure = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    return structure


def input_specs(model: Any) -> Any:
    """Return a structure of TensorSpecs with a free batch axis; None if the model does not know.

    A Functional or Sequential model knows its inputs, any other what it was first called with.
    """
    tf = tensorflow()
    structure = input_structure(model)
    if structure is not None:
        return tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), structure)
    get_config = getattr(model, "get_build_config", None)  # of Keras models alone
    config = None if get_config is None else get_config()
    shape = (config or {}).get("input_shape")
    return None if shape is None else _from_shapes(shape)


def _from_shapes(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {name: _from_shapes(one) for name, one in shape.items()}
    if all(side is None or isinstance(side, int) for side in shape):
        return tensorflow().TensorSpec((None, *shape[1:]), keras().config.floatx())
    return [_from_shapes(one) for one in shape]


def batch_size_of(model: Any) -> int | None:
    """Return the one batch size that a model takes; None if it takes any."""
    sizes = {spec.shape[0] for spec in tensorflow().nest.flatten(input_specs(model)) if spec}
    return next(iter(sizes)) if len(sizes) == 1 else None


def input_names(model: Any) -> list[str]:
    """Return the names of a model's input layers, in order; none if it has not said what it takes.

    Which are not those of its symbolic inputs, that Keras numbers.
    """
    return [one._keras_history.operation.name for one in getattr(model, "inputs", None) or []]


def names_of(model: Any, inputs: Any) -> list[str]:
    """Return the names of inputs for a model, in the order of TensorFlow's nests.

    Parameters
    ----------
    inputs
        What the model is run on: the result of `prepare_inputs`, or TensorSpecs.
    """
    known = list(_model_inputs(input_structure(model)))
    if known:
        return [entry.names[0] for entry in known]
    paths = [path for path, _ in leaves_with_paths(inputs)]
    if len(paths) == 1 and not any(isinstance(key, str) for key in paths[0]):
        return ["input"]
    return [
        ".".join(map(str, path)) if any(isinstance(key, str) for key in path) else f"input_{number}"
        for number, path in enumerate(paths)
    ]


def input_aliases(model: Any) -> list[tuple[str, ...]]:
    """Return all names of each input of a model, in order; none if it has no symbolic inputs."""
    return [entry.names for entry in _model_inputs(input_structure(model))]


def position_of(model: Any, inputs: Any, name: str) -> int:
    """Return the position of the input called `name`, in the order of TensorFlow's nests.

    Raises
    ------
    OptionError
        If the model has no such input.
    """
    names = names_of(model, inputs)
    for position, aliases in enumerate(input_aliases(model) or [(known,) for known in names]):
        if name in aliases:
            return position
    raise OptionError(_no_input(name, names))


def _no_input(name: object, names: Sequence[str]) -> str:
    hint = suggest(str(name), names)
    return f"the model has no input {name!r}{hint}; inputs: {', '.join(map(repr, names))}"


def leaves_with_paths(
    structure: Any, path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield the path and value of each leaf of a structure, in TensorFlow's order."""
    if isinstance(structure, Mapping):
        for key in sorted(structure):
            yield from leaves_with_paths(structure[key], (*path, key))
    elif isinstance(structure, (list, tuple)):
        for position, value in enumerate(structure):
            yield from leaves_with_paths(value, (*path, position))
    else:
        yield path, structure


def _model_inputs(structure: Any) -> Iterator[_ModelInput]:
    """Yield the inputs in a structure of a model's symbolic inputs.

    An input is called by the key that it has in the structure, by its path, and by the name of its
    layer. A key of several inputs stands for none of them.
    """
    leaves = [] if structure is None else list(leaves_with_paths(structure))
    keys = [path[-1] if path and isinstance(path[-1], str) else None for path, _ in leaves]
    for (path, tensor), key in zip(leaves, keys, strict=True):
        history = getattr(tensor, "_keras_history", None)
        layer = tensor.name if history is None else history.operation.name
        dotted = [".".join(map(str, path))] if any(isinstance(part, str) for part in path) else []
        if key is None:
            names = [layer, *dotted]
        else:
            names = [*([key] if keys.count(key) == 1 else []), *dotted, layer]
        yield _ModelInput(tensor, tuple(dict.fromkeys([*names, tensor.name])))


def partial_model(model: Any, outputs: Any) -> Any:
    """Return a model of the same inputs with other outputs, of its symbolic tensors."""
    inputs = model.inputs
    return keras().Model(inputs if len(inputs) > 1 else inputs[0], outputs)


def batch_shape(inputs: Any) -> Any:
    """Return the shape of a batch of inputs; of a dict of arrays, their shapes by name."""
    if isinstance(inputs, Mapping):
        return {name: array.shape for name, array in inputs.items()}
    return inputs.shape


def join_batches(batches: Sequence[Any]) -> Any:
    """Return batches of inputs of one shape, arrays or dicts of arrays, as one batch."""
    if isinstance(batches[0], Mapping):
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    return np.concatenate(batches)


def is_real(dtype: Any) -> bool:
    """Tell whether a TensorFlow type is one of real numbers, which can be drawn."""
    return bool(dtype.is_floating or dtype.is_integer or dtype.is_bool)


def as_tensors(x: Any) -> Any:
    """Return a model's input, an array or a structure of them, as tensors; TensorSpecs stay."""
    return map_tensors(_as_tensor, x)


def map_tensors(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Return a model's input with a function of each tensor in its place.

    An optional input that is left out, None, stays so.
    """

    def mapped(tensor: Any) -> Any:
        return None if tensor is None else function(tensor)

    return tensorflow().nest.map_structure(mapped, inputs)


def _as_tensor(value: Any) -> Any:
    tf = tensorflow()
    if isinstance(value, (tf.Tensor, tf.TensorSpec)):
        return value
    try:
        array = np.asarray(value)
        if array.dtype == np.float64:
            # As `model.predict` does: NumPy's default is no wish for double precision.
            array = array.astype(keras().config.floatx())
        return tf.convert_to_tensor(array)
    except (ValueError, TypeError) as error:
        raise DtypeError(
            f"the model's input must be arrays of numbers, not {type(value).__name__}: {error}"
        ) from error


def prepare_inputs(model: Any, x: Any, *, single: bool = False) -> Any:
    """Return a model's input as tensors in the structure that the model takes.

    What ``model.predict`` takes is taken here: arrays or lists of numbers, a list for one input, a
    batch without a channel axis of length 1. Inputs in a dict are found by name: the key with which
    the model was made, the path of keys, or the name of the input layer.

    Parameters
    ----------
    x
        Arrays, tensors or TensorSpecs, alone or in a list, tuple or dict.
    single
        Whether `x` may also be one sample without a batch axis.

    Raises
    ------
    DtypeError
        If something is no array of numbers.
    OptionError
        If a dict has a name that is no input of the model.
    ShapeError
        If an input is missing, or the number of inputs or a shape does not fit the model.
    """
    structure = input_structure(model)
    if structure is None:
        inputs = as_tensors(x)
        if single and getattr(inputs, "shape", None) is not None and inputs.shape.rank == 3:
            specs = input_specs(model)
            rank = specs.shape.rank if isinstance(specs, tensorflow().TensorSpec) else 4
            return inputs[None] if rank == 4 else inputs
        return inputs
    known = list(_model_inputs(structure))
    values = _arranged(structure, x, [entry.names[0] for entry in known])
    tensors = [_unpacked(value, entry.tensor) for value, entry in zip(values, known, strict=True)]
    if single:
        tensors = _batches_of_one(tensors, [tuple(entry.tensor.shape) for entry in known])
    for place, entry in enumerate(known):
        tensors[place] = _fitted(tensors[place], entry, several=len(known) > 1)
    return tensorflow().nest.pack_sequence_as(structure, tensors)


def _arranged(structure: Any, x: Any, names: Sequence[str]) -> list[Any]:
    """Return the values in `x`, one for each leaf of a structure of symbolic inputs, in order."""
    if isinstance(x, Mapping):
        if isinstance(structure, Mapping) and set(x) == set(structure):
            return [
                value for key in sorted(x) for value in _arranged(structure[key], x[key], names)
            ]
        return _by_name(structure, x, names)
    inside: list[Any] | None = None
    if isinstance(structure, Mapping):
        # Keras reads a list by position where the keys are in order, else neither order is meant.
        if list(structure) == sorted(structure):
            inside = list(structure.values())
    elif isinstance(structure, (list, tuple)):
        inside = list(structure)
    else:
        return [x]
    if inside is not None:
        if len(inside) == 1 and not (isinstance(x, (list, tuple)) and len(x) == 1):
            return _arranged(inside[0], x, names)
        if isinstance(x, (list, tuple)):
            if len(x) == len(inside):
                pairs = zip(inside, x, strict=True)
                return [value for part, given in pairs for value in _arranged(part, given, names)]
            if len(x) == len(list(leaves_with_paths(structure))):
                return list(x)
    count = len(x) if isinstance(x, (list, tuple)) else 1
    shown = ", ".join(map(repr, names))
    if inside is None:
        raise ShapeError(f"the model takes a dict of the inputs {shown}, not {_kind(x)}")
    raise ShapeError(f"the model takes {len(names)} inputs ({shown}), not {count}")


def _by_name(structure: Any, x: Mapping[Any, Any], names: Sequence[str]) -> list[Any]:
    """Return the values of a dict, one for each leaf of a structure of symbolic inputs."""
    known = list(_model_inputs(structure))
    shown = [entry.names[0] for entry in known]
    found: dict[int, Any] = {}
    for name, value in x.items():
        places = [place for place, entry in enumerate(known) if name in entry.names]
        if not places and isinstance(structure, Mapping) and name in structure:
            # A key of the outer dict stands for all inputs below it.
            paths = [path for path, _ in leaves_with_paths(structure)]
            places = [place for place, path in enumerate(paths) if path[0] == name]
            found |= zip(places, _arranged(structure[name], value, names), strict=True)
        elif not places:
            raise OptionError(_no_input(name, names if len(names) == len(known) else shown))
        elif places[0] in found:
            raise OptionError(f"the input {shown[places[0]]!r} is given twice")
        else:
            found[places[0]] = value
    missing = [
        shown[place]
        for place, entry in enumerate(known)
        if place not in found and not _is_optional(entry.tensor)
    ]
    if missing:
        raise ShapeError(f"the model also takes the inputs {', '.join(map(repr, missing))}")
    return [found.get(place) for place in range(len(known))]


def _is_optional(tensor: Any) -> bool:
    history = getattr(tensor, "_keras_history", None)
    return bool(history is not None and getattr(history.operation, "optional", False))


def _kind(x: Any) -> str:
    return f"a {type(x).__name__} of {len(x)}" if isinstance(x, (list, tuple)) else "one array"


def _unpacked(x: Any, symbolic: Any) -> Any:
    """Return the tensor of one input, which may be in a list of its own."""
    if x is None:
        return None
    is_listed = isinstance(x, (list, tuple)) and x and hasattr(x[0], "shape")
    # A list of samples is a batch; a list of batches is one of inputs.
    if is_listed and not _is_batch((len(x), *x[0].shape), tuple(symbolic.shape)):
        if len(x) > 1:
            raise ShapeError(f"the model takes 1 input, not {len(x)}")
        x = x[0]
    return _as_tensor(x)


def _is_batch(found: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    """Return whether a shape is that of an input, perhaps without a last axis of length 1."""
    return _fits(expected, found) or (expected[-1:] == (1,) and _fits(expected[:-1], found))


def _batches_of_one(tensors: Sequence[Any], shapes: Sequence[tuple[int | None, ...]]) -> list[Any]:
    """Return the tensors of one sample with a batch axis; those of a batch stay."""

    def is_sample(tensor: Any, expected: tuple[int | None, ...]) -> bool:
        found = tuple(tensor.shape)
        gray = expected[1:-1] if expected[-1:] == (1,) and len(expected) > 3 else None
        return _fits(expected[1:], found) or (gray is not None and _fits(gray, found))

    pairs = [pair for pair in zip(tensors, shapes, strict=True) if pair[0] is not None]
    if all(is_sample(*pair) for pair in pairs):
        return [tensor if tensor is None else tensor[None] for tensor in tensors]
    return list(tensors)


def _fitted(tensor: Any, entry: _ModelInput, several: bool) -> Any:
    """Return a tensor in the shape of an input, with or without a last axis of length 1.

    Raises
    ------
    ShapeError
        If it does not fit.
    """
    if tensor is None:
        return None
    expected, found = tuple(entry.tensor.shape), tuple(tensor.shape)
    if _fits(expected, found):
        return tensor
    if expected[-1:] == (1,) and _fits(expected[:-1], found):
        return _reshaped(tensor, (*found, 1))
    if found[-1:] == (1,) and _fits(expected, found[:-1]):
        return _reshaped(tensor, found[:-1])
    hint = "; add a batch axis: x[None]" if _fits(expected[1:], found) else ""
    name = f" {entry.names[0]!r}" if several else ""
    raise ShapeError(f"the model takes an input{name} of {expected}, not {found}{hint}")


def _reshaped(tensor: Any, shape: tuple[int | None, ...]) -> Any:
    """Return a tensor or TensorSpec with an axis of length 1 more or less at its end."""
    tf = tensorflow()
    if isinstance(tensor, tf.TensorSpec):
        return tf.TensorSpec(shape, tensor.dtype)
    more = len(shape) > tensor.shape.rank
    return tf.expand_dims(tensor, -1) if more else tf.squeeze(tensor, -1)


def _fits(expected: tuple[int | None, ...], found: tuple[int | None, ...]) -> bool:
    return len(expected) == len(found) and all(
        want is None or have is None or want == have
        for want, have in zip(expected, found, strict=True)
    )
