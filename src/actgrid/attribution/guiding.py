"""Guided backpropagation: ReLUs pass back only positive gradients."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import Any

import numpy as np

from actgrid.errors import ModelError
from actgrid.models.frameworks import keras, tensorflow

__all__ = ["guided"]

# One trace at a time changes methods of Keras.
_PATCHING = threading.RLock()
_NAME = "ActgridGuided"


@contextmanager
def guided(graph: Any) -> Iterator[Callable[[], None]]:
    """Yield a function that makes the ReLUs of a model guided, to be called after its trace.

    A ReLU is an operation of TensorFlow (Relu, Relu6, LeakyRelu), a maximum or a selection with
    zero or with a multiple of the input, a product x * (x > 0), or a function of Keras made of
    several operations: PReLU, and ReLU with a slope and a threshold or a largest value. Those of
    several operations are guided at their output. The ReLU6 in a hard sigmoid is none.

    Parameters
    ----------
    graph
        The graph in which the model is traced.

    Raises
    ------
    ModelError
        By the function, if the model has no ReLU.
    """
    inner: set[str] = set()
    outputs: list[Any] = []

    def guided_at_output(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function of Keras whose output is guided, not the operations inside."""

        @wraps(function)
        def watched(*args: Any, **kwargs: Any) -> Any:
            if tensorflow().compat.v1.get_default_graph() is not graph:
                return function(*args, **kwargs)
            before = len(graph.get_operations())
            result = tensorflow().identity(function(*args, **kwargs))
            inner.update(operation.name for operation in graph.get_operations()[before:])
            outputs.append(result.op)
            return result

        return watched

    def guide() -> None:
        relus = [
            operation
            for operation in graph.get_operations()
            if operation.name not in inner and _is_relu(operation)
        ]
        if not relus and not outputs:
            raise ModelError("guided_backprop guides ReLUs, and the model has none; try saliency")
        for operation in relus + outputs:
            operation._set_attr("_gradient_op_type", _attribute(_registered()[operation.type]))

    with _PATCHING, ExitStack() as patches:
        for owner, name, wrap in _compound_relus():
            patches.enter_context(_patched(owner, name, wrap, guided_at_output))
        yield guide


