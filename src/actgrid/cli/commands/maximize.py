"""`actgrid maximize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from actgrid.cli.arguments import Model
from actgrid.cli.command import Options, command, panel
from actgrid.options import (
    BatchOptions,
    ChannelOptions,
    ImageInputOptions,
    InputFileOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    MaximizedLayerOptions,
    MaximizeOptions,
    ModelOptions,
    PictureFileOptions,
    SheetOptions,
)


@command(
    PictureFileOptions,
    MaximizedLayerOptions,
    ChannelOptions,
    LabelOptions,
    MaximizeOptions,
    panel(InputOptions, "size", "preprocess"),
    InputFileOptions,
    ImageInputOptions,
    SheetOptions,
    ModelOptions,
    BatchOptions,
    JsonOptions,
    batch_size=16,
)
def maximize(model: Model, options: Options) -> None:
    """Synthesize the images that maximize a layer's channels, or a class: a tile for each."""
    from actgrid import attribution
    from actgrid.cli import report
    from actgrid.cli.explaining import labels_choice
    from actgrid.cli.loading import layer_choice, load_inputs, load_model, used_preprocessing
    from actgrid.encoding import image_format, writable_folder

    # What is wrong with these is said before a model is loaded.
    inputs = None if options["inputs"] is None else load_inputs(Path(options["inputs"]))
    labels: Any = labels_choice(options["labels"])
    output = Path(options["output"])
    image_format(output.suffix)
    writable_folder(output.parent)
    network = load_model(model, **options.of(ModelOptions))
    prepared = used_preprocessing(network, options["preprocess"])
    (layer,) = layer_choice(network, [options["layer"]]) or [None]
    found = attribution.maximize(
        network,
        layer,
        inputs=inputs,
        labels=labels,
        progress=True,
        size=options["size"],
        preprocess=options["preprocess"],
        **options.of(
            ChannelOptions, MaximizeOptions, ImageInputOptions, SheetOptions, BatchOptions
        ),
    )
    found.save(output)
    if options["json"]:
        about = {"preprocessing": report.preprocessing_as_dict(prepared)}
        typer.echo(json.dumps(report.maximization_as_dict(output, found) | about))
    else:
        report.print_preprocessing(prepared)
        report.print_maximization(output, found)
