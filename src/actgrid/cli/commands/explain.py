"""The command `actgrid explain`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import OptionalImages, OptionalModel
from actgrid.cli.command import Options, command, make_panel
from actgrid.errors import OptionError
from actgrid.options import (
    BatchOptions,
    FileOptions,
    FolderOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    ListOptions,
    MethodOptions,
    ModelOptions,
    OverlayOptions,
    StyleOptions,
    TargetOptions,
)
from actgrid.progress import show_progress


@command(
    FolderOptions,
    ListOptions,
    TargetOptions,
    LabelOptions,
    MethodOptions,
    StyleOptions,
    OverlayOptions,
    make_panel(FileOptions, "format"),
    InputOptions,
    ModelOptions,
    BatchOptions,
    JsonOptions,
    output=None,
    batch_size=32,
)
def explain(
    model: OptionalModel = None, images: OptionalImages = None, *, options: Options
) -> None:
    """Explain predictions: draw a heatmap of each image in OUTPUT/IMAGE_METHOD.png.

    With several targets, the files are OUTPUT/IMAGE_METHOD_TARGET.png. actgrid explain --list
    --json prints the options of each method and their defaults.
    """
    from actgrid.cli import report

    if options["list"]:
        report.print_methods(options["json"])
        return
    if model is None or not images or options["output"] is None:
        raise OptionError("MODEL, IMAGE and --output are required, except with --list")

    from actgrid.cli.explaining import (
        draw_heatmap,
        parse_targets,
        picture_names,
        print_warnings_in_one_line,
        read_labels_option,
        rephrase_target_errors,
        select_methods,
    )
    from actgrid.cli.loading import load_model, parse_layers, resolve_preprocessing
    from actgrid.encoding import make_folder
    from actgrid.models.image_sources import find_images
    from actgrid.models.images import load_images, load_photos
    from actgrid.runs import explain_images

    # Invalid options are reported before the model loads, which takes seconds.
    texts = options["target"] or []
    layer = options["layer"]
    drawing = options.select(OverlayOptions)
    methods = select_methods(options["method"], layer, options.select(MethodOptions))
    labels = read_labels_option(options["labels"])
    target = parse_targets(texts, labels)
    files = [file for image in images for file in find_images(image)]
    output = Path(options["output"])
    make_folder(output)
    network = load_model(model, **options.select(ModelOptions))
    size, preprocess, fit = (options[name] for name in ("size", "preprocess", "fit"))
    preprocessing = resolve_preprocessing(network, preprocess)
    layers = parse_layers(network, None if layer is None else [layer])
    results = explain_images(
        network,
        files,
        lambda file: load_images(file, size=size, preprocess=preprocess, model=network, fit=fit),
        methods,
        target,
        None if layers is None else layers[0],
        labels=labels,
        batch_size=options["batch_size"],
        photo_of=lambda file: load_photos(file, size=size, model=network, fit=fit)[0],
    )
    names = picture_names(files, methods, texts)
    with (
        rephrase_target_errors(),
        print_warnings_in_one_line(),
        show_progress(len(files), "explaining") as advance,
    ):
        for file, heatmaps in results:
            for heatmap in heatmaps:
                picture = output / f"{next(names)}.{options['format']}"
                draw_heatmap(heatmap, options["style"], **drawing).save(picture)
                if options["json"]:
                    about = report.preprocessing_as_dict(preprocessing)
                    line = report.heatmap_as_dict(file, heatmap, picture) | {"preprocessing": about}
                    typer.echo(json.dumps(line))
                else:
                    report.print_heatmap(file, heatmap, picture)
            advance()
    if not options["json"]:
        report.print_preprocessing(preprocessing)