@contextmanager
def _patched(owner: Any, name: str, wrap: Callable[..., Any], decorate: Any) -> Iterator[None]:
    original = vars(owner)[name]
    setattr(owner, name, wrap(original, decorate))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _compound_relus() -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return the functions of Keras that make a ReLU of several others."""

    def relu(original: staticmethod[..., Any], decorate: Any) -> staticmethod[..., Any]:
        function = original.__func__
        compound = decorate(function)

        @wraps(function)
        def call(
            x: Any, negative_slope: float = 0.0, max_value: Any = None, threshold: float = 0.0
        ) -> Any:
            several = negative_slope != 0 and (max_value is not None or threshold != 0)
            chosen = compound if several else function
            return chosen(
                x, negative_slope=negative_slope, max_value=max_value, threshold=threshold
            )

        return staticmethod(call)

    def method(original: Any, decorate: Any) -> Any:
        return decorate(original)

    activations = sys.modules[keras().activations.relu.__module__]
    return [
        (activations.ReLU, "static_call", relu),
        (keras().layers.PReLU, "call", method),
    ]


def _is_relu(operation: Any) -> bool:
    """Return whether an operation is a ReLU, or a variant of it, by itself."""
    if operation.type in ("Relu", "LeakyRelu"):
        return True
    if operation.type == "Relu6":
        return not _is_hard_sigmoid(operation)
    if operation.type == "Maximum":
        first, second = operation.inputs
        return _is_slope_of(second, first) or _is_slope_of(first, second)
    if operation.type == "SelectV2":
        condition, chosen, other = operation.inputs
        above, below = _compared(condition)
        return (above is chosen and _is_slope_of(other, chosen)) or (
            below is other and _is_slope_of(chosen, other)
        )
    return operation.type == "Mul" and _gate(operation) is not None


def _compared(condition: Any) -> tuple[Any, Any]:
    """Return the tensor that is above a number where a condition holds, and the one below."""
    compared = condition.op
    if compared.type not in ("Greater", "GreaterEqual", "Less", "LessEqual"):
        return None, None
    large, small = compared.inputs
    if compared.type.startswith("Less"):
        large, small = small, large
    return (
        large if _number(small) is not None else None,
        small if _number(large) is not None else None,
    )


def _gate(operation: Any) -> int | None:
    """Return which factor of x * (x > 0) is x; None if a product is no such gate."""
    for position, factor in enumerate(operation.inputs):
        mask = operation.inputs[1 - position].op
        if mask.type == "Cast" and mask.inputs[0].dtype.is_bool:
            above, _ = _compared(mask.inputs[0])
            if above is factor:
                return position
    return None


def _is_hard_sigmoid(operation: Any) -> bool:
    """Return whether a ReLU6 is that of a hard sigmoid: relu6(x + 3) / 6."""
    before = operation.inputs[0].op
    users = [user.type for user in operation.outputs[0].consumers()]
    return (
        before.type in ("Add", "AddV2")
        and any(_number(tensor) == 3 for tensor in before.inputs)
        and bool(users)
        and set(users) <= {"Mul", "RealDiv"}
    )


def _is_slope_of(tensor: Any, x: Any) -> bool:
    """Return whether a tensor is zero, or a tensor x times a number less than 1."""
    if tensor.op.type == "ZerosLike" or _number(tensor) == 0:
        return True
    if tensor.op.type != "Mul":
        return False
    factors = [_number(factor) for factor in tensor.op.inputs if factor is not x]
    return len(factors) == 1 and factors[0] is not None and 0 <= factors[0] < 1


def _number(tensor: Any) -> float | None:
    """Return the number that a tensor always is; None if it is not one."""
    value = tensorflow().get_static_value(tensor)
    return float(value) if value is not None and np.ndim(value) == 0 else None


@cache
def _registered() -> dict[str, str]:
    """Register guided gradients; return their names by type of operation."""
    tf = tensorflow()
    raw = tf.raw_ops

    def relu(operation: Any, upstream: Any) -> Any:
        return raw.ReluGrad(gradients=tf.nn.relu(upstream), features=operation.outputs[0])

    def relu6(operation: Any, upstream: Any) -> Any:
        return raw.Relu6Grad(gradients=tf.nn.relu(upstream), features=operation.outputs[0])

    def leaky(operation: Any, upstream: Any) -> Any:
        return raw.LeakyReluGrad(
            gradients=tf.nn.relu(upstream),
            features=operation.inputs[0],
            alpha=operation.get_attr("alpha"),
        )

    def choice(condition: Any, tensors: Any, upstream: Any) -> list[Any]:
        """Return the gradients by two tensors, of which one is chosen; none by a single number."""
        upstream = tf.nn.relu(upstream)
        zero = tf.zeros_like(upstream)
        gradients = tf.where(condition, upstream, zero), tf.where(condition, zero, upstream)
        return [
            None if tensor.shape.rank == 0 else gradient
            for tensor, gradient in zip(tensors, gradients, strict=True)
        ]

    def maximum(operation: Any, upstream: Any) -> list[Any]:
        first, second = operation.inputs
        return choice(first > second, (first, second), upstream)

    def select(operation: Any, upstream: Any) -> list[Any]:
        condition, *tensors = operation.inputs
        return [None, *choice(condition, tensors, upstream)]

    def product(operation: Any, upstream: Any) -> list[Any]:
        position = _gate(operation)
        assert position is not None
        gradients = [None, None]
        gradients[position] = tf.nn.relu(upstream) * operation.inputs[1 - position]
        return gradients

    def identity(operation: Any, upstream: Any) -> Any:
        return tf.nn.relu(upstream)

    gradients: dict[str, Callable[..., Any]] = {
        "Relu": relu,
        "Relu6": relu6,
        "LeakyRelu": leaky,
        "Maximum": maximum,
        "Mul": product,
        "SelectV2": select,
        "Identity": identity,
    }
    for name, gradient in gradients.items():
        tf.RegisterGradient(_NAME + name)(gradient)
    return {name: _NAME + name for name in gradients}


def _attribute(name: str) -> Any:
    from tensorflow.core.framework.attr_value_pb2 import AttrValue

    return AttrValue(s=name.encode())
