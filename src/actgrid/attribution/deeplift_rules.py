"""DeepLIFT by modified gradients of a traced graph: the rescale rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from actgrid.attribution.batches import SymbolicRun
from actgrid.attribution.gradient_rules import (
    ELEMENTWISE,
    LINEAR,
    MAXIMA,
    MINIMA,
    PRODUCTS,
    PathOperation,
    get_attribute,
    is_linear_call,
    list_path_operations,
    make_rule_error,
    register_gradients,
    repeat_operation,
    set_gradient,
)
from actgrid.errors import ModelError
from actgrid.models.frameworks import tensorflow

__all__ = ["set_deeplift_rules"]

_PREFIX = "ActgridDeeplift"
# Normalizations that are linear in their first input alone.
_FUSED = frozenset(["FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"])
# Relative difference of values that count as equal, because a quotient would be inaccurate.
_MIN_DIFFERENCE = 1e-6


def set_deeplift_rules(
    operations: Sequence[Any],
    run: SymbolicRun,
    samples: Sequence[Any],
    reference_run: SymbolicRun,
    references: Sequence[Any],
) -> None:
    """Modify the gradients of a run, so that they are the multipliers of DeepLIFT.

    The sum of multiplier times difference from the reference is the difference of the scores:

    - Linear operations keep their gradient.
    - A function of single values has the slope between reference and input (rescale rule).
    - A product has the mean of its gradients at reference and input.
    - The difference of a maximum belongs to the positions of the maxima at reference and input.
    - Softmax is divided into exponential, sum, reciprocal and product.

    Parameters
    ----------
    operations
        All operations of the graph, in order.
    run, reference_run
        Two runs of the model in this graph, at the input and at the reference.
    samples, references
        The explained tensors of the runs.

    Raises
    ------
    ModelError
        If there is no rule for an operation.
    """
    path = list_path_operations(operations, samples, run.target_scores.scores)
    reference_path = list_path_operations(
        operations, references, reference_run.target_scores.scores
    )
    types = [[entry.operation.type for entry in entries] for entries in (path, reference_path)]
    if types[0] != types[1]:
        raise ModelError(
            "deeplift needs a model whose operations do not depend on the call: use "
            "integrated_gradients"
        )
    for entry, reference in zip(path, reference_path, strict=True):
        rule = _choose_rule(entry)
        if rule is None:
            raise make_rule_error("deeplift", entry.operation, run.calls)
        if rule != "linear":
            set_gradient(
                entry.operation,
                _register_rules()[rule],
                reference=reference.operation.name,
                depends="".join(str(int(depends)) for depends in entry.depends),
            )


def _choose_rule(entry: PathOperation) -> str | None:
    """Return the name of the rule of an operation; None: there is none."""
    operation, depends = entry
    kind, count = operation.type, sum(depends)
    # Differences pass a gradient that is stopped, such as that of the mean in a variance.
    if kind in ("IdentityN", "StopGradient"):
        return "identity"
    if kind in LINEAR:
        return "linear" if kind not in _FUSED or (depends[0] and count == 1) else None
    if is_linear_call(entry):
        return "linear"
    if kind in ("Select", "SelectV2") and not depends[0]:
        return "linear"
    if kind in ("RealDiv", "DivNoNan"):
        return "divide" if depends[1] else "linear"
    if kind in PRODUCTS:
        is_square = kind in ("Square", "SquaredDifference")
        return "linear" if count == 1 and not is_square else "average"
    if kind in ELEMENTWISE and count == 1:
        index = depends.index(True)
        if operation.inputs[index].shape.as_list() == operation.outputs[0].shape.as_list():
            return "rescale"
        return None
    if kind in MAXIMA:
        return "maximum"
    if kind in MINIMA:
        return "minimum"
    return {"Softmax": "softmax", "LogSoftmax": "log_softmax"}.get(kind)


def _get_reference(operation: Any) -> Any:
    """Return the operation of the reference run that corresponds to an operation."""
    return operation.graph.get_operation_by_name(get_attribute(operation, "reference"))


def _list_dependent(operation: Any) -> list[int]:
    """Return the indices of the inputs that depend on the explained tensors."""
    flags = get_attribute(operation, "depends")
    return [index for index, flag in enumerate(flags) if flag == "1"]


def _compute_input_gradients(
    operation: Any, values: Sequence[Any], upstream: Any
) -> dict[int, Any]:
    """Compute the gradients of an operation, at other values, for its dependent inputs."""
    tf = tensorflow()
    indices = _list_dependent(operation)
    inputs = [
        tf.identity(value) if index in indices else value for index, value in enumerate(values)
    ]
    output = repeat_operation(operation, inputs)
    gradients = tf.gradients(output, [inputs[index] for index in indices], upstream)
    return dict(zip(indices, gradients, strict=True))


def _fill(operation: Any, gradients: dict[int, Any]) -> list[Any]:
    """Return the gradients of all inputs of an operation, None for those without any."""
    return [gradients.get(index) for index in range(len(operation.inputs))]


def _compute_slope(change: Any, value: Any, other: Any, derivative: Any) -> Any:
    """Divide a change by the difference of two values; return the derivative for equal values."""
    tf = tensorflow()
    difference = value - other
    is_equal = tf.abs(difference) <= _MIN_DIFFERENCE * (tf.abs(value) + tf.abs(other))
    divisor = tf.where(is_equal, tf.ones_like(difference), difference)
    slope = tf.where(is_equal, derivative, change / divisor)
    # A function of the model may be infinite, such as the reciprocal norm of zeros.
    return tf.where(tf.math.is_finite(slope), slope, tf.zeros_like(slope))


def _average(operation: Any, *upstream: Any) -> list[Any]:
    """Return the gradients of a product at the mean of input and reference."""
    reference = _get_reference(operation)
    indices = _list_dependent(operation)
    means = [
        (value + other) / 2 if index in indices else value
        for index, (value, other) in enumerate(zip(operation.inputs, reference.inputs, strict=True))
    ]
    return _fill(operation, _compute_input_gradients(operation, means, upstream[0]))


def _rescale(operation: Any, *upstream: Any) -> list[Any]:
    """Return the slope of a function between reference and input."""
    reference = _get_reference(operation)
    ((index, gradient),) = _compute_input_gradients(
        operation, list(operation.inputs), upstream[0]
    ).items()
    change = upstream[0] * (operation.outputs[0] - reference.outputs[0])
    if gradient is None:
        gradient = tensorflow().zeros_like(change)
    slope = _compute_slope(change, operation.inputs[index], reference.inputs[index], gradient)
    return _fill(operation, {index: slope})


def _divide_tensors(operation: Any, upstream: Any) -> list[Any]:
    """Return the multipliers of a quotient: those of a product with a reciprocal."""
    tf = tensorflow()
    reference = _get_reference(operation)
    (numerator, denominator), (other_numerator, other) = operation.inputs, reference.inputs
    safe = tf.math.reciprocal_no_nan
    factor = (safe(denominator) + safe(other)) / 2
    mean = (numerator + other_numerator) / 2
    gradients = tf.gradients(mean * factor, [mean, factor], upstream)
    gradients[1] *= -safe(denominator) * safe(other)
    indices = _list_dependent(operation)
    return [gradient if index in indices else None for index, gradient in enumerate(gradients)]


def _make_selection(extremum: str) -> Callable[..., list[Any]]:
    def select(operation: Any, *upstream: Any) -> list[Any]:
        tf = tensorflow()
        reference = _get_reference(operation)
        output, other = operation.outputs[0], reference.outputs[0]
        crossing = getattr(tf, extremum)(output, other)
        changes = [
            (operation, upstream[0] * (crossing - other)),
            (reference, upstream[0] * (output - crossing)),
        ]
        parts = [
            _compute_input_gradients(operation, list(source.inputs), change)
            for source, change in changes
        ]
        gradients = {}
        for index in _list_dependent(operation):
            change = parts[0][index] + parts[1][index]
            gradients[index] = _compute_slope(
                change, operation.inputs[index], reference.inputs[index], tf.zeros_like(change)
            )
        return _fill(operation, gradients)

    return select


def _split_exponentials(operation: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return the exponentials and their sums for input and reference, and the slope of exp."""
    tf = tensorflow()
    values, others = operation.inputs[0], _get_reference(operation).inputs[0]
    largest = tf.maximum(
        tf.reduce_max(values, -1, keepdims=True), tf.reduce_max(others, -1, keepdims=True)
    )
    exps, other_exps = tf.exp(values - largest), tf.exp(others - largest)
    slope = _compute_slope(exps - other_exps, values, others, exps)
    smallest = exps.dtype.as_numpy_dtype(1e-30 if exps.dtype.size > 2 else 1e-7)
    total, other_total = (
        tf.maximum(tf.reduce_sum(each, -1, keepdims=True), smallest) for each in (exps, other_exps)
    )
    return exps, other_exps, total, other_total, slope


