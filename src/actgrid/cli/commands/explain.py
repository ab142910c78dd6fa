"""`actgrid explain`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import OptionalImages, OptionalModel
from actgrid.cli.command import Options, command, panel
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
from actgrid.progress import progress


@command(
    FolderOptions,
    ListOptions,
    TargetOptions,
    LabelOptions,
    MethodOptions,
    StyleOptions,
    OverlayOptions,
    panel(FileOptions, "format"),
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
    """Draw where in images a model sees a class: OUTPUT/IMAGE_METHOD.png.

    With several targets the files are OUTPUT/IMAGE_METHOD_TARGET.png. actgrid explain --list --json
    shows which method takes which options, and their defaults.
    """
    from actgrid.cli import report

    if options["list"]:
        report.print_methods(options["json"])
        return
    if model is None or not images or options["output"] is None:
        raise OptionError("MODEL, IMAGE and --output are needed, but for actgrid explain --list")

    from actgrid.cli.explaining import (
        draw,
        labels_choice,
        method_choice,
        picture_names,
        target_choice,
        targets_as_options,
        warnings_in_a_line,
    )
    from actgrid.cli.loading import layer_choice, load_model, used_preprocessing
    from actgrid.encoding import writable_folder
    from actgrid.models.image_sources import find_images
    from actgrid.models.images import load_images, load_photos
    from actgrid.runs import explain_images

    # What is wrong with these is said before a model is loaded.
    texts, layer, drawing = options["target"] or [], options["layer"], options.of(OverlayOptions)
    methods = method_choice(options["method"], layer, options.of(MethodOptions))
    labels = labels_choice(options["labels"])
    target = target_choice(texts, labels)
    files = [file for image in images for file in find_images(image)]
    output = Path(options["output"])
    writable_folder(output)
    network = load_model(model, **options.of(ModelOptions))
    size, preprocess, fit = (options[name] for name in ("size", "preprocess", "fit"))
    prepared = used_preprocessing(network, preprocess)
    layers = layer_choice(network, None if layer is None else [layer])
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
        targets_as_options(),
        warnings_in_a_line(),
        progress(len(files), "explaining") as advance,
    ):
        for file, heatmaps in results:
            for heatmap in heatmaps:
                picture = output / f"{next(names)}.{options['format']}"
                draw(heatmap, options["style"], **drawing).save(picture)
                if options["json"]:
                    about = report.preprocessing_as_dict(prepared)
                    line = report.heatmap_as_dict(file, heatmap, picture) | {"preprocessing": about}
                    typer.echo(json.dumps(line))
                else:
                    report.print_heatmap(file, heatmap, picture)
            advance()
    if not options["json"]:
        report.print_preprocessing(prepared)
