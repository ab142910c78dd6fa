"""Read the scores of targets in the symbolic output of a model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from actgrid.attribution.outputs import Evidence, binary_evidence, output_names
from actgrid.attribution.target_layers import ancestors
from actgrid.attribution.targets import PREDICTED
from actgrid.errors import ActgridError, OutputTargetError, ShapeError, TargetError
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import leaves_with_paths
from actgrid.models.logits import Logits, bounds_of, logits_of
from actgrid.models.networks import trace_network
from actgrid.models.refusals import reason
from actgrid.models.tracing import unchanged

__all__ = ["TargetScores", "binary_output", "read"]

# From a model's output, and its input if the function takes two arguments, to one score for each
# image.
Score = Callable[..., Any]


class TargetScores(NamedTuple):
    """Scores of a batch, (N,) float32, and what they are of.

    `classes`, (N,) int32, are -1 where the target is a function. `count` is the number of classes,
    0 then; `is_logit` tells whether the scores are logits, read before a softmax or sigmoid;
    `probabilities` are what these make of the scores, NaN for other scores.
    """

    scores: Any
    classes: Any
    count: Any
    is_logit: Any
    probabilities: Any


def read(
    model: Any,
    inputs: Any,
    outputs: Any,
    target_classes: Any,
    score: Score | None,
    head: int | None,
    evidence: Evidence,
) -> TargetScores:
    """Return the scores of the targets in a model's symbolic output.

    The logit before a softmax or sigmoid is the score: these squeeze it, and softmax mixes the
    other classes into its gradient. A single logit l is read as the two classes 0 and 1, whose
    scores are -l and l, and a single probability p as those of scores 1 - p and p.

    Parameters
    ----------
    target_classes
        (N,) int32, the classes.
    score
        A function of the outputs, or of the one that is read, and of the inputs too if it takes
        two arguments; None: classes.
    head
        Position of the output to read; None: the only one, for a function all.
    evidence
        Of two classes, for an output of one value.

    Raises
    ------
    TargetError
        If the output has no classes, and `score` does not tell what to make of it; or if `score`
        fails, or gives scores that do not derive from the output.
    ShapeError
        If `score` does not give one number for each image.
    """
    tf = tensorflow()
    tensors = [tensor for _, tensor in leaves_with_paths(outputs)]
    if score is not None:
        scores = _scores_by(score, outputs if head is None else tensors[head], inputs)
        none = tf.fill(tf.shape(target_classes), PREDICTED)
        unknown = tf.fill(tf.shape(target_classes), np.nan)
        return TargetScores(scores, none, tf.constant(0), tf.constant(False), unknown)

    if head is None and len(tensors) > 1:
        names = output_names(model, outputs)
        known: Iterable[str | int] = names if len(set(names)) == len(names) else range(len(names))
        ranks = [tensor.shape.rank for tensor in tensors]
        raise OutputTargetError(
            f"the model has {len(tensors)} outputs, {', '.join(map(repr, names))}",
            _advice(outputs, names),
            [name for name, rank in zip(known, ranks, strict=True) if rank in (1, 2)],
        )
    output = tensors[head or 0]
    if output.shape.rank not in (1, 2):
        name = None if head is None else output_names(model, outputs)[head]
        owner = "the model's output" if name is None else f"the output {name!r}"
        raise OutputTargetError(
            f"{owner}, {tuple(output.shape)}, is not one score for each class",
            _advice(outputs, None)
            if name is None
            else f"target={{{name!r}: lambda outputs: {_mean_score((), output)}}}",
        )
    logits = logits_of(output)
    scores = tf.cast(output if logits is None else logits.tensor, tf.float32)
    probabilities = tf.cast(output, tf.float32)
    if output.shape.rank == 1:
        scores, probabilities = scores[:, None], probabilities[:, None]
    is_logit = logits is not None
    predicted = tf.argmax(scores, 1, tf.int32)
    kind = _binary_kind(output, logits, evidence) if scores.shape[1] == 1 else None
    if kind is not None:
        scores = tf.concat([1 - scores if kind == "probability" else -scores, scores], 1)
        is_logit = kind == "logit"
        predicted = tf.cast(scores[:, 1] >= scores[:, 0], tf.int32)
        probabilities = tf.sigmoid(scores)
    count = tf.shape(scores)[1]
    classes = tf.where(target_classes < 0, predicted, target_classes)
    # A class that there is not does not stop the device; `check_classes` tells.
    chosen = tf.minimum(classes, count - 1)
    probability = tf.gather(probabilities, chosen, batch_dims=1)
    return TargetScores(
        tf.gather(scores, chosen, batch_dims=1),
        classes,
        count,
        tf.constant(is_logit),
        probability if is_logit else tf.fill(tf.shape(target_classes), np.nan),
    )


def binary_output(model: Any, inputs: Any, labels: Any = None) -> str | None:
    """Return how a model of one output value predicts two classes; None if it does not.

    Parameters
    ----------
    inputs
        What the model takes, as TensorSpecs or tensors.
    labels
        Names of the classes, if any are given.

    Returns
    -------
    str or None
        What the value tells of class 1: its ``"probability"``, its ``"logit"``, or ``"sign"``, if
        positive values stand for it and the value is bounded.
    """
    found: list[str | None] = [None]

    def trace(inputs: Any) -> None:
        with unchanged():
            leaves = list(leaves_with_paths(trace_network(model, inputs).outputs))
        (_, output), *others = leaves
        if others or tuple(output.shape[1:]) not in ((), (1,)):
            return
        logits = logits_of(output)
        kind = _binary_kind(output, logits, binary_evidence(model, ["output"], 0, labels))
        found.append("probability" if kind is not None and logits is not None else kind)

    tensorflow().function(trace, autograph=False).get_concrete_function(inputs)
    return found[-1]


def _binary_kind(
    output: Any, logits: Logits | None, evidence: Evidence
) -> Literal["logit", "probability", "sign"] | None:
    """Return what the score of an output of one value tells of class 1; None: nothing."""
    if logits is not None:
        return "logit" if logits.activation == "sigmoid" else None
    if evidence == "logit":
        return "logit"
    low, high = bounds_of(output)
    # A sixth of 6 may be a little more than 1.
    if evidence == "probability" or 0 <= low < high < 1.001:
        return "probability"
    if evidence is None or not low < 0 < high:
        return None
    return "logit" if math.isinf(low) and math.isinf(high) else "sign"


def _scores_by(score: Score, outputs: Any, inputs: Any) -> Any:
    """Return the scores that a function gives, (N,) float32."""
    tf = tensorflow()
    try:
        result = score(outputs, inputs) if _takes_inputs(score) else score(outputs)
        scores = _one_for_each(result)
    except ActgridError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(tensor.shape)) for _, tensor in leaves_with_paths(outputs))
        raise TargetError(
            f"the target function fails on the model's output, {shapes}: "
            f"{reason(error).rstrip('.')}; write it in TensorFlow's operations, as it is compiled"
        ) from error
    found = ancestors([scores])
    if all(tensor.name not in found for tensor in tf.nest.flatten(outputs)):
        raise TargetError("the target function's scores do not depend on the model's output")
    return scores


def _one_for_each(scores: Any) -> Any:
    """Return what a function gives as (N,) float32."""
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
    """Return whether a function needs two positional arguments: outputs and inputs."""
    try:
        parameters = inspect.signature(score).parameters.values()
    except (TypeError, ValueError):  # of some functions that are not written in Python
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        parameter
        for parameter in parameters
        if parameter.kind in kinds and parameter.default is parameter.empty
    ]
    return len(needed) > 1


def _advice(outputs: Any, heads: Sequence[str] | None) -> str:
    """Return a target that would do for a model's outputs, as Python code.

    Parameters
    ----------
    heads
        The names of the outputs if one of them is to be chosen.
    """
    leaves = list(leaves_with_paths(outputs))
    function = f"target=lambda outputs: {_mean_score(*leaves[0])}"
    for index, (path, tensor) in enumerate(leaves):
        if heads is not None and tensor.shape.rank in (1, 2):
            name = heads[index] if len(set(heads)) == len(heads) else index
            function = f"target=lambda outputs: {_mean_score(path, tensor)}"
            return f"a target of one of them, such as target={{{name!r}: 0}} or {function}"
    return f"a target that returns one score for each image, such as {function}"


def _mean_score(path: tuple[Any, ...], tensor: Any) -> str:
    """Return the code of a score for each image, of one output: the mean of its first channel."""
    output = "outputs" + "".join(f"[{key!r}]" for key in path)
    rank = tensor.shape.rank
    if rank == 1:
        return output
    if rank == 2:
        return f"{output}[:, 0]"
    if not rank:
        return f"tf.reduce_mean(tf.reshape({output}, (tf.shape({output})[0], -1)), 1)"
    return f"tf.reduce_mean({output}[..., 0], {tuple(range(1, rank - 1))})"
