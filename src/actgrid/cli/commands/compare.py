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
    MetricListOptions,
    ModelOptions,
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
    ModelOptions,
    BatchOptions,
    JsonOptions,
    output="comparison.png",
    method=NoneMeaning("gradcam, smoothgrad, integrated_gradients and occlusion"),
    metric=NoneMeaning("deletion and insertion, with 20 steps"),
    batch_size=32,
)
def compare(model: Model, images: Images, *, options: Options) -> None:
    """Draw the heatmaps of several attribution methods side by side, ranked by metrics.

    Each row of the picture is an image, or one of several targets of an image. --metric none leaves
    out the metrics.
    """
    from actgrid.cli import report
    from actgrid.cli.explaining import (
        parse_targets,
        print_warnings_in_one_line,
        read_labels_option,
        rephrase_target_errors,
        select_methods,
    )
    from actgrid.cli.loading import (
        load_model,
        load_sources,
        parse_layers,
        read_tokens,
        resolve_preprocessing,
    )
    from actgrid.encoding import find_image_format, make_folder
    from actgrid.evaluation import compare_methods
    from actgrid.evaluation.metrics import parse_metrics

    # Invalid options are reported before the model loads, which takes seconds.
    output = Path(options["output"])
    find_image_format(output.suffix)
    layer = options["layer"]
    if options["method"] is not None:
        select_methods(options["method"], layer, {})
    metrics: Any = [] if options["metric"] == ["none"] else options["metric"]
    if metrics:
        parse_metrics(metrics, {})
    labels = read_labels_option(options["labels"])
    target = parse_targets(options["target"] or [], labels)
    tokens: Any = read_tokens(options["tokens"])
    make_folder(output.parent)
    network = load_model(model, **options.select(ModelOptions))
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    x = load_sources(images, network, options.select(InputOptions))
    count = len(x) if isinstance(x, list) else 1
    if isinstance(target, list) and count > 1:
        target = [target] * count
    layers = parse_layers(network, None if layer is None else [layer])
    with rephrase_target_errors(), print_warnings_in_one_line():
        comparison = compare_methods(
            network,
            x,
            options["method"],
            target,
            None if layers is None else layers[0],
            metrics,
            labels=labels,
            image_input=options["image_input"],
            embedding=options["embedding"],
            tokens=tokens,
            batch_size=options["batch_size"],
            progress=True,
            **options.select(OverlayOptions),
        )
    comparison.save(output)
    if options["json"]:
        about: dict[str, Any] = {"preprocessing": report.preprocessing_as_dict(preprocessing)}
        evaluation = comparison.evaluation
        found = {"ranking": comparison.ranking, "rows": [], "file": str(output)}
        if evaluation is not None:
            found = report.evaluation_as_dict(evaluation, output)
        agreement = {"agreement": comparison.agreement.values.round(6).tolist()}
        typer.echo(json.dumps(found | (agreement if len(found["ranking"]) > 1 else {}) | about))
        return
    if comparison.evaluation is not None:
        report.print_evaluation(comparison.evaluation, output)
    else:
        print(output)
    report.print_preprocessing(preprocessing)
