"""What a model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from actgrid.errors import DtypeError, ShapeError
from actgrid.models.frameworks import keras, tensorflow

__all__ = [
    "as_tensors",
    "batch_size_of",
    "check_inputs",
    "input_names",
    "input_specs",
    "is_real",
    "map_tensors",
    "names_of",
    "partial_model",
]


def input_specs(model: Any) -> Any:
    """Return a structure of TensorSpecs with a free batch axis; None if the model does not know.

    A Functional or Sequential model knows its inputs, any other what it was first called with.
    """
    tf = tensorflow()
    structure = getattr(model, "_inputs_struct", None)
    if structure is None and getattr(model, "inputs", None):
        structure = model.inputs if len(model.inputs) > 1 else model.inputs[0]
    if structure is not None:
        return tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape, spec.dtype), structure)
    shape = (model.get_build_config() or {}).get("input_shape")
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
    """Return the names of inputs for a model, in the order of TensorFlow's nests."""
    if isinstance(inputs, Mapping):
        return sorted(inputs)  # as nests have them
    names, count = input_names(model), len(tensorflow().nest.flatten(inputs))
    if len(names) == count:
        return names
    return ["input"] if count == 1 else [f"input_{number}" for number in range(count)]


def partial_model(model: Any, outputs: Any) -> Any:
    """Return a model of the same inputs with other outputs, of its symbolic tensors."""
    inputs = model.inputs
    return keras().Model(inputs if len(inputs) > 1 else inputs[0], outputs)


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


def check_inputs(model: Any, inputs: Any) -> None:
    """Raise ShapeError if inputs do not fit a model that says what it takes."""
    specs = getattr(model, "inputs", None)
    if not specs:
        return
    if isinstance(inputs, Mapping):
        # By the keys that the model was made with, or else the names of its inputs.
        structure = getattr(model, "_inputs_struct", None)
        named = structure if isinstance(structure, Mapping) else {spec.name: spec for spec in specs}
        pairs = [(named[name], tensor) for name, tensor in inputs.items() if name in named]
        if len(pairs) < len(specs):
            missing = ", ".join(sorted(set(named) - set(inputs)))
            raise ShapeError(f"the model also takes the inputs {missing}")
    else:
        tensors = tensorflow().nest.flatten(inputs)
        if len(tensors) != len(specs):
            raise ShapeError(f"the model takes {len(specs)} inputs, not {len(tensors)}")
        pairs = list(zip(specs, tensors, strict=True))
    for spec, tensor in pairs:
        if tensor is None:
            continue
        expected, found = tuple(spec.shape), tuple(tensor.shape)
        if not _fits(expected, found):
            hint = "; add a batch axis: x[None]" if _fits(expected[1:], found) else ""
            raise ShapeError(f"the model takes an input of {expected}, not {found}{hint}")


def _fits(expected: tuple[int | None, ...], found: tuple[int | None, ...]) -> bool:
    return len(expected) == len(found) and all(
        want is None or have is None or want == have
        for want, have in zip(expected, found, strict=True)
    )
