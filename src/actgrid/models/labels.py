"""Load and look up the names of the classes of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from actgrid.errors import MissingFileError, OptionError, TargetError, suggest
from actgrid.models.architectures import find_architecture

__all__ = ["IMAGENET", "find_class_index", "load_imagenet_labels", "read_labels", "resolve_labels"]

# The value of the option `labels` that selects the class names of ImageNet.
IMAGENET = "imagenet"


@lru_cache(maxsize=1)
def load_imagenet_labels() -> tuple[str, ...]:
    """Return the names of the 1000 ImageNet classes (ILSVRC-2012).

    The names are in the order of the outputs of ImageNet models.

    Returns
    -------
    tuple of str
        1000 names.

    Examples
    --------
    >>> from actgrid.models.labels import load_imagenet_labels
    >>> load_imagenet_labels()[285]
    'Egyptian cat'
    """
    return tuple((files(__package__) / "imagenet_labels.txt").read_text("utf-8").splitlines())


def read_labels(path: Path) -> tuple[str, ...]:
    """Read class names from a text file with one name per line.

    The path ``imagenet`` needs no file: it returns the ImageNet names.

    Returns
    -------
    tuple of str
        The names, in the order of the classes.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    OptionError
        If the file is not a text file or is empty.
    """
    if str(path) == IMAGENET:
        return load_imagenet_labels()
    try:
        labels = tuple(line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines())
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read as names of classes: {error}") from error
    if not labels:
        raise OptionError(f"{path} is empty; expected one class name per line")
    return labels


def resolve_labels(
    model: Any, count: int, labels: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """Return the names of the classes of a model; None if they are not known.

    Parameters
    ----------
    model
        The model.
    count
        The number of classes.
    labels
        The names in the order of the classes; a text file with one name per line; ``"imagenet"``
        for the ImageNet classes. None: the ImageNet classes if the model is a complete network of
        `keras.applications` or the demo (see `find_architecture`), else unknown.

    Returns
    -------
    tuple of str or None
        The names of the classes.

    Raises
    ------
    TargetError
        If the number of names is not `count`, or `labels` has another type.
    """
    if labels is None:
        if count != len(load_imagenet_labels()):
            return None
        architecture = find_architecture(model)
        return (
            load_imagenet_labels()
            if architecture is not None and architecture.is_complete
            else None
        )
    if isinstance(labels, (str, os.PathLike)):
        labels = read_labels(Path(labels))
    if (
        isinstance(labels, Mapping)
        or not hasattr(labels, "__len__")
        or not all(isinstance(label, str) for label in labels)
    ):
        raise TargetError(
            f"labels must be a list of names, a text file or {IMAGENET!r}, not {labels!r}"
        )
    if len(labels) != count:
        raise TargetError(f"labels must name the model's {count} classes, not {len(labels)}")
    return tuple(labels)


def find_class_index(name: str, labels: Sequence[str] | None) -> int:
    """Return the index of the class that has a name; ignore upper and lower case.

    Returns
    -------
    int
        Position of the class in the output of the model.

    Raises
    ------
    TargetError
        If no class or several classes have this name, or if the class names are not known.
    """
    if labels is None:
        raise TargetError(
            f"the names of the model's classes are not known: give the index of {name!r}, or labels"
        )
    folded_name = name.strip().casefold()
    matches = [index for index, label in enumerate(labels) if label.casefold() == folded_name]
    if not matches:
        raise TargetError(f"no class is called {name!r}{suggest(name, labels)}")
    if len(matches) > 1:
        indices = " or ".join(map(str, matches))
        raise TargetError(f"{len(matches)} classes are called {name!r}: give an index, {indices}")
    return matches[0]
