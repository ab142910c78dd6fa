"""Compile functions of a model once, and cache them with the model."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Protocol

from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import map_tensors

__all__ = ["Body", "CompiledFunction", "compile_function", "get_function_cache"]

# Number of compiled functions cached for a model. A target function that is created anew for each
# call, such as a lambda, adds a function each time.
_MAX_FUNCTIONS = 32
_ATTRIBUTE = "_actgrid_functions"


class Body(Hashable, Protocol):
    """Protocol of a function to compile. Equal bodies share one compiled function."""

    def __call__(self, model: Any, inputs: Any, /, *arguments: Any) -> Any:
        """Return symbolic tensors that are computed from the model's symbolic inputs."""


class CompiledFunction:
    """Compiled function of a model's inputs and further tensors.

    The function is traced once for each shape of the inputs, with any batch size and any shapes of
    the other arguments. It uses the current weights of the model, but not layers that were added
    later. It holds only a weak reference to the model.

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

        def free_batch_axis(tensor: Any) -> Any:
            return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

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


class _FunctionCache(OrderedDict[Body, CompiledFunction]):
    """Cache of a model's compiled functions, which copies of the model do not share."""

    def __reduce__(self) -> tuple[type[_FunctionCache], tuple[()]]:
        return _FunctionCache, ()


def get_function_cache(model: Any) -> OrderedDict[Body, CompiledFunction]:
    """Return a model's cache of compiled functions, the most recently used at the end."""
    # The cache is an attribute of the model: a body may refer to the model, as target functions
    # do, so a module-level cache would keep the model alive. `vars` bypasses Keras's attribute
    # tracking.
    functions: _FunctionCache = vars(model).setdefault(_ATTRIBUTE, _FunctionCache())
    return functions


def compile_function(model: Any, body: Body) -> CompiledFunction:
    """Compile a function of a model, or return the cached result of an earlier call."""
    functions = get_function_cache(model)
    if body not in functions:
        functions[body] = CompiledFunction(model, body)
        if len(functions) > _MAX_FUNCTIONS:
            functions.popitem(last=False)
    functions.move_to_end(body)
    return functions[body]
