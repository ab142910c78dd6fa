"""What the options of `actgrid explain` mean."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from actgrid.attribution.lime import check_packages
from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_options, find_method
from actgrid.attribution.requests import Labels, ZeroAttributionWarning
from actgrid.attribution.targets import check_classes, wanted_classes
from actgrid.errors import OptionError, OutputTargetError, TargetError, suggest
from actgrid.models.labels import read_labels
from actgrid.rendering import Heatmap, Sheet
from actgrid.rendering.heatmap import check_overlay

__all__ = [
    "check_drawing",
    "draw",
    "labels_choice",
    "method_choice",
    "target_choice",
    "targets_as_options",
    "warnings_in_a_line",
]

_STYLES = ("overlay", "contours", "map")
_WORDS = {"none": None, "true": True, "false": False}
_KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a word",
    tuple: "HxW",
    NoneType: "none",
}


def method_choice(
    names: Sequence[str], layer: str | None, options: Sequence[str]
) -> dict[Method, dict[str, Any]]:
    """Return the methods, each with those of the options, NAME=VALUE, that it has.

    Raises
    ------
    OptionError
        If there is no such method or option, or a value is none for it.
    MissingDependencyError
        If a method needs a package that is not there.
    """
    methods = list(dict.fromkeys(map(find_method, names)))
    given: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise OptionError(f"--option must be NAME=VALUE, such as steps=100, not {option!r}")
        given[name.strip()] = value.strip()
    check_options(methods, layer, given)
    if any(method.name == "lime" for method in methods):
        check_packages()
    return {
        method: {
            name: _value(name, text, get_type_hints(method.run)[name])
            for name, text in given.items()
            if name in method.options
        }
        for method in methods
    }


def _value(name: str, text: str, hint: Any) -> Any:
    """Return the value that a text stands for, of the type that a method's option has."""
    value = _parsed(text)
    if hint is Any:
        return value
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            known = ", ".join(get_args(hint))
            raise OptionError(
                f"--option {name} must be one of {known}, not {text!r}"
                f"{suggest(text, get_args(hint))}"
            )
        return text
    kinds = _members(hint)
    if any(_is_a(value, kind) for kind in kinds):
        return value
    wanted = " or ".join(_KINDS[get_origin(kind) or kind] for kind in kinds)
    raise OptionError(f"--option {name} must be {wanted}, not {text!r}")


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the one type."""
    return get_args(hint) if get_origin(hint) not in (None, tuple) else (hint,)


def _is_a(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple and isinstance(value, tuple):
        return list(map(type, value)) == list(get_args(kind))
    return type(value) is kind or (type(value) is int and kind is float)


def _parsed(text: str) -> Any:
    """Return "3", "0.5", "16x16", "0,0.5,1", "none", "true" as what they look like."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind, separator in ((int, None), (float, None), (int, "x"), (float, ",")):
        try:
            if separator is None:
                return kind(text)
            parts = tuple(map(kind, text.lower().split(separator)))
            if len(parts) > 1:
                return parts
        except ValueError:
            pass
    return text


def labels_choice(texts: Sequence[str]) -> Labels:
    """Return the class names in the files that `--labels` gives, FILE or OUTPUT=FILE.

    Raises
    ------
    MissingFileError, OptionError
        If a file cannot be read, or several files name the classes of one output.
    """
    files: dict[str | None, Path] = {}
    for text in texts:
        head, equals, file = text.partition("=")
        is_file = not equals or Path(text).exists()
        name = None if is_file else head
        if name in files:
            raise OptionError(
                "--labels must be one file, or OUTPUT=FILE for each output of the model, not "
                + ", ".join(texts)
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
        wanted = wanted_classes([target], labels)
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
    return heatmap.overlay(1 if style == "map" else alpha, cmap, clip=clip)


def check_drawing(style: str, alpha: float, cmap: str | None, clip: float) -> None:
    """Raise OptionError unless heatmaps can be drawn so."""
    if style not in _STYLES:
        raise OptionError(
            f"--style must be one of {', '.join(_STYLES)}, not {style!r}{suggest(style, _STYLES)}"
        )
    check_overlay(alpha, cmap, clip)
