"""Functions of a model, compiled once and kept with it."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Protocol

from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import map_tensors

__all__ = ["Body", "Compiled", "compiled", "kept"]

# Of one model. What is made anew for each call, such as a lambda, would pile up otherwise.
_MOST_KEPT = 32
_ATTRIBUTE = "_actgrid_functions"


class Body(Hashable, Protocol):
    """What a compiled function does. Equal bodies share one function."""

    def __call__(self, model: Any, inputs: Any, /, *arguments: Any) -> Any:
        """Return a structure of symbolic tensors."""


class Compiled:
    """A body as a compiled function of a model's inputs and further tensors.

    It is traced once for inputs of one shape, however large the batch is, and whatever the shapes
    of the other arguments. It sees new weights, but no layer that was put into the model later.
    It does not keep the model alive.

    Attributes
    ----------
    body
        Which is run. Equal ones of later calls are not.
    """

    def __init__(self, model: Any, body: Body) -> None:
        self.body: Any = body
        model_of = weakref.ref(model)

        def trace(inputs: Any, *arguments: Any) -> Any:
            return body(model_of(), inputs, *arguments)

        self._function = GraphFunction(trace)
        self._traced: set[Any] = set()

    def __call__(self, inputs: Any, *arguments: Any) -> Any:
        """Run the body; see `Body`."""
        tf = tensorflow()

        def one_shape(tensor: Any) -> Any:
            return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

        def any_shape(tensor: Any) -> Any:
            return tf.TensorSpec((None,) * len(tensor.shape), tensor.dtype)

        specs = map_tensors(one_shape, inputs), *map_tensors(any_shape, arguments)
        shapes = tuple(tf.nest.flatten(specs))
        if shapes not in self._traced:
            self._function.trace(*specs)
            self._traced.add(shapes)
        return self._function(inputs, *arguments)

    @property
    def trace_count(self) -> int:
        """How often it was traced."""
        return self._function.trace_count


class _Functions(OrderedDict[Body, Compiled]):
    """Compiled functions that stay behind when their model is copied or pickled."""

    def __reduce__(self) -> tuple[type[_Functions], tuple[()]]:
        return _Functions, ()


def kept(model: Any) -> OrderedDict[Body, Compiled]:
    """Return the functions that are kept with a model, the one used last at the end."""
    # As an attribute, and past Keras's tracking of these: a body may hold the model, as functions
    # of its users do, and in a table of our own would keep it alive for good.
    functions: _Functions = vars(model).setdefault(_ATTRIBUTE, _Functions())
    return functions


def compiled(model: Any, body: Body) -> Compiled:
    """Return the compiled function of a body, which is made once and kept with the model."""
    functions = kept(model)
    if body not in functions:
        functions[body] = Compiled(model, body)
        if len(functions) > _MOST_KEPT:
            functions.popitem(last=False)
    functions.move_to_end(body)
    return functions[body]
