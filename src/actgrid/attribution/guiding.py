"""Guided backpropagation: ReLUs that propagate only positive gradients."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, wraps
from typing import Any

import numpy as np

from actgrid.attribution.gradient_rules import register_gradients, set_gradient
from actgrid.errors import ModelError
from actgrid.models.frameworks import keras, tensorflow

__all__ = ["guide_relus"]

# Methods of Keras are patched during a trace: only one trace at a time may do so.
_PATCH_LOCK = threading.RLock()
_GRADIENT_PREFIX = "ActgridGuided"


@contextmanager
def guide_relus(graph: Any) -> Iterator[Callable[[], None]]:
    """Yield a function that modifies the gradients of the ReLUs of a traced graph.

    These count as ReLUs:

    - the operations Relu, Relu6 and LeakyRelu, except the Relu6 in a hard sigmoid;
    - a maximum or a selection (`tf.where`) with zero or with a multiple of the input;
    - a product x * (x > 0);
    - the Keras layers PReLU, and ReLU with a slope and a threshold or maximum. These have several
      operations, and only the gradient at their output is changed.

    Parameters
    ----------
    graph
        The graph in which the model is traced inside the context.

    Raises
    ------
    ModelError
        By the yielded function, if the graph has no ReLU.
    """
    inner: set[str] = set()
    outputs: list[Any] = []

    def guide_output(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def record_output(*args: Any, **kwargs: Any) -> Any:
            if tensorflow().compat.v1.get_default_graph() is not graph:
                return function(*args, **kwargs)
            before = len(graph.get_operations())
            result = tensorflow().identity(function(*args, **kwargs))
            inner.update(operation.name for operation in graph.get_operations()[before:])
            outputs.append(result.op)
            return result

        return record_output

    def guide() -> None:
        relus = [
            operation
            for operation in graph.get_operations()
            if operation.name not in inner and _is_relu(operation)
        ]
        if not relus and not outputs:
            raise ModelError("guided_backprop needs ReLUs, and the model has none; use saliency")
        for operation in relus + outputs:
            set_gradient(operation, _register_gradients()[operation.type])

    with _PATCH_LOCK, ExitStack() as patches:
        for owner, name, wrap in _list_compound_relus():
            patches.enter_context(_patch_attribute(owner, name, wrap, guide_output))
        yield guide


@contextmanager
def _patch_attribute(
    owner: Any, name: str, wrap: Callable[..., Any], decorate: Any
) -> Iterator[None]:
    original = vars(owner)[name]
    setattr(owner, name, wrap(original, decorate))
    try:
        yield
    finally:
        setattr(owner, name, original)


def _list_compound_relus() -> list[tuple[Any, str, Callable[..., Any]]]:
    """List the Keras methods that compute a ReLU by several TensorFlow operations.

    Each entry is the class, the name of its method, and a function that wraps the method.
    """

    def wrap_relu(original: staticmethod[..., Any], decorate: Any) -> staticmethod[..., Any]:
        function = original.__func__
        compound = decorate(function)

        @wraps(function)
        def call(
            x: Any, negative_slope: float = 0.0, max_value: Any = None, threshold: float = 0.0
        ) -> Any:
            is_compound = negative_slope != 0 and (max_value is not None or threshold != 0)
            relu = compound if is_compound else function
            return relu(x, negative_slope=negative_slope, max_value=max_value, threshold=threshold)

        return staticmethod(call)

    def wrap_method(original: Any, decorate: Any) -> Any:
        return decorate(original)

    activations = sys.modules[keras().activations.relu.__module__]
    return [
        (activations.ReLU, "static_call", wrap_relu),
        (keras().layers.PReLU, "call", wrap_method),
    ]


def _is_relu(operation: Any) -> bool:
    """Return whether a TensorFlow operation is a ReLU or a variant, such as ReLU6."""
    if operation.type in ("Relu", "LeakyRelu"):
        return True
    if operation.type == "Relu6":
        return not _is_hard_sigmoid(operation)
    if operation.type == "Maximum":
        first, second = operation.inputs
        return _is_scaled_down(second, first) or _is_scaled_down(first, second)
    if operation.type == "SelectV2":
        condition, if_true, if_false = operation.inputs
        above, below = _parse_comparison(condition)
        return (above is if_true and _is_scaled_down(if_false, if_true)) or (
            below is if_false and _is_scaled_down(if_true, if_false)
        )
    return operation.type == "Mul" and _find_gated_factor(operation) is not None


def _parse_comparison(condition: Any) -> tuple[Any, Any]:
    """Return the tensors that a comparison bounds from below and from above.

    None in place of a tensor: the comparison is not with a constant on that side.
    """
    comparison = condition.op
    if comparison.type not in ("Greater", "GreaterEqual", "Less", "LessEqual"):
        return None, None
    large, small = comparison.inputs
    if comparison.type.startswith("Less"):
        large, small = small, large
    return (
        large if _get_constant(small) is not None else None,
        small if _get_constant(large) is not None else None,
    )


def _find_gated_factor(operation: Any) -> int | None:
    """Return the index of the factor x in a product x * (x > 0), or None."""
    for position, factor in enumerate(operation.inputs):
        mask = operation.inputs[1 - position].op
        if mask.type == "Cast" and mask.inputs[0].dtype.is_bool:
            above, _ = _parse_comparison(mask.inputs[0])
            if above is factor:
                return position
    return None


def _is_hard_sigmoid(operation: Any) -> bool:
    """Return whether a ReLU6 operation is part of a hard sigmoid, relu6(x + 3) / 6."""
    before = operation.inputs[0].op
    users = [user.type for user in operation.outputs[0].consumers()]
    return (
        before.type in ("Add", "AddV2")
        and any(_get_constant(tensor) == 3 for tensor in before.inputs)
        and bool(users)
        and set(users) <= {"Mul", "RealDiv"}
    )


def _is_scaled_down(tensor: Any, x: Any) -> bool:
    """Return whether a tensor is zero, or x times a constant in [0, 1)."""
    if tensor.op.type == "ZerosLike" or _get_constant(tensor) == 0:
        return True
    if tensor.op.type != "Mul":
        return False
    factors = [_get_constant(factor) for factor in tensor.op.inputs if factor is not x]
    return len(factors) == 1 and factors[0] is not None and 0 <= factors[0] < 1


def _get_constant(tensor: Any) -> float | None:
    """Return the value of a constant scalar tensor; None for other tensors."""
    value = tensorflow().get_static_value(tensor)
    return float(value) if value is not None and np.ndim(value) == 0 else None


@cache
def _register_gradients() -> dict[str, str]:
    """Register guided gradients with TensorFlow; return their names by operation type."""
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

    def split_gradient(condition: Any, tensors: Any, upstream: Any) -> list[Any]:
        """Return the guided gradients of both operands of a selection such as `tf.where`.

        The gradient of a scalar operand is None.
        """
        upstream = tf.nn.relu(upstream)
        zero = tf.zeros_like(upstream)
        gradients = tf.where(condition, upstream, zero), tf.where(condition, zero, upstream)
        return [
            None if tensor.shape.rank == 0 else gradient
            for tensor, gradient in zip(tensors, gradients, strict=True)
        ]

    def maximum(operation: Any, upstream: Any) -> list[Any]:
        first, second = operation.inputs
        return split_gradient(first > second, (first, second), upstream)

    def select(operation: Any, upstream: Any) -> list[Any]:
        condition, *tensors = operation.inputs
        return [None, *split_gradient(condition, tensors, upstream)]

    def product(operation: Any, upstream: Any) -> list[Any]:
        position = _find_gated_factor(operation)
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
    return register_gradients(_GRADIENT_PREFIX, gradients)
