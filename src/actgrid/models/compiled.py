"""Compile functions of a model once, and cache them with the model."""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from typing import Any, Protocol

from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import free_batch_axis, map_tensors
from actgrid.models.model_cache import cache_with_model

__all__ = ["Body", "CompiledFunction", "compile_function", "trace_once"]


class Body(Hashable, Protocol):
    """Protocol of a function to compile. Equal bodies share one compiled function."""

    def __call__(self, model: Any, inputs: Any, /, *arguments: Any) -> Any:
        """Return symbolic tensors that are computed from the model's symbolic inputs."""


class CompiledFunction:
    """Compiled function of a model's inputs and further tensors.

    The function is traced once for each shape of the inputs, with any batch size and any shapes of
    the other arguments. It uses the current weights of the model. It holds only a weak reference to
    the model.

    Attributes
    ----------
    body
        The function that is compiled. Equal bodies of later calls are not run.
    """

    def __init__(self, model: Any, body: Body) -> None:
        self.body: Any = body
        get_model = weakref.ref(model)

        def trace(inputs: Any, *arguments: Any) -> Any:
            return body(get_model(), inputs, *arguments)

        self._function = GraphFunction(trace)
        self._traced_shapes: set[Any] = set()

    def __call__(self, inputs: Any, *arguments: Any) -> Any:
        """Run the compiled function on tensors; return what its body returns."""
        tf = tensorflow()

        def free_all_axes(tensor: Any) -> Any:
            return tf.TensorSpec((None,) * len(tensor.shape), tensor.dtype)

        specs = map_tensors(free_batch_axis, inputs), *map_tensors(free_all_axes, arguments)
        shapes = tuple(tf.nest.flatten(specs))
        if shapes not in self._traced_shapes:
            self._function.trace(*specs)
            self._traced_shapes.add(shapes)
        return self._function(inputs, *arguments)

    @property
    def trace_count(self) -> int:
        """Number of times the function was traced."""
        return self._function.trace_count


def compile_function(model: Any, body: Body) -> CompiledFunction:
    """Compile a function of a model, or return the cached result of an earlier call."""
    return cache_with_model(model, body, lambda: CompiledFunction(model, body))


def trace_once(model: Any, body: Body, inputs: Any) -> Any:
    """Trace a function of a model once, without running it, and return what it returns.

    Parameters
    ----------
    model
        The model.
    body
        Function of the model and its symbolic inputs that returns a description of the model, which
        contains no symbolic tensors. Results of equal bodies are cached.
    inputs
        Tensors or TensorSpecs in the structure of the model input.

    Returns
    -------
    object
        The description.
    """
    tf = tensorflow()

    def make_spec(tensor: Any) -> Any:
        return tf.TensorSpec(tensor.shape, tensor.dtype)

    specs = map_tensors(make_spec, inputs)

    def trace() -> Any:
        descriptions: list[Any] = []
        GraphFunction(lambda inputs: descriptions.append(body(model, inputs))).trace(specs)
        return descriptions[-1]

    return cache_with_model(model, (body, *tf.nest.flatten(specs)), trace)
