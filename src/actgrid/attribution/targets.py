"""What is explained: one score of the model's output for each image."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.target_layers import ancestors
from actgrid.errors import ActgridError, OutputTargetError, ShapeError, TargetError, suggest
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.inputs import leaves_with_paths, map_tensors
from actgrid.models.labels import class_index
from actgrid.models.logits import Logits, bounds_of, logits_of
from actgrid.models.network import is_network
from actgrid.models.networks import trace_network
from actgrid.models.refusals import reason
from actgrid.models.tracing import unchanged
from actgrid.models.types import TargetLike

__all__ = [
    "PREDICTED",
    "Evidence",
    "Reading",
    "TargetRow",
    "are_several",
    "binary_evidence",
    "binary_output",
    "check_classes",
    "head_index",
    "names_heads",
    "output_names",
    "output_specs",
    "read",
    "target_rows",
    "wanted_classes",
]

# Stands for the class that the model predicts.
PREDICTED = -1

# From a model's output, and its input if the function takes two arguments, to one score for each
# image.
Score = Callable[..., Any]

# What tells, beside the operations, that an output of one value is one of two classes: the loss is
# one of logits or of probabilities, or two names are given.
Evidence = Literal["logit", "probability", "names"] | None


class Reading(NamedTuple):
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


class TargetRow(NamedTuple):
    """One map to compute.

    `image` is the position of the image, `head` that of the output (None: the only one).
    """

    image: int
    head: int | None
    target: Any


def are_several(value: Any) -> bool:
    """Tell whether a value is a list or array of values, not a single one or its name."""
    # Arrays and tensors of no axis can be iterated over by their type alone.
    single = (
        isinstance(value, (str, bytes)) or callable(value) or len(getattr(value, "shape", "?")) == 0
    )
    return isinstance(value, Iterable) and not single


def target_rows(target: TargetLike, images: int, heads: Sequence[str] = ()) -> list[TargetRow]:
    """Return the maps that a target asks for, image by image.

    Parameters
    ----------
    target
        One target for all images; a list with a target, or a list of targets, for each image; for
        one image a list of targets. Each may be a dict of targets by output, and a pair (output,
        target) if the model has several outputs.
    images
        The number of images.
    heads
        The names of the model's outputs, see `output_names`.

    Raises
    ------
    TargetError
        If the list has another length, or names an output that the model does not have.
    """
    if isinstance(target, str) and len(heads) > 1 and target in heads:
        raise OutputTargetError(
            f"{target!r} names an output and no class of it",
            f"target={{{target!r}: None}} for the class that it predicts, or a class in its place",
            [target],
        )
    by_head = _by_head(target, heads)
    if by_head is not None:
        rows = [
            row._replace(head=head_index(name, heads))
            for name, inner in by_head.items()
            for row in target_rows(inner, images)
        ]
        return sorted(rows, key=operator.attrgetter("image"))
    if not are_several(target):
        return [TargetRow(image, None, target) for image in range(images)]
    targets: list[Any] = list(target)  # type: ignore[arg-type]
    if not targets:
        raise TargetError("target is an empty list: name at least one class")
    if images == 1:
        return [row for entry in targets for row in target_rows(entry, 1, heads)]
    if len(targets) != images:
        raise TargetError(
            f"there are {images} images, but {len(targets)} targets: several targets for each "
            "image are a list of lists, one for each image"
        )
    return [
        row._replace(image=image)
        for image, entry in enumerate(targets)
        for row in target_rows(entry, 1, heads)
    ]


def _by_head(target: Any, heads: Sequence[str]) -> Mapping[Any, Any] | None:
    """Return targets by output; None if the target names no output."""
    if isinstance(target, Mapping):
        return target
    if isinstance(target, tuple) and len(target) == 2 and len(heads) > 1:
        name, inner = target
        # Classes without an output would have no meaning here.
        if isinstance(name, str) or _is_position(name):
            return {name: inner}
    return None


def _is_position(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def names_heads(target: Any) -> bool:
    """Return whether a target may name outputs of the model: a dict or a pair is in it."""
    if isinstance(target, Mapping) or (isinstance(target, tuple) and len(target) == 2):
        return True
    return isinstance(target, (list, tuple)) and any(map(names_heads, target))


def head_index(name: Any, heads: Sequence[str]) -> int:
    """Return the position of an output that is named by its name or its position.

    Raises
    ------
    TargetError
        If the model has no such output.
    """
    if isinstance(name, str) and name in heads:
        return heads.index(name)
    if _is_position(name) and 0 <= name < len(heads):
        return int(name)
    if not heads:
        raise TargetError(f"the targets of an output name an output again: {name!r}")
    hint = suggest(name, heads) if isinstance(name, str) else ""
    raise TargetError(
        f"the model has no output {name!r}{hint}; outputs: {', '.join(map(repr, heads))}"
    )


def output_names(model: Any, outputs: Any) -> list[str]:
    """Return the names of a model's outputs, in the order of TensorFlow's nests.

    Those are the keys of a dict, the names of the output layers of a list, or else positions.
    """
    paths = [path for path, _ in leaves_with_paths(outputs)]
    if is_network(model):
        return list(model.outputs)
    if not isinstance(outputs, Mapping):
        names = list(getattr(model, "output_names", None) or [])
        if not names:  # of a Sequential
            tensors = getattr(model, "outputs", None) or []
            names = [tensor._keras_history.operation.name for tensor in tensors]
        if len(set(names)) == len(paths) and all(len(path) < 2 for path in paths):
            return names
    return ["/".join(map(str, path)) or "output" for path in paths]


def output_specs(model: Any, inputs: Any) -> Any:
    """Return the structure of a model's outputs; one that does not tell is traced for it.

    Raises
    ------
    ModelError
        If the model cannot be run on these inputs.
    """
    structure = getattr(model, "_outputs_struct", None)
    if structure is not None:
        return structure
    if not is_network(model) and len(getattr(model, "outputs", None) or []) == 1:
        return model.outputs[0]
    tf = tensorflow()
    traced: list[Any] = []

    def trace(inputs: Any) -> None:
        with unchanged():
            outputs = trace_network(model, inputs).outputs
        traced.append(map_tensors(tf.TensorSpec.from_tensor, outputs))

    specs = map_tensors(tf.TensorSpec.from_tensor, inputs)
    GraphFunction(trace).trace(specs)
    return traced[0]


def binary_evidence(model: Any, heads: Sequence[str], head: int, labels: Any = None) -> Evidence:
    """Return what tells of two classes for an output: the loss of the model, or two names."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, Mapping):
        loss = loss.get(heads[head])
    elif isinstance(loss, (list, tuple)):
        loss = loss[head] if head < len(loss) else None
    losses = keras().losses
    if isinstance(loss, str):
        loss = losses.get(loss)
    if isinstance(loss, (losses.BinaryCrossentropy, losses.BinaryFocalCrossentropy)):
        return "logit" if loss.from_logits else "probability"
    if loss in (losses.binary_crossentropy, losses.binary_focal_crossentropy):
        return "probability"
    two = hasattr(labels, "__len__") and not isinstance(labels, str) and len(labels) == 2
    return "names" if two else None


