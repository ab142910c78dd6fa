"""Parse the options of `actgrid explain`, and draw its heatmaps."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_options, find_method
from actgrid.attribution.packages import check_packages
from actgrid.attribution.requests import Labels, ZeroAttributionWarning
from actgrid.attribution.targets import check_classes, parse_classes
from actgrid.cli.command import format_flag
from actgrid.errors import OptionError, OutputTargetError, TargetError
from actgrid.figures.files import make_folder_names, make_safe_name, make_unique_names
from actgrid.models.inputs import list_input_names, read_input_specs
from actgrid.models.labels import read_labels
from actgrid.rendering import Attribution, Heatmap, TextAttribution, VolumeAttribution

__all__ = [
    "list_explained_inputs",
    "parse_inputs",
    "parse_targets",
    "picture_names",
    "print_warnings_in_one_line",
    "read_labels_option",
    "rephrase_target_errors",
    "save_attribution",
    "select_methods",
]


def select_methods(
    names: Sequence[str], layer: str | None, options: Mapping[str, Any]
) -> dict[Method, dict[str, Any]]:
    """Look up attribution methods by name, each with the given options that it takes.

    Returns
    -------
    dict
        Method -> its options, name -> value.

    Raises
    ------
    OptionError
        If a method is unknown, or an option belongs to none of the methods.
    MissingDependencyError
        If a method needs a package that is not installed.
    """
    methods = list(dict.fromkeys(map(find_method, names)))
    check_options(methods, layer, {})
    accepted = list(dict.fromkeys(name for method in methods for name in method.options))
    for name in options:
        if name not in accepted:
            raise OptionError(
                f"{format_flag(name)} is not an option of "
                f"{', '.join(method.name for method in methods)}; "
                f"options: {', '.join(map(format_flag, accepted)) or 'none'}"
            )
    for method in methods:
        check_packages(method)
    return {
        method: {name: value for name, value in options.items() if name in method.options}
        for method in methods
    }


def parse_inputs(texts: Sequence[str] | None) -> str | list[str | int] | None:
    """Parse the values of `--inputs`: names or positions of inputs, or all.

    Returns
    -------
    str, list or None
        The option `inputs` of `actgrid.explain`.
    """
    if texts is None or list(texts) == ["all"]:
        return None if texts is None else "all"
    return [_parse_output(text) for text in texts]


def list_explained_inputs(model: Any, inputs: str | list[str | int] | None) -> list[str]:
    """Return the names of the explained inputs; a single empty name for the default input."""
    if inputs is None:
        return [""]
    if inputs == "all":
        return list_input_names(model, read_input_specs(model))
    return list(map(str, inputs))


def picture_names(
    files: Sequence[Path],
    methods: Iterable[Method],
    inputs: Sequence[str],
    targets: Sequence[str],
) -> Iterator[str]:
    """Yield the file names of the pictures of all files, methods, inputs and targets.

    The names are unique and have no suffix.
    """
    # With several inputs or targets, the name has the name of the input or target.
    parts = [_make_endings(inputs), _make_endings(targets)]
    endings = [first + second for first in parts[0] for second in parts[1]]
    yield from make_unique_names(
        f"{name}_{method.name}{ending}"
        for name in make_folder_names(files)
        for method in methods
        for ending in endings
    )


def _make_endings(names: Sequence[str]) -> list[str]:
    """Return the end of a file name for each of several names; no ending for a single name."""
    return [f"_{make_safe_name(name)}" for name in names] if len(names) > 1 else [""]


def read_labels_option(texts: Sequence[str] | None) -> Labels:
    """Read the class names from the values of `--labels`: FILE or OUTPUT=FILE.

    Returns
    -------
    sequence of str, dict or None
        Class names; a dict by output if outputs are given; None without `--labels`.

    Raises
    ------
    MissingFileError, OptionError
        If a file cannot be read, or several files belong to one output.
    """
    files: dict[str | None, Path] = {}
    for text in texts or ():
        output, equals, file = text.partition("=")
        is_file = not equals or Path(text).exists()
        name = None if is_file else output
        if name in files:
            raise OptionError(
                "--labels must be one file, or OUTPUT=FILE for each output of the model, not "
                + ", ".join(texts or ())
            )
        files[name] = Path(text if is_file else file)
    labels = {name: read_labels(file) for name, file in files.items()}
    if None in labels:
        if len(labels) > 1:
            raise OptionError("each --labels must be OUTPUT=FILE if the option is repeated")
        return labels[None]
    return {_parse_output(name): names for name, names in labels.items() if name} or None


def parse_targets(texts: Sequence[str], labels: Labels) -> Any:
    """Parse the values of `--target`: class names, class indices, or OUTPUT=CLASS.

    Returns
    -------
    object
        The target of an explanation, as `actgrid.explain` takes it.

    Raises
    ------
    TargetError
        If a class does not exist in the labels, or its index is negative.
    """
    targets = [_parse_target(text, labels) for text in texts]
    return None if not targets else targets if len(targets) > 1 else targets[0]


def _parse_target(text: str, labels: Labels) -> Any:
    output_text, equals, name = text.partition("=")
    class_names: Sequence[str] | None = None if isinstance(labels, Mapping) else labels
    if equals and output_text.strip() and text not in (class_names or ()):
        output = _parse_output(output_text.strip())
        class_names = labels.get(output) if isinstance(labels, Mapping) else class_names
        return {output: _parse_class(name, class_names)}
    return _parse_class(text, class_names)


def _parse_output(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def _parse_class(text: str, labels: Sequence[str] | None) -> int | str:
    is_index = text.strip().lstrip("-").isdecimal()
    target = int(text) if is_index else text
    # Without labels, a name is looked up later, among the labels of the model.
    if labels is not None or is_index:
        indices = parse_classes([target], labels)
        if labels is not None:
            check_classes(indices, len(labels))
    return target


@contextmanager
def rephrase_target_errors() -> Iterator[None]:
    """Rephrase target errors in the ``with`` block for the command line.

    The messages name the option `--target` instead of the argument ``target=``.
    """
    try:
        yield
    except OutputTargetError as error:
        advice = (
            f"use --target {error.outputs[0]}=CLASS, such as --target {error.outputs[0]}=0"
            if error.outputs
            else "such a model needs a function as target, in Python: "
            "actgrid.explain(..., target=...)"
        )
        raise TargetError(f"{error.problem}: {advice}") from error


@contextmanager
def print_warnings_in_one_line() -> Iterator[None]:
    """Print each ZeroAttributionWarning in the ``with`` block in one line.

    The source line that Python appends is left out.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", ZeroAttributionWarning)
        default_showwarning = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, ZeroAttributionWarning):
                print(f"actgrid: {message}", file=sys.stderr)
            else:
                default_showwarning(message, category, *place)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def save_attribution(
    attribution: Attribution, path: Path, style: str, alpha: float, cmap: str | None, clip: float
) -> None:
    """Draw an attribution with its input in a style, and write the picture.

    Parameters
    ----------
    path
        File of the picture. The suffix decides its format.
    style
        See `actgrid.options.StyleOptions`.
    alpha
        Opacity of an overlay, 0 to 1.
    cmap
        Name of the colormap. None: the default of the attribution.
    clip
        Percentile of the values that is the end of the drawn range.

    Raises
    ------
    OptionError
        If the style is not one of this attribution.
    """
    if style == "contours" and isinstance(attribution, Heatmap):
        attribution.contours(clip=clip).save(path)
    elif style == "slices" and isinstance(attribution, VolumeAttribution):
        attribution.slices(alpha=alpha, cmap=cmap, clip=clip).save(path)
    elif style == "animation" and isinstance(attribution, VolumeAttribution):
        attribution.save_animation(path, alpha=alpha, cmap=cmap, clip=clip)
    elif style == "bars" and isinstance(attribution, TextAttribution):
        attribution.bars().save(path)
    elif style not in ("overlay", "map"):
        raise OptionError(
            f"--style {style} is not for a {type(attribution).__name__}: use overlay or map"
        )
    elif isinstance(attribution, Heatmap) and attribution.images is None:
        # Images of other channels than 1, 3 or 4 have no colours.
        attribution.to_grid(cmap=cmap or attribution.cmap).save(path)
    else:
        opacity = 1 if style == "map" else alpha
        attribution.overlay(alpha=opacity, cmap=cmap, clip=clip).save(path)
