"""The command `actgrid concepts`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import Images, Model
from actgrid.cli.command import NoneMeaning, Options, command, make_panel
from actgrid.options import (
    BatchOptions,
    ConceptOptions,
    ImageInputOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    LoadedModelOptions,
    PictureFileOptions,
    TargetOptions,
)


@command(
    PictureFileOptions,
    make_panel(TargetOptions, "target", "layer"),
    LabelOptions,
    ConceptOptions,
    InputOptions,
    ImageInputOptions,
    LoadedModelOptions,
    BatchOptions,
    JsonOptions,
    output="concepts.png",
    batch_size=32,
    image_input=NoneMeaning("the first image"),
)
def concepts(model: Model, images: Images, *, options: Options) -> None:
    """Find the concepts of a layer in images of a class, and their importance (CRAFT)."""
    from actgrid.cli import report
    from actgrid.cli.explaining import parse_targets, read_labels_option
    from actgrid.cli.loading import load_model, load_sources, parse_layers, resolve_preprocessing
    from actgrid.concepts import find_concepts
    from actgrid.encoding import find_image_format, make_folder

    # Invalid options are reported before the model loads, which takes seconds.
    output = Path(options["output"])
    find_image_format(output.suffix)
    labels = read_labels_option(options["labels"])
    target = parse_targets(options["target"] or [], labels)
    make_folder(output.parent)
    network = load_model(model, **options.select(LoadedModelOptions))
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    layer = options["layer"]
    (item,) = parse_layers(network, None if layer is None else [layer]) or [None]
    result = find_concepts(
        network,
        load_sources(images, network, options.select(InputOptions)),
        item,
        target,
        labels=labels,
        **options.select(ConceptOptions, ImageInputOptions, BatchOptions),
    )
    result.save(output)
    if options["json"]:
        about = {"preprocessing": report.preprocessing_as_dict(preprocessing)}
        record = {"layer": result.layer, "file": str(output), "concepts": result.to_records()}
        typer.echo(json.dumps(record | about))
    else:
        report.print_preprocessing(preprocessing)
        summary = f"{result.layer}, {len(result)} concepts"
        report.print_records(output, summary, result.to_records())
