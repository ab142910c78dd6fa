"""`actgrid render-weights`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import Model
from actgrid.cli.command import LeftOut, Options, command, panel
from actgrid.options import (
    BackendOptions,
    FileOptions,
    FolderOptions,
    GridOptions,
    JsonOptions,
    LayerOptions,
    ModelOptions,
    ThreadOptions,
)

_DRAWING = panel(
    GridOptions,
    *("normalize", "scope", "columns", "padding", "zoom", "background", "order", "cmap"),
)


@command(
    FolderOptions,
    LayerOptions,
    _DRAWING,
    FileOptions,
    ModelOptions,
    BackendOptions,
    ThreadOptions,
    JsonOptions,
    normalize="symmetric",
    background=128,
    cmap="RdBu_r",
    layers=LeftOut("every convolution"),
)
def render_weights(model: Model, options: Options) -> None:
    """Draw a model's weights, by default of every convolution: OUTPUT/NN_LAYER_WEIGHT.png."""
    from actgrid.cli import report
    from actgrid.cli.loading import layer_choice, load_model
    from actgrid.encoding import writable_folder
    from actgrid.figures import save_weights
    from actgrid.rendering import check_options

    drawing = {name: options[name] for name in _DRAWING.options} | options.of(BackendOptions)
    check_options(**drawing)
    output = Path(options["output"])
    writable_folder(output)
    network = load_model(model, **options.of(ModelOptions))
    drawn = save_weights(
        output,
        network,
        layer_choice(network, options["layers"]),
        suffix=f".{options['format']}",
        compression=options["compression"],
        threads=options["threads"],
        **drawing,
    )
    if options["json"]:
        typer.echo(json.dumps(report.weights_as_dict(output, drawn)))
    else:
        report.print_weights(output, drawn)
