"""The command `actgrid ablate`."""

from __future__ import annotations

from pathlib import Path

import orjson
import typer

from actgrid.cli.arguments import Images, Model
from actgrid.cli.command import NoneMeaning, Options, command, make_panel
from actgrid.options import (
    AblationValueOptions,
    BatchOptions,
    ImageInputOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    LayerOptions,
    LoadedModelOptions,
    PictureFileOptions,
    TargetOptions,
    TokenOptions,
)


@command(
    PictureFileOptions,
    make_panel(TargetOptions, "target"),
    LayerOptions,
    AblationValueOptions,
    LabelOptions,
    ImageInputOptions,
    TokenOptions,
    InputOptions,
    LoadedModelOptions,
    BatchOptions,
    JsonOptions,
    output="ablation.png",
    batch_size=32,
    layers=NoneMeaning("the last layer with a spatial output"),
)
def ablate(model: Model, images: Images, *, options: Options) -> None:
    """Rank the channels of layers by the decrease of a class score without each channel.

    The picture shows the channels with the largest and the smallest mean decrease over the images.
    """
    from actgrid.cli import report
    from actgrid.cli.comparing import load_compared_inputs
    from actgrid.cli.explaining import print_warnings_in_one_line, rephrase_target_errors
    from actgrid.cli.loading import load_source
    from actgrid.encoding import find_image_format, make_folder
    from actgrid.interventions import ablate_channels
    from actgrid.rendering.sheet import stack_pictures

    output = Path(options["output"])
    find_image_format(output.suffix)
    make_folder(output.parent)
    inputs = load_compared_inputs(model, images, options)
    settings = options.select(AblationValueOptions)
    if settings["reference"] is not None:
        reading = options.select(InputOptions)
        settings["reference"] = load_source(settings["reference"], inputs.model, reading)
    with rephrase_target_errors(), print_warnings_in_one_line():
        ablations = ablate_channels(
            inputs.model, inputs.x, inputs.layers, inputs.target, **inputs.options, **settings
        )
    stack_pictures(ablations.values()).save(output)
    records = [record for ablation in ablations.values() for record in ablation.to_records()]
    if options["json"]:
        about = {"preprocessing": report.preprocessing_as_dict(inputs.preprocessing)}
        # A score that is not finite is null in JSON.
        typer.echo(orjson.dumps({"file": str(output), "channels": records} | about).decode())
        return
    report.print_records(output, f"{len(records):,} channels", records[: report.MAX_RECORDS])
    report.print_preprocessing(inputs.preprocessing)
