"""The command `actgrid patch-activations`."""

from __future__ import annotations

from pathlib import Path

import orjson
import typer

from actgrid.cli.arguments import Input, Model, OtherInput
from actgrid.cli.command import Options, command, make_panel
from actgrid.options import (
    BatchOptions,
    ImageInputOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    LayerOptions,
    LoadedModelOptions,
    PatchingUnitOptions,
    PictureFileOptions,
    TargetOptions,
    TokenOptions,
)


@command(
    PictureFileOptions,
    make_panel(TargetOptions, "target"),
    LayerOptions,
    PatchingUnitOptions,
    LabelOptions,
    ImageInputOptions,
    TokenOptions,
    InputOptions,
    LoadedModelOptions,
    BatchOptions,
    JsonOptions,
    output="patching.png",
    batch_size=32,
)
def patch_activations(model: Model, sample: Input, source: OtherInput, *, options: Options) -> None:
    """Measure the effect of inserting the activations of one input into the run of another.

    The model runs on INPUT, with the activations of one layer or channel for SOURCE. The effect is
    0 if the class score stays that of INPUT, and 1 if it becomes that of SOURCE. Without --target,
    the class is that predicted for SOURCE.
    """
    from actgrid.cli import report
    from actgrid.cli.comparing import load_compared_inputs
    from actgrid.cli.explaining import print_warnings_in_one_line, rephrase_target_errors
    from actgrid.cli.loading import load_sources
    from actgrid.encoding import find_image_format, make_folder
    from actgrid.interventions import patch_activations

    output = Path(options["output"])
    find_image_format(output.suffix)
    make_folder(output.parent)
    inputs = load_compared_inputs(model, [source], options)
    x = load_sources([sample], inputs.model, options.select(InputOptions))
    with rephrase_target_errors(), print_warnings_in_one_line():
        result = patch_activations(
            inputs.model,
            x,
            inputs.x,
            inputs.layers,
            inputs.target,
            **inputs.options,
            **options.select(PatchingUnitOptions),
        )
    result.save(output)
    records = result.to_records()
    if options["json"]:
        about = {"preprocessing": report.preprocessing_as_dict(inputs.preprocessing)}
        # A score that is not finite is null in JSON.
        typer.echo(orjson.dumps({"file": str(output), "effects": records} | about).decode())
        return
    report.print_records(output, repr(result).strip("<>"), records[: report.MAX_RECORDS])
    report.print_preprocessing(inputs.preprocessing)