def wanted_classes(
    targets: Iterable[Any], labels: Sequence[str] | None = None
) -> npt.NDArray[np.int32]:
    """Return the class that each target stands for, -1 for the predicted one.

    Parameters
    ----------
    targets
        None, a class, or its name.
    labels
        Names of the classes, if they are known.

    Raises
    ------
    TargetError
        If one is no target. Whether there are so many classes is for `check_classes`.
    """
    return np.array([_class(one, labels) for one in targets], np.int32)


def _class(target: Any, labels: Sequence[str] | None) -> int:
    if target is None:
        return PREDICTED
    if isinstance(target, str):
        return class_index(target, labels)
    try:
        if isinstance(target, (bool, np.bool_)):
            raise TypeError
        index = operator.index(target)
    except (TypeError, AttributeError):  # the latter of tensors
        raise TargetError(
            "target must be a class, its name, a list of these, or a function of the output, "
            f"not {target!r}"
        ) from None
    if index < 0:
        raise TargetError(f"target must be a class, 0 or more, not {index}")
    if index > np.iinfo(np.int32).max:
        raise TargetError(f"there is no class {index}")
    return index


def check_classes(wanted: npt.NDArray[np.int32], count: int, output: str | None = None) -> None:
    """Raise TargetError unless the wanted classes are among the `count` of a model or output."""
    if wanted.size and (most := int(wanted.max())) >= count:
        owner = "the model has" if output is None else f"output {output!r} has"
        classes = "" if output is None else " classes" if count > 1 else " class"
        raise TargetError(f"there is no class {most}: {owner} {count}{classes}, 0 to {count - 1}")


def read(
    model: Any,
    inputs: Any,
    outputs: Any,
    wanted: Any,
    score: Score | None,
    head: int | None,
    evidence: Evidence,
) -> Reading:
    """Return the scores of the targets in a model's symbolic output.

    The logit before a softmax or sigmoid is the score: these squeeze it, and softmax mixes the
    other classes into its gradient. A single logit l is read as the two classes 0 and 1, whose
    scores are -l and l, and a single probability p as those of scores 1 - p and p.

    Parameters
    ----------
    wanted
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
        none = tf.fill(tf.shape(wanted), PREDICTED)
        unknown = tf.fill(tf.shape(wanted), np.nan)
        return Reading(scores, none, tf.constant(0), tf.constant(False), unknown)

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
    classes = tf.where(wanted < 0, predicted, wanted)
    # A class that there is not does not stop the device; `check_classes` tells.
    chosen = tf.minimum(classes, count - 1)
    probability = tf.gather(probabilities, chosen, batch_dims=1)
    return Reading(
        tf.gather(scores, chosen, batch_dims=1),
        classes,
        count,
        tf.constant(is_logit),
        probability if is_logit else tf.fill(tf.shape(wanted), np.nan),
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
    needed = [one for one in parameters if one.kind in kinds and one.default is one.empty]
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
