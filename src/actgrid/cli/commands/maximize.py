"""The command `actgrid maximize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from actgrid.cli.arguments import Model
from actgrid.cli.command import Options, command, make_panel
from actgrid.options import (
    BatchOptions,
    ChannelOptions,
    ImageInputOptions,
    InputFileOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    LoadedModelOptions,
    MaximizedLayerOptions,
    MaximizeOptions,
    PictureFileOptions,
    SheetOptions,
)


@command(
    PictureFileOptions,
    MaximizedLayerOptions,
    ChannelOptions,
    LabelOptions,
    MaximizeOptions,
    make_panel(InputOptions, "size", "preprocess"),
    InputFileOptions,
    ImageInputOptions,
    SheetOptions,
    LoadedModelOptions,
    BatchOptions,
    JsonOptions,
    batch_size=16,
)
def maximize(model: Model, options: Options) -> None:
    """Synthesize images that maximize the channels of a layer, or a class score."""
    from actgrid import attribution
    from actgrid.cli import report
    from actgrid.cli.explaining import read_labels_option
    from actgrid.cli.loading import load_model, parse_layers, resolve_preprocessing
    from actgrid.encoding import find_image_format, make_folder
    from actgrid.models.array_files import read_npz

    # Invalid options are reported before the model loads, which takes seconds.
    inputs = None if options["inputs"] is None else read_npz(Path(options["inputs"]))
    labels: Any = read_labels_option(options["labels"])
    output = Path(options["output"])
    find_image_format(output.suffix)
    make_folder(output.parent)
    network = load_model(model, **options.select(LoadedModelOptions))
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    (layer,) = parse_layers(network, [options["layer"]]) or [None]
    maximization = attribution.maximize(
        network,
        layer,
        inputs=inputs,
        labels=labels,
        progress=True,
        size=options["size"],
        preprocess=options["preprocess"],
        **options.select(
            ChannelOptions, MaximizeOptions, ImageInputOptions, SheetOptions, BatchOptions
        ),
    )
    maximization.save(output)
    if options["json"]:
        about = {"preprocessing": report.preprocessing_as_dict(preprocessing)}
        typer.echo(json.dumps(report.maximization_as_dict(output, maximization) | about))
    else:
        report.print_preprocessing(preprocessing)
        report.print_maximization(output, maximization)
