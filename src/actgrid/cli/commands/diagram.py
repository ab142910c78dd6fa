"""The command `actgrid diagram`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import Image, Model
from actgrid.cli.command import NoneMeaning, Options, command
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
    layers=NoneMeaning("all layers"),
    weights=NoneMeaning("imagenet with an image, else random"),
)
def diagram(model: Model, image: Image = None, *, options: Options) -> None:
    """Draw the architecture of a network as boxes, scaled by the output shapes.

    With an image, the boxes show the activations of their layers.
    """
    from actgrid import figures
    from actgrid.cli import report
    from actgrid.cli.loading import load_model, parse_layers, resolve_preprocessing
    from actgrid.encoding import find_image_format, make_folder
    from actgrid.models.image_sources import find_images

    # Invalid options are reported before the model loads, which takes seconds.
    output = Path(options["output"])
    find_image_format(output.suffix)
    images = None if image is None else find_images(image)
    make_folder(output.parent)
    weights = options["weights"] or ("random" if image is None else "imagenet")
    network = load_model(model, weights, options["safe_mode"])
    preprocessing = None if images is None else resolve_preprocessing(network, "auto")
    drawing = options.select(DiagramOptions, LevelMapOptions)
    selected = parse_layers(network, options["layers"])
    picture = figures.diagram(network, images, selected, **drawing)
    picture.save(output)
    if options["json"]:
        about = preprocessing and {"preprocessing": report.preprocessing_as_dict(preprocessing)}
        typer.echo(json.dumps(report.diagram_as_dict(output, picture) | (about or {})))
    else:
        report.print_diagram(output, picture)
        if preprocessing is not None:
            report.print_preprocessing(preprocessing)
