"""Read the options of `actgrid explain`, and draw its heatmaps."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actgrid.attribution.lime import check_packages
from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_options, find_method
from actgrid.attribution.requests import Labels, ZeroAttributionWarning
from actgrid.attribution.targets import check_classes, class_indices
from actgrid.cli.command import flag_of
from actgrid.errors import OptionError, OutputTargetError, TargetError
from actgrid.figures.files import folder_names, safe_name, unique_names
from actgrid.models.labels import read_labels
from actgrid.rendering import Heatmap, Sheet

__all__ = [
    "draw",
    "labels_choice",
    "method_choice",
    "picture_names",
    "target_choice",
    "targets_as_options",
    "warnings_in_a_line",
]


def method_choice(
    names: Sequence[str], layer: str | None, options: Mapping[str, Any]
) -> dict[Method, dict[str, Any]]:
    """Return the methods, each with those of the options that it takes.

    Raises
    ------
    OptionError
        If there is no such method, or none of the methods takes an option.
    MissingDependencyError
        If a method needs a package that is not there.
    """
    methods = list(dict.fromkeys(map(find_method, names)))
    check_options(methods, layer, {})
    known = list(dict.fromkeys(name for method in methods for name in method.options))
    for name in options:
        if name not in known:
            raise OptionError(
                f"{flag_of(name)} is no option of {', '.join(method.name for method in methods)}; "
                f"options: {', '.join(map(flag_of, known)) or 'none'}"
            )
    if any(method.name == "lime" for method in methods):
        check_packages()
    return {
        method: {name: value for name, value in options.items() if name in method.options}
        for method in methods
    }


def picture_names(
    files: Sequence[Path], methods: Iterable[Method], targets: Sequence[str]
) -> Iterator[str]:
    """Yield the names of the pictures of each file, method and target, without suffixes."""
    # Several targets of an image are told apart by what was given for each.
    endings = [f"_{safe_name(text)}" for text in targets] if len(targets) > 1 else [""]
    yield from unique_names(
        f"{name}_{method.name}{ending}"
        for name in folder_names(files)
        for method in methods
        for ending in endings
    )


def labels_choice(texts: Sequence[str] | None) -> Labels:
    """Return the class names in the files that `--labels` gives, FILE or OUTPUT=FILE.

    Raises
    ------
    MissingFileError, OptionError
        If a file cannot be read, or several files name the classes of one output.
    """
    files: dict[str | None, Path] = {}
    for text in texts or ():
        head, equals, file = text.partition("=")
        is_file = not equals or Path(text).exists()
        name = None if is_file else head
        if name in files:
            raise OptionError(
                "--labels must be one file, or OUTPUT=FILE for each output of the model, not "
                + ", ".join(texts or ())
            )
        files[name] = Path(text if is_file else file)
    labels = {name: read_labels(file) for name, file in files.items()}
    if None in labels:
        if len(labels) > 1:
            raise OptionError("--labels must name an output in each of several files, OUTPUT=FILE")
        return labels[None]
    return {_position_or_name(name): known for name, known in labels.items() if name} or None


def target_choice(texts: Sequence[str], labels: Labels) -> Any:
    """Return the targets that `--target` gives: names, indices, or OUTPUT=CLASS.

    Raises
    ------
    TargetError
        If a class is none of those named, or of no model.
    """
    targets = [_target(text, labels) for text in texts]
    return None if not targets else targets if len(targets) > 1 else targets[0]


def _target(text: str, labels: Labels) -> Any:
    head, equals, name = text.partition("=")
    known: Sequence[str] | None = None if isinstance(labels, Mapping) else labels
    if equals and head.strip() and text not in (known or ()):
        place = _position_or_name(head.strip())
        known = labels.get(place) if isinstance(labels, Mapping) else known
        return {place: _class(name, known)}
    return _class(text, known)


def _position_or_name(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _class(text: str, labels: Sequence[str] | None) -> int | str:
    is_index = text.strip().lstrip("-").isdecimal()
    target = int(text) if is_index else text
    # Without names a name may still be one of the model's.
    if labels is not None or is_index:
        wanted = class_indices([target], labels)
        if labels is not None:
            check_classes(wanted, len(labels))
    return target


@contextmanager
def targets_as_options() -> Iterator[None]:
    """Let errors of targets advise `--target` instead of Python's ``target=``."""
    try:
        yield
    except OutputTargetError as error:
        advice = (
            f"give --target {error.heads[0]}=CLASS, such as --target {error.heads[0]}=0"
            if error.heads
            else "its target is a function, which needs Python: actgrid.explain(..., target=...)"
        )
        raise TargetError(f"{error.problem}: {advice}") from error


@contextmanager
def warnings_in_a_line() -> Iterator[None]:
    """Print each warning of a map of zeros as one line, without the line of code it is from."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", ZeroAttributionWarning)
        show_as_usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, ZeroAttributionWarning):
                print(f"actgrid: {message}", file=sys.stderr)
            else:
                show_as_usual(message, category, *place)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def draw(heatmap: Heatmap, style: str, alpha: float, cmap: str | None, clip: float) -> Sheet:
    """Return a heatmap's picture; a map alone is an overlay that hides the image."""
    if style == "contours":
        return heatmap.contours(clip=clip)
    return heatmap.overlay(alpha=1 if style == "map" else alpha, cmap=cmap, clip=clip)
