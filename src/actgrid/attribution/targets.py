"""Parse the option `target`: the class or function to explain for each image."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import OutputTargetError, TargetError, suggest
from actgrid.models.labels import find_class_index
from actgrid.models.types import TargetLike

__all__ = [
    "PREDICTED",
    "TargetRow",
    "check_classes",
    "find_output_index",
    "is_collection",
    "list_target_rows",
    "may_name_outputs",
    "parse_classes",
]

# Class index that stands for the class that the model predicts.
PREDICTED = -1


class TargetRow(NamedTuple):
    """Image, output and target of one map.

    Attributes
    ----------
    image
        Index of the image.
    output
        Index of the model's output; None: the only output.
    target
        None, a class index or name, or a function.
    """

    image: int
    output: int | None
    target: Any


def is_collection(value: Any) -> bool:
    """Return whether a value is an iterable of values, and not a string."""
    # Zero-dimensional arrays and tensors have `__iter__`, but cannot be iterated over.
    is_single = (
        isinstance(value, (str, bytes)) or callable(value) or len(getattr(value, "shape", "?")) == 0
    )
    return isinstance(value, Iterable) and not is_single


def list_target_rows(
    target: TargetLike, images: int, outputs: Sequence[str] = ()
) -> list[TargetRow]:
    """Expand the option `target` to one row for each map, ordered by image.

    Parameters
    ----------
    target
        One target for all images; a list with a target, or a list of targets, for each image; for
        one image, a list of targets. A target may be a dict of targets by output, and a pair
        (output, target) if the model has several outputs.
    images
        The number of images.
    outputs
        Names of the model's outputs, see `list_output_names`.

    Raises
    ------
    TargetError
        If the list has the wrong length, or an output is unknown.
    """
    if isinstance(target, str) and len(outputs) > 1 and target in outputs:
        raise OutputTargetError(
            f"target {target!r} is the name of an output, not of a class",
            f"target={{{target!r}: None}} for the class that it predicts, or a class in its place",
            [target],
        )
    targets_by_output = _group_by_output(target, outputs)
    if targets_by_output is not None:
        rows = [
            row._replace(output=find_output_index(name, outputs))
            for name, output_target in targets_by_output.items()
            for row in list_target_rows(output_target, images)
        ]
        return sorted(rows, key=operator.attrgetter("image"))
    if not is_collection(target):
        return [TargetRow(image, None, target) for image in range(images)]
    targets: list[Any] = list(target)  # type: ignore[arg-type]
    if not targets:
        raise TargetError("target is an empty list: name at least one class")
    if images == 1:
        return [row for entry in targets for row in list_target_rows(entry, 1, outputs)]
    if len(targets) != images:
        raise TargetError(
            f"target must have one entry for each image: got {len(targets)} targets for {images} "
            "images; pass a list of lists for several targets for each image"
        )
    return [
        row._replace(image=image)
        for image, entry in enumerate(targets)
        for row in list_target_rows(entry, 1, outputs)
    ]


def _group_by_output(target: Any, outputs: Sequence[str]) -> Mapping[Any, Any] | None:
    """Return a dict: output -> its targets. None: `target` does not name an output."""
    if isinstance(target, Mapping):
        return target
    if isinstance(target, tuple) and len(target) == 2 and len(outputs) > 1:
        name, output_target = target
        # A pair of classes would be ambiguous for a model with several outputs.
        if isinstance(name, str) or _is_index(name):
            return {name: output_target}
    return None


def _is_index(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def may_name_outputs(target: Any) -> bool:
    """Return whether a target contains a dict or a pair, which can name outputs."""
    if isinstance(target, Mapping) or (isinstance(target, tuple) and len(target) == 2):
        return True
    return isinstance(target, (list, tuple)) and any(map(may_name_outputs, target))


def find_output_index(name: Any, outputs: Sequence[str]) -> int:
    """Return the index of an output from its name or index.

    Raises
    ------
    TargetError
        If the model has no such output.
    """
    if isinstance(name, str) and name in outputs:
        return outputs.index(name)
    if _is_index(name) and 0 <= name < len(outputs):
        return int(name)
    if not outputs:
        raise TargetError(f"target of an output must be a class, not the output {name!r}")
    hint = suggest(name, outputs) if isinstance(name, str) else ""
    raise TargetError(
        f"the model has no output {name!r}{hint}; outputs: {', '.join(map(repr, outputs))}"
    )


def parse_classes(
    targets: Iterable[Any], labels: Sequence[str] | None = None
) -> npt.NDArray[np.int32]:
    """Return the class index of each target, -1 for the predicted class.

    Parameters
    ----------
    targets
        None, a class index, or a class name for each map.
    labels
        Names of the classes, if they are known.

    Returns
    -------
    ndarray
        (N,) int32. `check_classes` checks the indices against the number of classes.

    Raises
    ------
    TargetError
        If a target is not a class.
    """
    return np.array([_parse_class(target, labels) for target in targets], np.int32)


def _parse_class(target: Any, labels: Sequence[str] | None) -> int:
    if target is None:
        return PREDICTED
    if isinstance(target, str):
        return find_class_index(target, labels)
    try:
        if isinstance(target, (bool, np.bool_)):
            raise TypeError
        index = operator.index(target)
    except (TypeError, AttributeError):  # symbolic tensors raise AttributeError
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
    """Raise TargetError if a class index is not below `count`, the number of classes."""
    if target_classes.size and (largest := int(target_classes.max())) >= count:
        owner = "the model has" if output is None else f"output {output!r} has"
        classes = "" if output is None else " classes" if count > 1 else " class"
        raise TargetError(
            f"there is no class {largest}: {owner} {count}{classes}, 0 to {count - 1}"
        )
