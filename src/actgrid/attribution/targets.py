"""What is explained: one score of the model's output for each image."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import ShapeError, TargetError
from actgrid.models.frameworks import tensorflow
from actgrid.models.labels import class_index
from actgrid.models.tracing import before_softmax

__all__ = [
    "PREDICTED",
    "Reading",
    "are_several",
    "check_classes",
    "each_target",
    "read",
    "wanted_classes",
]

# Stands for the class that the model predicts.
PREDICTED = -1

# From a model's output to one score for each image.
Score = Callable[[Any], Any]

_ADVICE = (
    "give a target that returns one score for each image, such as "
    "target=lambda outputs: tf.reduce_mean(outputs[..., 3], (1, 2))"
)


class Reading(NamedTuple):
    """Scores of a batch, (N,) float32, and what they are of.

    `classes`, (N,) int32, are -1 where the target is a function. `count` is the number of classes,
    0 then; `softmax` tells whether the scores are those before a softmax.
    """

    scores: Any
    classes: Any
    count: Any
    softmax: Any


def are_several(value: Any) -> bool:
    """Tell whether a value is a list or array of values, not a single one or its name."""
    # Arrays and tensors of no axis can be iterated over by their type alone.
    single = isinstance(value, (str, bytes)) or len(getattr(value, "shape", "?")) == 0
    return isinstance(value, Iterable) and not single


def each_target(target: Any, images: int) -> list[Any]:
    """Return the target of each image, of one for all or a list or array of them.

    Raises
    ------
    TargetError
        If there are not as many.
    """
    targets = list(target) if are_several(target) else [target] * images
    if len(targets) != images:
        raise TargetError(f"there are {images} images, but {len(targets)} targets")
    return targets


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


def check_classes(wanted: npt.NDArray[np.int32], count: int) -> None:
    """Raise TargetError unless the wanted classes are among `count`."""
    if wanted.size and (most := int(wanted.max())) >= count:
        raise TargetError(f"there is no class {most}: the model has {count}, 0 to {count - 1}")


def read(outputs: Any, wanted: Any, score: Score | None) -> Reading:
    """Return what a model's symbolic output says of the targets.

    Softmax is looked behind: it squeezes the score, and mixes the other classes into its gradient.

    Raises
    ------
    TargetError
        If the output has no classes, and `score` does not tell what to make of it.
    ShapeError
        If `score` does not give one number for each image.
    """
    tf = tensorflow()
    if score is not None:
        scores = score(outputs)
        if scores is None:
            raise ShapeError("the target must give one score for each image, (N,), not None")
        scores = tf.convert_to_tensor(scores)
        if scores.shape.rank == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        if scores.shape.rank != 1:
            raise ShapeError(
                f"the target must give one score for each image, (N,), not {tuple(scores.shape)}"
            )
        none = tf.fill(tf.shape(wanted), PREDICTED)
        return Reading(tf.cast(scores, tf.float32), none, tf.constant(0), tf.constant(False))

    tensors = tf.nest.flatten(outputs)
    if len(tensors) != 1:
        raise TargetError(f"the model has {len(tensors)} outputs: {_ADVICE}")
    (output,) = tensors
    if output.shape.rank == 1:
        output = output[:, None]
    if output.shape.rank != 2:
        raise TargetError(
            f"the model's output, {tuple(output.shape)}, is not one score for each class: {_ADVICE}"
        )
    logits = before_softmax(output)
    softmax = logits is not None
    scores = tf.cast(logits if softmax else output, tf.float32)
    count = tf.shape(scores)[1]
    classes = tf.where(wanted < 0, tf.argmax(scores, 1, tf.int32), wanted)
    # A class that there is not does not stop the device; `check_classes` tells.
    chosen = tf.gather(scores, tf.minimum(classes, count - 1), batch_dims=1)
    return Reading(chosen, classes, count, tf.constant(softmax))
