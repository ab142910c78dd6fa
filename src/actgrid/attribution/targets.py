"""Read the option `target`: the class or function to explain for each image."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import OutputTargetError, TargetError, suggest
from actgrid.models.labels import class_index
from actgrid.models.types import TargetLike

__all__ = [
    "PREDICTED",
    "TargetRow",
    "are_several",
    "check_classes",
    "class_indices",
    "head_index",
    "names_heads",
    "target_rows",
]

# Stands for the class that the model predicts.
PREDICTED = -1


class TargetRow(NamedTuple):
    """One map to compute.

    `image` is the position of the image, `head` that of the output (None: the only one).
    """

    image: int
    head: int | None
    target: Any


def are_several(value: Any) -> bool:
    """Return whether a value is a list or array of values, not a single value or its name."""
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


def class_indices(
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
    return np.array([_class(target, labels) for target in targets], np.int32)


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


def check_classes(
    target_classes: npt.NDArray[np.int32], count: int, output: str | None = None
) -> None:
    """Raise TargetError unless the classes are among the `count` of a model or output."""
    if target_classes.size and (largest := int(target_classes.max())) >= count:
        owner = "the model has" if output is None else f"output {output!r} has"
        classes = "" if output is None else " classes" if count > 1 else " class"
        raise TargetError(
            f"there is no class {largest}: {owner} {count}{classes}, 0 to {count - 1}"
        )
