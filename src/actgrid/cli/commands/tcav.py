"""The command `actgrid tcav`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import Images, Model
from actgrid.cli.command import NoneMeaning, Options, command, make_panel
from actgrid.errors import OptionError
from actgrid.options import (
    BatchOptions,
    ConceptImageOptions,
    ConceptVectorOptions,
    ImageInputOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    LayerOptions,
    LoadedModelOptions,
    PictureFileOptions,
    TargetOptions,
)


@command(
    PictureFileOptions,
    ConceptImageOptions,
    make_panel(TargetOptions, "target"),
    LabelOptions,
    LayerOptions,
    ConceptVectorOptions,
    InputOptions,
    ImageInputOptions,
    LoadedModelOptions,
    BatchOptions,
    JsonOptions,
    output="tcav.png",
    batch_size=32,
    layers=NoneMeaning("the last layer with a spatial output"),
    image_input=NoneMeaning("the first image"),
)
def tcav(model: Model, images: Images, *, options: Options) -> None:
    """Measure how often a class score increases towards concepts that images define (TCAV).

    IMAGE are images of the class.
    """
    from actgrid.cli import report
    from actgrid.cli.explaining import parse_targets, read_labels_option
    from actgrid.cli.loading import load_model, load_sources, parse_layers, resolve_preprocessing
    from actgrid.concepts import measure_concept_sensitivity
    from actgrid.encoding import find_image_format, make_folder

    # Invalid options are reported before the model loads, which takes seconds.
    output = Path(options["output"])
    find_image_format(output.suffix)
    sources = _parse_concepts(options["concept"])
    labels = read_labels_option(options["labels"])
    target = parse_targets(options["target"] or [], labels)
    make_folder(output.parent)
    network = load_model(model, **options.select(LoadedModelOptions))
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    reading = options.select(InputOptions)
    result = measure_concept_sensitivity(
        network,
        load_sources(images, network, reading),
        {name: load_sources(paths, network, reading) for name, paths in sources.items()},
        load_sources(options["random"], network, reading),
        parse_layers(network, options["layers"]),
        target,
        labels=labels,
        **options.select(ConceptVectorOptions, ImageInputOptions, BatchOptions),
    )
    result.save(output)
    if options["json"]:
        about = {"preprocessing": report.preprocessing_as_dict(preprocessing)}
        record = {"file": str(output), "concepts": result.to_records()}
        typer.echo(json.dumps(record | about))
    else:
        report.print_preprocessing(preprocessing)
        summary = f"{len(result)} concept{'' if len(result) == 1 else 's'}"
        report.print_records(output, summary, result.to_records())


def _parse_concepts(texts: list[str]) -> dict[str, list[str]]:
    """Return the image sources of each concept from the values of `--concept`."""
    sources: dict[str, list[str]] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not (equals and name and source):
            raise OptionError(f"--concept must be NAME=FOLDER, not {text!r}")
        sources.setdefault(name, []).append(source)
    return sources
