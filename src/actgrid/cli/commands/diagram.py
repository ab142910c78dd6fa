"""`actgrid diagram`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import Image, Model
from actgrid.cli.command import LeftOut, Options, command
from actgrid.options import (
    DiagramOptions,
    JsonOptions,
    LayerOptions,
    LevelMapOptions,
    ModelOptions,
    PictureFileOptions,
)


@command(
    PictureFileOptions,
    LayerOptions,
    DiagramOptions,
    LevelMapOptions,
    ModelOptions,
    JsonOptions,
    output="diagram.png",
    normalize="minmax",
    layers=LeftOut("all layers"),
    weights=LeftOut("imagenet with an image, else random"),
)
def diagram(model: Model, image: Image = None, *, options: Options) -> None:
    """Draw a network as a row of boxes, each as large as the output of its layer.

    With an image, the boxes show the activations of their layers.
    """
    from actgrid import figures
    from actgrid.cli import report
    from actgrid.cli.loading import layer_choice, load_model, used_preprocessing
    from actgrid.encoding import image_format, writable_folder
    from actgrid.models.image_sources import find_images

    # What is wrong with these is said before a model is loaded.
    output = Path(options["output"])
    image_format(output.suffix)
    images = None if image is None else find_images(image)
    writable_folder(output.parent)
    weights = options["weights"] or ("random" if image is None else "imagenet")
    network = load_model(model, weights, options["safe_mode"])
    prepared = None if images is None else used_preprocessing(network, "auto")
    drawing = options.of(DiagramOptions, LevelMapOptions)
    chosen = layer_choice(network, options["layers"])
    drawn = figures.diagram(network, images, chosen, **drawing)
    drawn.save(output)
    if options["json"]:
        about = prepared and {"preprocessing": report.preprocessing_as_dict(prepared)}
        typer.echo(json.dumps(report.diagram_as_dict(output, drawn) | (about or {})))
    else:
        report.print_diagram(output, drawn)
        if prepared is not None:
            report.print_preprocessing(prepared)
