"""Layer-wise relevance propagation (LRP) by modified gradients of a traced graph."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from functools import cache
from typing import Any

from actgrid.attribution.gradient_rules import (
    collect_dependent,
    register_gradients,
    repeat_operation,
    set_gradient,
)
from actgrid.models.frameworks import tensorflow

__all__ = ["choose_relevance_rule", "set_relevance_rule", "set_relevance_rules"]

_PREFIX = "ActgridRelevance"
# Products of two tensors. If both depend on the input, each gets half of the relevance.
_PRODUCTS = frozenset(["BatchMatMul", "BatchMatMulV2", "Einsum", "MatMul", "Mul"])
# Activation functions with f(0) = 0, to which the rule of f(x) / x applies. The gradient of ReLU is
# f(x) / x already.
_ACTIVATIONS = frozenset(["Elu", "Relu6", "Selu"])
# Functions whose result scales another tensor in a normalization or in GELU.
_SCALES = frozenset(["Erf", "Erfc", "Rsqrt"])


def set_relevance_rules(operations: Iterable[Any], explained: Iterable[Any]) -> None:
    """Modify the gradients of operations so that gradient times input is their relevance.

    The rules are those of AttnLRP:

    - Linear operations and softmax keep their gradient.
    - A product of two tensors that both depend on the input halves the gradient.
    - A normalization is linear: its standard deviation is a constant.
    - The gradient of an activation function f is f(x) / x.

    Parameters
    ----------
    operations
        All operations of the graph, in order.
    explained
        Tensors from which relevance is collected.

    References
    ----------
    Achtibat and others, 2024, AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for
    Transformers.
    """
    operations, explained = list(operations), list(explained)
    dependent = collect_dependent(operations, explained)
    relevant = {tensor.name for tensor in explained}
    for operation in operations:
        is_relevant = [tensor.name in relevant for tensor in operation.inputs]
        if not any(is_relevant):
            continue
        rule = choose_relevance_rule(operation, is_relevant, dependent)
        if rule is not None:
            set_relevance_rule(operation, rule)
        if rule != "constant":
            relevant.update(tensor.name for tensor in operation.outputs)


def set_relevance_rule(operation: Any, rule: str) -> None:
    """Modify the gradient of an operation by a rule that `choose_relevance_rule` returned."""
    set_gradient(operation, _register_rules()[rule])


def choose_relevance_rule(
    operation: Any, is_relevant: Sequence[bool], dependent: Container[str]
) -> str | None:
    """Return the name of the rule of an operation; None: its gradient is not modified.

    Parameters
    ----------
    is_relevant
        Whether relevance passes from the operation to each of its inputs.
    dependent
        Names of all tensors that depend on the explained tensors.
    """
    kind = operation.type
    if kind in _SCALES or (kind in ("Sigmoid", "Tanh") and _is_gate(operation, dependent)):
        return "constant"
    if kind == "Sqrt" and all(
        user.type == "Reciprocal" or (user.type == "RealDiv" and user.inputs[1] is root)
        for root in operation.outputs
        for user in root.consumers()
    ):
        return "constant"
    if kind in _ACTIVATIONS or kind == "Tanh":
        return "ratio"
    if kind in _PRODUCTS and len(is_relevant) == 2 and all(is_relevant):
        return "halve"
    if kind == "IdentityN" and _is_swish(operation):
        return "swish"
    return None


def _is_gate(operation: Any, dependent: Container[str]) -> bool:
    """Return whether a sigmoid or tanh scales another tensor, as in SiLU and GELU."""
    users = list(operation.outputs[0].consumers())
    if operation.type == "Sigmoid":
        factors = [
            tensor
            for user in users
            if user.type == "Mul"
            for tensor in user.inputs
            if tensor is not operation.outputs[0]
        ]
        return any(tensor.name in dependent for tensor in factors)
    # The tanh of GELU is part of 0.5 * x * (1 + tanh(...)).
    addends = [
        tensorflow().get_static_value(tensor)
        for user in users
        if user.type == "AddV2"
        for tensor in user.inputs
        if tensor is not operation.outputs[0]
    ]
    return any(value is not None and value.ndim == 0 and float(value) == 1 for value in addends)


def _is_swish(operation: Any) -> bool:
    """Return whether an operation with a gradient of its own is ``tf.nn.silu``."""
    product = operation.inputs[0].op
    return product.type == "Mul" and any(tensor.op.type == "Sigmoid" for tensor in product.inputs)


@cache
def _register_rules() -> dict[str, str]:
    """Register the gradients of all rules with TensorFlow; return their names."""
    tf = tensorflow()

    def halve(operation: Any, upstream: Any) -> Any:
        # The product is repeated without this rule, for the gradient that TensorFlow knows.
        factors = [tf.identity(tensor) for tensor in operation.inputs]
        return tf.gradients(repeat_operation(operation, factors), factors, upstream / 2)

    def ratio(operation: Any, upstream: Any) -> Any:
        x = operation.inputs[0]
        is_zero = x == 0
        slope = operation.outputs[0] / tf.where(is_zero, tf.ones_like(x), x)
        return upstream * tf.where(is_zero, tf.ones_like(x), slope)

    def constant(operation: Any, upstream: Any) -> Any:
        return None

    def swish(operation: Any, *upstream: Any) -> list[Any]:
        return [upstream[0], *[None] * (len(operation.inputs) - 1)]

    rules: dict[str, Callable[..., Any]] = {
        "constant": constant,
        "halve": halve,
        "ratio": ratio,
        "swish": swish,
    }
    return register_gradients(_PREFIX, rules)