def _softmax(operation: Any, upstream: Any) -> Any:
    """Return the multipliers of a softmax, as exponential times reciprocal of the sum."""
    tf = tensorflow()
    exps, other_exps, total, other_total, slope = _split_exponentials(operation)
    direct = upstream * (1 / total + 1 / other_total) / 2
    shared = tf.reduce_sum(upstream * (exps + other_exps) / 2, -1, keepdims=True)
    return slope * (direct - shared / (total * other_total))


def _log_softmax(operation: Any, upstream: Any) -> Any:
    """Return the multipliers of a logarithm of softmax."""
    tf = tensorflow()
    _, _, total, other_total, slope = _split_exponentials(operation)
    change = tf.math.log(total) - tf.math.log(other_total)
    log_slope = _compute_slope(change, total, other_total, 1 / total)
    return upstream - slope * log_slope * tf.reduce_sum(upstream, -1, keepdims=True)


def _identity(operation: Any, *upstream: Any) -> list[Any]:
    """Return the gradients of the outputs for the inputs with which they are identical."""
    return list(upstream)


@cache
def _register_rules() -> dict[str, str]:
    """Register the gradients of all rules with TensorFlow; return their names."""
    rules: dict[str, Callable[..., Any]] = {
        "average": _average,
        "divide": _divide_tensors,
        "identity": _identity,
        "log_softmax": _log_softmax,
        "maximum": _make_selection("maximum"),
        "minimum": _make_selection("minimum"),
        "rescale": _rescale,
        "softmax": _softmax,
    }
    return register_gradients(_PREFIX, rules)
