"""Functions of a model, compiled once and kept with it."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Protocol

from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import map_tensors

__all__ = ["Body", "compiled"]

# Of one model. What is made anew for each call, such as a lambda, would pile up otherwise.
_MOST_KEPT = 32

# Neither the keys nor the functions keep a model alive.
_KEPT: weakref.WeakKeyDictionary[Any, OrderedDict[Hashable, Callable[..., Any]]]
_KEPT = weakref.WeakKeyDictionary()


class Body(Hashable, Protocol):
    """What a compiled function does. Equal bodies share one function."""

    def __call__(self, model: Any, inputs: Any, /, *arguments: Any) -> Any:
        """Return a structure of symbolic tensors."""


def compiled(model: Any, body: Body) -> Callable[..., Any]:
    """Return a body as a compiled function of the model's inputs and further tensors.

    It is traced once for inputs of one shape, however large the batch is, and whatever the shapes
    of the other arguments. It sees new weights, but no layer that was put into the model later.
    """
    functions = _KEPT.setdefault(model, OrderedDict())
    if body not in functions:
        functions[body] = _function(weakref.ref(model), body)
        if len(functions) > _MOST_KEPT:
            functions.popitem(last=False)
    functions.move_to_end(body)
    return functions[body]


def _function(model: Callable[[], Any], body: Body) -> Callable[..., Any]:
    tf = tensorflow()
    traced: set[Any] = set()

    def trace(inputs: Any, *arguments: Any) -> Any:
        return body(model(), inputs, *arguments)

    # Keras runs layers without AutoGraph too.
    function = tf.function(trace, autograph=False)

    def call(inputs: Any, *arguments: Any) -> Any:
        def one_shape(tensor: Any) -> Any:
            return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

        def any_shape(tensor: Any) -> Any:
            return tf.TensorSpec((None,) * len(tensor.shape), tensor.dtype)

        specs = (
            map_tensors(one_shape, inputs),
            *map_tensors(any_shape, arguments),
        )
        key = tuple(tf.nest.flatten(specs))
        if key not in traced:
            function.get_concrete_function(*specs)
            traced.add(key)
        return function(inputs, *arguments)

    # Its equals, of later calls, are never run.
    call.body = body  # type: ignore[attr-defined]
    call.trace_count = function.experimental_get_tracing_count  # type: ignore[attr-defined]
    return call
