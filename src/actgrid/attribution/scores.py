"""Compute target scores from the symbolic output of a model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from actgrid.attribution.outputs import BinaryEvidence, find_binary_evidence, list_output_names
from actgrid.attribution.target_layers import collect_ancestors
from actgrid.attribution.targets import PREDICTED
from actgrid.errors import ActgridError, OutputTargetError, ShapeError, TargetError
from actgrid.models.compiled import trace_once
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import flatten_with_paths
from actgrid.models.logits import Logits, compute_bounds, find_logits
from actgrid.models.model_errors import summarize_error
from actgrid.models.networks import trace_network
from actgrid.models.tracing import keep_state

__all__ = ["TargetScores", "find_binary_output", "read_target_scores"]

# Function of a model's output, and of its input if the function takes two arguments, that returns
# one score for each image.
Score = Callable[..., Any]


class TargetScores(NamedTuple):
    """Target scores of a batch of images.

    Attributes
    ----------
    scores
        (N,) float32.
    classes
        (N,) int32: the class of each score; -1 if the target is a function.
    count
        Number of classes; 0 if the target is a function.
    is_logit
        Whether the scores are logits, read before a final softmax or sigmoid.
    probabilities
        (N,) float32: probabilities of the classes; NaN if the scores are not logits.
    """

    scores: Any
    classes: Any
    count: Any
    is_logit: Any
    probabilities: Any


def read_target_scores(
    model: Any,
    inputs: Any,
    outputs: Any,
    target_classes: Any,
    score: Score | None,
    output_index: int | None,
    evidence: BinaryEvidence,
) -> TargetScores:
    """Compute the scores of the targets from a model's symbolic output.

    If the model ends in a softmax or sigmoid, the score is the logit: the activations saturate, and
    softmax mixes the other classes into the gradient. A single logit l has the classes 0 and 1
    with scores -l and l, and a single probability p the scores 1 - p and p.

    Parameters
    ----------
    target_classes
        (N,) int32 class indices; -1: the predicted class.
    score
        Function of the output (of all outputs if `output_index` is None), and of the inputs if it
        takes two arguments. None: the scores of classes.
    output_index
        Index of the output to read; None: the only output.
    evidence
        Evidence that an output of one value stands for two classes.

    Returns
    -------
    TargetScores
        Symbolic tensors.

    Raises
    ------
    TargetError
        If the output has no classes and `score` is None; or if `score` fails, or does not depend on
        the output.
    ShapeError
        If `score` does not return one number for each image.
    """
    tf = tensorflow()
    tensors = [tensor for _, tensor in flatten_with_paths(outputs)]
    if score is not None:
        output = outputs if output_index is None else tensors[output_index]
        scores = _call_score(score, output, inputs)
        no_class = tf.fill(tf.shape(target_classes), PREDICTED)
        unknown = tf.fill(tf.shape(target_classes), np.nan)
        return TargetScores(scores, no_class, tf.constant(0), tf.constant(False), unknown)

    if output_index is None and len(tensors) > 1:
        names = list_output_names(model, outputs)
        output_keys: Iterable[str | int] = (
            names if len(set(names)) == len(names) else range(len(names))
        )
        ranks = [tensor.shape.rank for tensor in tensors]
        raise OutputTargetError(
            f"the model has {len(tensors)} outputs, {', '.join(map(repr, names))}",
            _suggest_target(outputs, names),
            [name for name, rank in zip(output_keys, ranks, strict=True) if rank in (1, 2)],
        )
    output = tensors[output_index or 0]
    if output.shape.rank not in (1, 2):
        name = None if output_index is None else list_output_names(model, outputs)[output_index]
        owner = "the model's output" if name is None else f"the output {name!r}"
        raise OutputTargetError(
            f"{owner}, {tuple(output.shape)}, is not one score for each class",
            _suggest_target(outputs, None)
            if name is None
            else f"target={{{name!r}: lambda outputs: {_write_mean_score((), output)}}}",
        )
    logits = find_logits(output)
    scores = tf.cast(output if logits is None else logits.tensor, tf.float32)
    probabilities = tf.cast(output, tf.float32)
    if output.shape.rank == 1:
        scores, probabilities = scores[:, None], probabilities[:, None]
    is_logit = logits is not None
    predicted = tf.argmax(scores, 1, tf.int32)
    kind = _find_binary_kind(output, logits, evidence) if scores.shape[1] == 1 else None
    if kind is not None:
        scores = tf.concat([1 - scores if kind == "probability" else -scores, scores], 1)
        is_logit = kind == "logit"
        predicted = tf.cast(scores[:, 1] >= scores[:, 0], tf.int32)
        probabilities = tf.sigmoid(scores)
    count = tf.shape(scores)[1]
    classes = tf.where(target_classes < 0, predicted, target_classes)
    # Out-of-range classes are clipped here, as the graph cannot raise; `check_classes` raises.
    clipped = tf.minimum(classes, count - 1)
    probability = tf.gather(probabilities, clipped, batch_dims=1)
    return TargetScores(
        tf.gather(scores, clipped, batch_dims=1),
        classes,
        count,
        tf.constant(is_logit),
        probability if is_logit else tf.fill(tf.shape(target_classes), np.nan),
    )


def find_binary_output(model: Any, inputs: Any, labels: Any = None) -> str | None:
    """Return the kind of output value of a binary classifier, or None.

    Parameters
    ----------
    inputs
        The model's inputs, as TensorSpecs or tensors.
    labels
        Names of the classes, if they are known.

    Returns
    -------
    str or None
        ``"probability"`` or ``"logit"`` of class 1, or ``"sign"`` if the value is bounded and
        positive values stand for class 1.
    """
    evidence = find_binary_evidence(model, ["output"], 0, labels)
    kind: str | None = trace_once(model, _TraceBinaryKind(evidence), inputs)
    return kind


@dataclass(frozen=True)
class _TraceBinaryKind:
    """Function for `trace_once` that returns the kind of output of a binary classifier."""

    evidence: BinaryEvidence

    def __call__(self, model: Any, inputs: Any) -> str | None:
        with keep_state():
            leaves = list(flatten_with_paths(trace_network(model, inputs).outputs))
        (_, output), *others = leaves
        if others or tuple(output.shape[1:]) not in ((), (1,)):
            return None
        logits = find_logits(output)
        kind = _find_binary_kind(output, logits, self.evidence)
        return "probability" if kind is not None and logits is not None else kind


def _find_binary_kind(
    output: Any, logits: Logits | None, evidence: BinaryEvidence
) -> Literal["logit", "probability", "sign"] | None:
    """Return the form in which an output of one value encodes the score of class 1.

    None: the value is not known to stand for two classes.
    """
    if logits is not None:
        return "logit" if logits.activation == "sigmoid" else None
    if evidence == "logit":
        return "logit"
    low, high = compute_bounds(output)
    # A hard sigmoid is relu6(x) / 6, which may exceed 1 by rounding.
    if evidence == "probability" or 0 <= low < high < 1.001:
        return "probability"
    if evidence is None or not low < 0 < high:
        return None
    return "logit" if math.isinf(low) and math.isinf(high) else "sign"


def _call_score(score: Score, outputs: Any, inputs: Any) -> Any:
    """Call a target function and return its scores, (N,) float32."""
    tf = tensorflow()
    try:
        result = score(outputs, inputs) if _takes_inputs(score) else score(outputs)
        scores = _check_score_shape(result)
    except ActgridError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for _, tensor in flatten_with_paths(outputs))
        raise TargetError(
            f"the target function fails on the model's output, {shapes}: "
            f"{summarize_error(error).rstrip('.')}; use TensorFlow operations, "
            "because the function is compiled"
        ) from error
    # A function may also use tensors between the inputs and the output, such as logits.
    tensors = tf.nest.flatten(outputs)
    sources = [tensor.name for tensor in tf.nest.flatten(inputs) if tensor is not None]
    used = {tensor.name for tensor in tensors} | collect_ancestors(tensors, sources)
    if used.isdisjoint(collect_ancestors([scores])):
        raise TargetError("the target function's scores do not depend on the model's output")
    return scores


def _check_score_shape(scores: Any) -> Any:
    """Convert the result of a target function to (N,) float32."""
    tf = tensorflow()
    if scores is None:
        raise ShapeError("the target must give one score for each image, (N,), not None")
    scores = tf.convert_to_tensor(scores)
    if scores.shape.rank == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.shape.rank != 1:
        raise ShapeError(
            f"the target must give one score for each image, (N,), not {tuple(scores.shape)}"
        )
    return tf.cast(scores, tf.float32)


def _takes_inputs(score: Score) -> bool:
    """Return whether a function requires two positional arguments: outputs and inputs."""
    try:
        parameters = inspect.signature(score).parameters.values()
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [
        parameter
        for parameter in parameters
        if parameter.kind in kinds and parameter.default is parameter.empty
    ]
    return len(required) > 1


def _suggest_target(outputs: Any, names: Sequence[str] | None) -> str:
    """Return Python code of a valid target for a model's outputs, for error messages.

    Parameters
    ----------
    names
        Names of the outputs, if the target must choose one; None: a function of all outputs.
    """
    leaves = list(flatten_with_paths(outputs))
    function = f"target=lambda outputs: {_write_mean_score(*leaves[0])}"
    for index, (path, tensor) in enumerate(leaves):
        if names is not None and tensor.shape.rank in (1, 2):
            name = names[index] if len(set(names)) == len(names) else index
            function = f"target=lambda outputs: {_write_mean_score(path, tensor)}"
            return f"a target of one of them, such as target={{{name!r}: 0}} or {function}"
    return f"a target that returns one score for each image, such as {function}"


def _write_mean_score(path: tuple[Any, ...], tensor: Any) -> str:
    """Return Python code for an error message: the mean of an output's first channel."""
    output = "outputs" + "".join(f"[{key!r}]" for key in path)
    rank = tensor.shape.rank
    if rank == 1:
        return output
    if rank == 2:
        return f"{output}[:, 0]"
    if not rank:
        return f"tf.reduce_mean(tf.reshape({output}, (tf.shape({output})[0], -1)), 1)"
    return f"tf.reduce_mean({output}[..., 0], {tuple(range(1, rank - 1))})"
