"""Epsilon and gamma rules of layer-wise relevance propagation on a traced graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

from actgrid.attribution.batches import SymbolicRun
from actgrid.attribution.gradient_rules import (
    CONVOLUTIONS,
    ELEMENTWISE,
    LINEAR,
    MAXIMA,
    MINIMA,
    PRODUCTS,
    WEIGHTED,
    PathOperation,
    collect_dependent,
    get_attribute,
    is_linear_call,
    list_path_operations,
    make_rule_error,
    register_gradients,
    repeat_operation,
    set_gradient,
)
from actgrid.attribution.relevance_rules import choose_relevance_rule, set_relevance_rule
from actgrid.models.frameworks import tensorflow

__all__ = ["RelevanceRule", "set_lrp_rules"]

# Rule of layers with weights; "composite" chooses among the rules by the place of the layer.
RelevanceRule = Literal["epsilon", "gamma", "composite"]

_PREFIX = "ActgridLrp"
# Operations with one value after another, that may follow a layer's product as its bias, as a batch
# normalization or as a change of shape. The product's output is their first input.
_AFFINE = frozenset(
    [
        *("Add", "AddV2", "BiasAdd", "Cast", "FusedBatchNorm", "FusedBatchNormV2"),
        *("FusedBatchNormV3", "Identity", "Mul", "RealDiv", "Sub"),
    ]
)
_RESHAPES = frozenset(["ExpandDims", "Reshape", "Squeeze"])
# Functions of which the gradient is their relevance rule already.
_PIECEWISE_LINEAR = frozenset(["LeakyRelu", "Relu"])


def set_lrp_rules(
    operations: Sequence[Any],
    run: SymbolicRun,
    samples: Sequence[Any],
    rule: RelevanceRule,
    epsilon: float,
    gamma: float,
) -> None:
    """Modify gradients of a run so that gradient times input is relevance by LRP.

    Layers with weights have the rule that is chosen. Their bias, and a batch normalization after
    them, belong to the layer, and biases absorb their share of the relevance. Other operations have
    the rules of `set_relevance_rules`; a function of single values passes its relevance on.

    With ``"composite"``, the convolutions of the lower half have the gamma rule, the other
    convolutions the epsilon rule, and matrix products and grouped convolutions LRP-0.

    Parameters
    ----------
    operations
        All operations of the graph, in order.
    run
        A run of the model in this graph.
    samples
        The explained tensors of the run.
    epsilon
        Stabilizer, as a fraction of the root mean square of the outputs of a layer for a sample.
    gamma
        Factor by which contributions of the sign of the output are increased.

    Raises
    ------
    ModelError
        If there is no rule for an operation.
    """
    dependent = collect_dependent(operations, samples)

    def choose(entry: PathOperation) -> str | None:
        return choose_relevance_rule(entry.operation, entry.depends, dependent)

    def is_constant(entry: PathOperation) -> bool:
        operation = entry.operation
        if choose(entry) == "constant":
            set_relevance_rule(operation, "constant")
            return True
        dtypes = [tensor.dtype for tensor in operation.outputs]
        is_discrete = all(dtype.is_integer or dtype.is_bool for dtype in dtypes)
        return is_discrete or operation.type == "StopGradient"

    path = list_path_operations(operations, samples, run.target_scores.scores, is_constant)
    layers = [
        entry for entry in path if entry.operation.type in WEIGHTED and sum(entry.depends) == 1
    ]
    layer_rules = _choose_layer_rules(layers, rule)
    names = {tensor.name for entry in path for tensor in entry.operation.outputs}
    for entry in path:
        operation = entry.operation
        if operation.name in layer_rules:
            layer_rule = layer_rules[operation.name]
            if layer_rule is not None:
                set_gradient(
                    operation,
                    _register_rules()[layer_rule],
                    end=_find_end(operation, names).name,
                    depends=str(entry.depends.index(True)),
                    strength=repr(epsilon if layer_rule == "epsilon" else gamma),
                )
            continue
        rule_name = choose(entry)
        if rule_name is not None and rule_name != "ratio":
            set_relevance_rule(operation, rule_name)
            continue
        other_rule = _choose_other_rule(entry)
        if other_rule is None:
            raise make_rule_error("lrp", operation, run.calls)
        if other_rule != "gradient":
            set_gradient(
                operation, _register_rules()[other_rule], depends=str(entry.depends.index(True))
            )


def _choose_layer_rules(
    layers: Sequence[PathOperation], rule: RelevanceRule
) -> dict[str, str | None]:
    """Return the rule of each layer by the name of its operation; None: LRP-0."""
    names = [entry.operation.name for entry in layers]
    if rule != "composite":
        return dict.fromkeys(names, rule)
    convolutions = [
        entry.operation.name for entry in layers if entry.operation.type in CONVOLUTIONS
    ]
    lower = set(convolutions[: (len(convolutions) + 1) // 2])
    return {
        name: "gamma" if name in lower else "epsilon" if name in convolutions else None
        for name in names
    }


def _choose_other_rule(entry: PathOperation) -> str | None:
    """Return the rule of an operation without weights; None: there is none."""
    operation, depends = entry
    kind = operation.type
    if kind in ("RealDiv", "DivNoNan"):
        return "numerator" if depends[0] else "pass"
    if kind in ELEMENTWISE and sum(depends) == 1 and kind not in _PIECEWISE_LINEAR:
        return "pass"
    if kind in ("Square", "SquaredDifference"):
        return "half"
    is_safe = kind in LINEAR | MAXIMA | MINIMA | PRODUCTS | _PIECEWISE_LINEAR
    if (
        is_safe
        or is_linear_call(entry)
        or kind in ("IdentityN", "LogSoftmax", "Select", "SelectV2", "Softmax")
    ):
        return "gradient"
    return None


def _find_end(operation: Any, names: set[str]) -> Any:
    """Return the output of a layer: after its bias and batch normalization.

    Parameters
    ----------
    operation
        The layer's product of input and weights.
    names
        Names of the tensors between the explained tensors and the scores.
    """
    end = operation.outputs[0]
    while True:
        users = [
            user for user in end.consumers() if any(each.name in names for each in user.outputs)
        ]
        if len(users) != 1 or users[0].type not in _AFFINE | _RESHAPES:
            return end
        (user,) = users
        if user.inputs[0] is not end or any(tensor.name in names for tensor in user.inputs[1:]):
            is_commutative = user.type in ("Add", "AddV2", "Mul")
            if not is_commutative or user.inputs[0].name in names or user.inputs[1] is not end:
                return end
        is_reshape = user.type in _RESHAPES
        if not is_reshape and user.outputs[0].shape.as_list() != end.shape.as_list():
            return end
        end = user.outputs[0]


def _get_end(operation: Any) -> Any:
    """Return the output of the layer of an operation."""
    return operation.graph.get_tensor_by_name(get_attribute(operation, "end"))


def _replace_input(operation: Any, value: Any, weights: Any = None) -> list[Any]:
    """Return the inputs of an operation with another layer input, and other weights."""
    index = int(get_attribute(operation, "depends"))
    inputs = list(operation.inputs)
    inputs[index] = value
    if weights is not None:
        inputs[_get_weight_index(operation)] = weights
    return inputs


def _get_weight_index(operation: Any) -> int:
    """Return the index of the weights among the inputs of an operation."""
    index = int(get_attribute(operation, "depends"))
    (weight_index,) = (
        other
        for other, tensor in enumerate(operation.inputs)
        if other != index and tensor.dtype.is_floating
    )
    return weight_index


def _propagate(operation: Any, upstream: Any, weights: Any = None) -> Any:
    """Return the gradient of an operation for the layer input, also with other weights."""
    tf = tensorflow()
    value = tf.identity(operation.inputs[int(get_attribute(operation, "depends"))])
    output = repeat_operation(operation, _replace_input(operation, value, weights))
    return tf.gradients(output, value, upstream)[0]


def _fill(operation: Any, gradient: Any) -> list[Any]:
    """Return the gradients of all inputs of an operation: None but for the layer input."""
    index = int(get_attribute(operation, "depends"))
    return [gradient if each == index else None for each in range(len(operation.inputs))]


def _epsilon(operation: Any, upstream: Any) -> list[Any]:
    """Reduce the gradient where the output of the layer is small."""
    tf = tensorflow()
    output = tf.reshape(_get_end(operation), tf.shape(operation.outputs[0]))
    axes = list(range(1, output.shape.rank))
    size = tf.sqrt(tf.reduce_mean(output**2, axes, keepdims=True))
    stabilizer = float(get_attribute(operation, "strength")) * size
    ratio = tf.math.divide_no_nan(tf.abs(output), tf.abs(output) + stabilizer)
    return _fill(operation, _propagate(operation, upstream * ratio))


def _gamma(operation: Any, upstream: Any) -> list[Any]:
    """Increase the contributions that have the sign of the output of the layer.

    The rule is the generalized gamma rule, which is also defined for negative inputs and outputs.
    For a layer of positive inputs and outputs, it is the rule of Montavon 2019.
    """
    tf = tensorflow()
    gamma = float(get_attribute(operation, "strength"))
    end, product = _get_end(operation), operation.outputs[0]
    output = tf.reshape(end, tf.shape(product))
    # The layer's output is scale * product + offset, with its normalization and its bias.
    scale = tf.gradients(end, product)[0] if end is not product else tf.ones_like(product)
    offset = output - scale * product
    value = operation.inputs[int(get_attribute(operation, "depends"))]
    weights = operation.inputs[_get_weight_index(operation)]
    positive_weights, negative_weights = tf.nn.relu(weights), -tf.nn.relu(-weights)
    positive_value, negative_value = tf.nn.relu(value), -tf.nn.relu(-value)

    def multiply(part: Any, other: Any) -> Any:
        return repeat_operation(operation, _replace_input(operation, part, other))

    positive = multiply(positive_value, positive_weights) + multiply(
        negative_value, negative_weights
    )
    negative = multiply(positive_value, negative_weights) + multiply(
        negative_value, positive_weights
    )
    # Contributions are increased that have the sign of the output after the scale.
    increases_positive = (scale > 0) == (output > 0)
    increased = scale * tf.where(increases_positive, positive, negative) + tf.where(
        output > 0, tf.nn.relu(offset), -tf.nn.relu(-offset)
    )
    ratio = tf.math.divide_no_nan(upstream * output, output + gamma * increased)
    positive_ratio = tf.where(increases_positive, ratio, tf.zeros_like(ratio))
    negative_ratio = ratio - positive_ratio
    for_positive = _propagate(operation, positive_ratio, positive_weights) + _propagate(
        operation, negative_ratio, negative_weights
    )
    for_negative = _propagate(operation, positive_ratio, negative_weights) + _propagate(
        operation, negative_ratio, positive_weights
    )
    gradient = _propagate(operation, ratio)
    gradient += gamma * tf.where(value > 0, for_positive, for_negative)
    return _fill(operation, gradient)


def _pass(operation: Any, *upstream: Any) -> list[Any]:
    """Return f(x) / x, so that the relevance of a function's input is that of its output."""
    tf = tensorflow()
    value = operation.inputs[int(get_attribute(operation, "depends"))]
    smallest = tf.where(value < 0, tf.constant(-1e-6, value.dtype), tf.constant(1e-6, value.dtype))
    divisor = tf.where(tf.abs(value) < 1e-6, smallest, value)
    return _fill(operation, upstream[0] * operation.outputs[0] / divisor)


def _keep_numerator(operation: Any, upstream: Any) -> list[Any]:
    """Return the gradient of a quotient for its numerator alone."""
    tf = tensorflow()
    numerator, denominator = operation.inputs
    numerator = tf.identity(numerator)
    quotient = repeat_operation(operation, [numerator, denominator])
    return [tf.gradients(quotient, numerator, upstream)[0], None]


def _half(operation: Any, upstream: Any) -> list[Any]:
    """Return half of the gradient of a square."""
    tf = tensorflow()
    inputs = [tf.identity(tensor) for tensor in operation.inputs]
    gradients: list[Any] = tf.gradients(repeat_operation(operation, inputs), inputs, upstream / 2)
    return gradients


@cache
def _register_rules() -> dict[str, str]:
    """Register the gradients of all rules with TensorFlow; return their names."""
    rules: dict[str, Callable[..., Any]] = {
        "epsilon": _epsilon,
        "gamma": _gamma,
        "half": _half,
        "numerator": _keep_numerator,
        "pass": _pass,
    }
    return register_gradients(_PREFIX, rules)
