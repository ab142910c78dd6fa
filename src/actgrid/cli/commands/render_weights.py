"""The command `actgrid render-weights`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import Model
from actgrid.cli.command import NoneMeaning, Options, command
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
    layers=NoneMeaning("all convolutions"),
)
def render_weights(model: Model, options: Options) -> None:
    """Draw the weights of layers, by default convolutions: OUTPUT/NN_LAYER_WEIGHT.png."""
    from actgrid.cli import report
    from actgrid.cli.loading import load_model, parse_layers
    from actgrid.encoding import make_folder
    from actgrid.figures import save_weights
    from actgrid.rendering.backends import load_backend

    # Invalid options are reported before the model loads, which takes seconds.
    load_backend(options["backend"])
    output = Path(options["output"])
    make_folder(output)
    network = load_model(model, **options.select(ModelOptions))
    selected = parse_layers(network, options["layers"])
    drawn_weights = save_weights(output, network, selected, **options.select(WeightFileOptions))
    if options["json"]:
        typer.echo(json.dumps(report.weights_as_dict(output, drawn_weights)))
    else:
        report.print_weights(output, drawn_weights)
