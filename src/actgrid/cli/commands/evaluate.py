"""The command `actgrid evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import OptionalImages, OptionalModel
from actgrid.cli.command import NoneMeaning, Options, command
from actgrid.errors import OptionError
from actgrid.options import (
    BatchOptions,
    ImageInputOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    LoadedModelOptions,
    MetricListOptions,
    MetricOptions,
    MetricTableOptions,
    PictureFileOptions,
    RegionOptions,
    TargetOptions,
    TokenOptions,
)


@command(
    PictureFileOptions,
    MetricTableOptions,
    MetricListOptions,
    MetricOptions,
    RegionOptions,
    TargetOptions,
    LabelOptions,
    ImageInputOptions,
    TokenOptions,
    InputOptions,
    LoadedModelOptions,
    BatchOptions,
    JsonOptions,
    output=NoneMeaning("no picture is drawn"),
    batch_size=32,
)
def evaluate(
    model: OptionalModel = None, images: OptionalImages = None, *, options: Options
) -> None:
    """Evaluate attribution methods by metrics such as deletion and insertion.

    The methods of --method have their default options. The table shows the mean of each metric;
    --json prints the value for each image. The picture has the table and the curves of the metrics.
    """
    from actgrid.cli import report

    if options["list"]:
        report.print_metrics(options["json"])
        return
    if model is None or not images:
        raise OptionError("MODEL and IMAGE are required, except with --list")

    from actgrid.attribution.default_methods import find_default_method
    from actgrid.cli.comparing import load_compared_inputs
    from actgrid.cli.explaining import (
        print_warnings_in_one_line,
        rephrase_target_errors,
        select_methods,
    )
    from actgrid.cli.regions import parse_boxes, read_masks
    from actgrid.encoding import find_image_format, make_folder
    from actgrid.evaluation import evaluate
    from actgrid.evaluation.evaluating import DEFAULT_METRICS, check_metric_needs
    from actgrid.evaluation.metrics import parse_metrics

    output = None if options["output"] is None else Path(options["output"])
    if output is not None:
        find_image_format(output.suffix)
        make_folder(output.parent)
    methods = options["method"]
    if methods is not None:
        select_methods(methods, options["layer"], {})
    metrics = options["metric"] or DEFAULT_METRICS
    settings = options.select(MetricOptions)
    boxes, masks = parse_boxes(options["boxes"]), read_masks(options["masks"])
    has_regions = boxes is not None or masks is not None
    check_metric_needs(parse_metrics(metrics, settings), (), has_regions=has_regions)
    inputs = load_compared_inputs(model, images, options)
    if methods is None:
        methods = [find_default_method(inputs.model, inputs.layer).name]
    with rephrase_target_errors(), print_warnings_in_one_line():
        evaluation = evaluate(
            inputs.model,
            inputs.x,
            methods,
            metrics,
            inputs.target,
            inputs.layer,
            masks=masks,
            boxes=boxes,
            **inputs.options,
            **settings,
        )
    if output is not None:
        evaluation.save(output)
    if options["json"]:
        about = {"preprocessing": report.preprocessing_as_dict(inputs.preprocessing)}
        typer.echo(json.dumps(report.evaluation_as_dict(evaluation, output) | about))
    else:
        report.print_evaluation(evaluation, output)
        report.print_preprocessing(inputs.preprocessing)
