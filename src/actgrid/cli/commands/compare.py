"""The command `actgrid compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from actgrid.cli.arguments import Images, Model
from actgrid.cli.command import NoneMeaning, Options, command
from actgrid.options import (
    BatchOptions,
    ImageInputOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    LoadedModelOptions,
    MetricListOptions,
    OverlayOptions,
    PictureFileOptions,
    TargetOptions,
    TokenOptions,
)


@command(
    PictureFileOptions,
    TargetOptions,
    MetricListOptions,
    LabelOptions,
    ImageInputOptions,
    TokenOptions,
    OverlayOptions,
    InputOptions,
    LoadedModelOptions,
    BatchOptions,
    JsonOptions,
    output="comparison.png",
    method=NoneMeaning(
        "gradcam, smoothgrad, integrated_gradients and occlusion; for networks without gradients "
        "scorecam, eigencam, occlusion and rise"
    ),
    metric=NoneMeaning("deletion and insertion, with 20 steps"),
    batch_size=32,
)
def compare(model: Model, images: Images, *, options: Options) -> None:
    """Draw the heatmaps of several attribution methods side by side, ranked by metrics.

    Each row of the picture is an image, or one of several targets of an image. --metric none leaves
    out the metrics.
    """
    from actgrid.cli import report
    from actgrid.cli.comparing import load_compared_inputs
    from actgrid.cli.explaining import (
        print_warnings_in_one_line,
        rephrase_target_errors,
        select_methods,
    )
    from actgrid.encoding import find_image_format, make_folder
    from actgrid.evaluation import compare_methods
    from actgrid.evaluation.metrics import parse_metrics

    output = Path(options["output"])
    find_image_format(output.suffix)
    if options["method"] is not None:
        select_methods(options["method"], options["layer"], {})
    metrics: Any = [] if options["metric"] == ["none"] else options["metric"]
    if metrics:
        parse_metrics(metrics, {})
    make_folder(output.parent)
    inputs = load_compared_inputs(model, images, options)
    with rephrase_target_errors(), print_warnings_in_one_line():
        comparison = compare_methods(
            inputs.model,
            inputs.x,
            options["method"],
            inputs.target,
            inputs.layer,
            metrics,
            **inputs.options,
            **options.select(OverlayOptions),
        )
    comparison.save(output)
    evaluation = comparison.evaluation
    if options["json"]:
        printed: dict[str, Any] = {"ranking": comparison.ranking, "rows": [], "file": str(output)}
        if evaluation is not None:
            printed = report.evaluation_as_dict(evaluation, output)
        if len(comparison.attributions) > 1:
            printed["agreement"] = comparison.agreement.values.round(6).tolist()
        printed["preprocessing"] = report.preprocessing_as_dict(inputs.preprocessing)
        typer.echo(json.dumps(printed))
        return
    if evaluation is None:
        print(output)
    else:
        report.print_evaluation(evaluation, output)
    report.print_preprocessing(inputs.preprocessing)
