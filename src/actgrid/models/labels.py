"""The names of a model's classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from actgrid.errors import MissingFileError, OptionError, TargetError, suggest
from actgrid.models.architectures import find_architecture

__all__ = ["IMAGENET", "class_index", "imagenet_labels", "labels_of", "read_labels"]

# What asks for the names of ImageNet's classes.
IMAGENET = "imagenet"


@lru_cache(maxsize=1)
def imagenet_labels() -> tuple[str, ...]:
    """Return the names of the 1000 classes of ImageNet (ILSVRC-2012), in the order of models.

    Examples
    --------
    >>> imagenet_labels()[285]
    'Egyptian cat'
    """
    return tuple((files(__package__) / "imagenet_labels.txt").read_text("utf-8").splitlines())


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the names in a text file of one class a line; of ``imagenet`` those of ImageNet.

    Raises
    ------
    MissingFileError
        If there is no such file.
    OptionError
        If it is no such text.
    """
    if str(path) == IMAGENET:
        return imagenet_labels()
    try:
        labels = tuple(line.strip() for line in path.read_text("utf-8-sig").rstrip().splitlines())
    except FileNotFoundError:
        raise MissingFileError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path} cannot be read as names of classes: {error}") from error
    if not labels:
        raise OptionError(f"{path} names no class")
    return labels


def labels_of(
    model: Any, count: int, labels: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """Return the names of the classes of a model.

    Parameters
    ----------
    count
        The number of classes.
    labels
        The names in the order of the classes, or a text file of them; ``"imagenet"``, those of
        ImageNet; None: those of
        ImageNet if the model is a whole network of `keras.applications` or the demo, see
        `find_architecture`.

    Returns
    -------
    tuple of str or None
        None if they are not known.

    Raises
    ------
    TargetError
        If other than `count` names are given, or something else.
    """
    if labels is None:
        if count != len(imagenet_labels()):
            return None
        architecture = find_architecture(model)
        return imagenet_labels() if architecture is not None and architecture.is_whole else None
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


def class_index(name: str, labels: Sequence[str] | None) -> int:
    """Return the class of a name, whatever its case.

    Raises
    ------
    TargetError
        If no class has this name, or several have; or if the names are not known.
    """
    if labels is None:
        raise TargetError(
            f"the names of the model's classes are not known: give the index of {name!r}, or labels"
        )
    wanted = name.strip().casefold()
    found = [index for index, label in enumerate(labels) if label.casefold() == wanted]
    if not found:
        raise TargetError(f"no class is called {name!r}{suggest(name, labels)}")
    if len(found) > 1:
        indices = " or ".join(map(str, found))
        raise TargetError(f"{len(found)} classes are called {name!r}: give an index, {indices}")
    return found[0]
