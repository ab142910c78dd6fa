"""`actgrid render-weights`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import Model
from actgrid.cli.command import LeftOut, Options, command
from actgrid.options import (
    SIGNED,
    BackendOptions,
    FileOptions,
    FolderOptions,
    GridOptions,
    JsonOptions,
    LayerOptions,
    ModelOptions,
    ThreadOptions,
    WeightFileOptions,
)


@command(
    FolderOptions,
    LayerOptions,
    GridOptions,
    FileOptions,
    ModelOptions,
    BackendOptions,
    ThreadOptions,
    JsonOptions,
    **SIGNED,
    layers=LeftOut("every convolution"),
)
def render_weights(model: Model, options: Options) -> None:
    """Draw a model's weights, by default of every convolution: OUTPUT/NN_LAYER_WEIGHT.png."""
    from actgrid.cli import report
    from actgrid.cli.loading import layer_choice, load_model
    from actgrid.encoding import writable_folder
    from actgrid.figures import save_weights
    from actgrid.rendering.backends import load_backend

    # What is wrong with these is said before a model is loaded.
    load_backend(options["backend"])
    output = Path(options["output"])
    writable_folder(output)
    network = load_model(model, **options.of(ModelOptions))
    chosen = layer_choice(network, options["layers"])
    drawn = save_weights(output, network, chosen, **options.of(WeightFileOptions))
    if options["json"]:
        typer.echo(json.dumps(report.weights_as_dict(output, drawn)))
    else:
        report.print_weights(output, drawn)
