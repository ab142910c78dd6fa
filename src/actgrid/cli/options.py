"""Options that commands share, and what their texts stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from actgrid.errors import OptionError

__all__ = [
    "SPEC",
    "Actors",
    "Backend",
    "Background",
    "BatchSize",
    "ClassNames",
    "Cmap",
    "Columns",
    "Compression",
    "Destination",
    "Engine",
    "Fit",
    "Format",
    "Inputs",
    "Json",
    "JsonEvents",
    "Layers",
    "Megabytes",
    "Model",
    "Normalize",
    "NumGpus",
    "OnError",
    "Order",
    "Output",
    "Overwrite",
    "Padding",
    "Preprocess",
    "RayAddress",
    "Resume",
    "SafeMode",
    "Scope",
    "ShardSize",
    "Size",
    "Statistics",
    "Threads",
    "Top",
    "TopChannels",
    "Weights",
    "Zoom",
    "channel_choice",
    "drawing_options",
    "pair",
    "suffix_of",
    "weights_choice",
]

# Ranges of channels are not longer than any layer has channels.
_MAX_CHANNEL = 1 << 20

SPEC = (
    "A .keras or .h5 file, a SavedModel folder, keras:NAME (such as keras:VGG16), demo, or "
    "package.module:function."
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help=SPEC, show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
JsonEvents = Annotated[
    bool, typer.Option("--json", help="Print events as JSON, one a line, instead of text.")
]
Weights = Annotated[
    str, typer.Option(help="For keras:NAME: imagenet, none (random), or a weights file.")
]
SafeMode = Annotated[
    bool,
    typer.Option(
        "--safe-mode/--no-safe-mode",
        help="Refuse model files that hold code (Lambda layers) and SavedModels with operations "
        "that access files, the network or Python.",
    ),
]

Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder for the pictures.", show_default=False)
]
Destination = Annotated[
    str,
    typer.Option("--output", "-o", help="A folder, or a URL of fsspec's.", show_default=False),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        help="Layer path, glob, Keras layer class or index into model.layers; repeatable "
        "(default: every layer with a spatial output; for filters, every convolution; for "
        "diagram, all).",
        show_default=False,
    ),
]
Normalize = Annotated[
    str,
    typer.Option(help="standard, minmax, symmetric, percentile:LO,HI or range:LO,HI."),
]
Scope = Annotated[str, typer.Option(help="channel or layer: what statistics map each tile.")]
Columns = Annotated[
    int | None,
    typer.Option(help="Tiles in a row (default: near to square).", show_default=False),
]
Padding = Annotated[int, typer.Option(help="Pixels between tiles.")]
Zoom = Annotated[int, typer.Option(help="How often each pixel is repeated.")]
Background = Annotated[int, typer.Option(help="Level between tiles, 0 to 255.")]
Order = Annotated[
    str, typer.Option(help="index, mean, std, max, zeros, or channels such as 3,0-2.")
]
Cmap = Annotated[str, typer.Option(help="A colormap of matplotlib's.")]
Format = Annotated[str, typer.Option("--format", help="png, webp, jpg, tiff, ...")]
Compression = Annotated[str, typer.Option(help="Of png: fast, small or none.")]
Preprocess = Annotated[
    str,
    typer.Option(
        help="none: pixels from 0 to 255; unit: divided by 255; the name of a network in "
        "keras.applications; auto: none for a model that scales its input itself, that of the "
        "network in keras.applications whose layers the model has, otherwise unit."
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="HxW",
        help="Size of the input (default: the size that the model fixes, else that of each image).",
    ),
]
Fit = Annotated[str, typer.Option(help="crop, pad or stretch images of another shape.")]
Backend = Annotated[str, typer.Option(help="auto, native, numba or numpy.")]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Threads that draw or measure, and as many that load images (default: one for each "
        "processor).",
        show_default=False,
    ),
]
BatchSize = Annotated[int, typer.Option(help="Images in one run of the model.")]

Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="IMAGE...",
        help="Image files, folders of them, globs, or .txt lists of paths.",
        show_default=False,
    ),
]
ClassNames = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Names of the classes: a text file, one a line, or imagenet (default: ImageNet's for "
        "whole networks of keras.applications and for demo).",
        show_default=False,
    ),
]
Statistics = Annotated[
    Path | None,
    typer.Option(
        "--stats", metavar="FOLDER", help="What actgrid stats wrote, to be shown as well."
    ),
]
Megabytes = Annotated[
    int, typer.Option("--cache", metavar="MiB", min=1, help="Memory for activations that are kept.")
]

Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where an earlier run of the same stopped.")
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace the run that is in OUTPUT: the files that it recorded are removed.",
    ),
]
OnError = Annotated[
    str | None,
    typer.Option(
        help="skip: record an image that cannot be used, and go on; raise: stop (default: raise "
        "for single files, else skip).",
        show_default=False,
    ),
]
ShardSize = Annotated[
    int, typer.Option(help="Images in a shard: a tar file, a task of Ray's, a step of statistics.")
]
Top = Annotated[int, typer.Option(help="Images to keep for each channel in statistics.")]
TopChannels = Annotated[
    int,
    typer.Option(
        min=0,
        help="Channels of each layer whose top images are shown, those with the largest "
        "values; 0 shows all, which takes 0.1 MB of memory for each.",
    ),
]
Engine = Annotated[str, typer.Option(help="local, or ray: see --actors.")]
Actors = Annotated[
    int, typer.Option(help="With ray: how many processes, each with the model, work.")
]
NumGpus = Annotated[float, typer.Option(help="With ray: GPUs of each actor, such as 1 or 0.5.")]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="With ray: a cluster to join, auto for the one at hand (default: Ray on this "
        "machine alone).",
        show_default=False,
    ),
]


def drawing_options(compression: str, order: str, **options: Any) -> dict[str, Any]:
    """Return the options of drawing and saving, checked.

    Raises
    ------
    OptionError
        If one cannot be used whatever is drawn.
    """
    from actgrid.encoding import check_compression
    from actgrid.rendering import check_options

    options["order"] = channel_choice("order", order)
    check_options(**options)
    check_compression(compression)
    return {"compression": compression, **options}


def weights_choice(text: str) -> str | None:
    """Return what `--weights` names."""
    return None if text.lower() == "none" else text


def suffix_of(file_format: str) -> str:
    """Return the suffix of files of a format that can be written."""
    from actgrid.encoding import image_format

    suffix = f".{file_format.lower().lstrip('.')}"
    image_format(suffix)
    return suffix


def pair(name: str, text: str | None) -> tuple[int, int] | None:
    """Return "HxW" as numbers."""
    if text is None:
        return None
    first, _, second = text.lower().partition("x")
    sides = (first, second or first)
    if not all(side.isdecimal() and int(side) for side in sides):
        raise OptionError(f"--{name} must be HxW, such as 224x224, not {text!r}")
    return int(sides[0]), int(sides[1])


def channel_choice(option: str, text: str) -> str | list[int]:
    """Return "3,0-2" as channels; a word is left to `actgrid.render`."""
    if not text or not set(text) <= set("0123456789,-"):
        return text
    channels: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        found = range(0)
        if first.isdecimal() and (last.isdecimal() if dash else True):
            found = range(int(first), min(int(last or first), _MAX_CHANNEL) + 1)
        if not found:
            raise OptionError(f"--{option} must be a word or channels such as 3,0-2, not {text!r}")
        channels += found
    return channels
