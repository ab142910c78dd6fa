"""The command `actgrid layers`."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from actgrid.cli.arguments import Model
from actgrid.cli.command import Options, command
from actgrid.options import JsonOptions, ModelOptions


@command(ModelOptions, JsonOptions, weights="random")
def layers(model: Model, options: Options) -> None:
    """List the layers of a model: path, type, output shape, channels and parameters."""
    from actgrid.cli import report
    from actgrid.cli.loading import load_model
    from actgrid.models import list_layers

    infos = list_layers(load_model(model, **options.select(ModelOptions)))
    if options["json"]:
        typer.echo(json.dumps([{**asdict(info), "channels": info.channels} for info in infos]))
    else:
        report.print_infos(infos)
