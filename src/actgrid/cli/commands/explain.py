"""The command `actgrid explain`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import typer

from actgrid.cli.arguments import OptionalImages, OptionalModel
from actgrid.cli.command import Options, command, make_panel
from actgrid.errors import OptionError
from actgrid.options import (
    BatchOptions,
    ExplainedInputOptions,
    FileOptions,
    FolderOptions,
    InputOptions,
    JsonOptions,
    LabelOptions,
    ListOptions,
    LoadedModelOptions,
    MethodOptions,
    OverlayOptions,
    StyleOptions,
    TargetOptions,
    TokenOptions,
)
from actgrid.progress import show_progress


@command(
    FolderOptions,
    ListOptions,
    TargetOptions,
    LabelOptions,
    ExplainedInputOptions,
    TokenOptions,
    MethodOptions,
    StyleOptions,
    OverlayOptions,
    make_panel(FileOptions, "format"),
    InputOptions,
    LoadedModelOptions,
    BatchOptions,
    JsonOptions,
    output=None,
    batch_size=32,
)
def explain(
    model: OptionalModel = None, images: OptionalImages = None, *, options: Options
) -> None:
    """Explain predictions: draw a heatmap of each image in OUTPUT/IMAGE_METHOD.png.

    Files of sequences, tables, volumes, videos and texts are explained for models that take these;
    a terminal also shows the text in colour. With several inputs or targets, the files are
    OUTPUT/IMAGE_METHOD_INPUT_TARGET.png. actgrid explain --list --json prints the options of each
    method and their defaults.
    """
    from actgrid.cli import report

    if options["list"]:
        report.print_methods(options["json"])
        return
    if model is None or not images or options["output"] is None:
        raise OptionError("MODEL, IMAGE and --output are required, except with --list")

    from actgrid.attribution.default_methods import DEFAULT_METHODS, find_default_method
    from actgrid.cli.explaining import (
        list_explained_inputs,
        parse_inputs,
        parse_targets,
        picture_names,
        print_warnings_in_one_line,
        read_labels_option,
        rephrase_target_errors,
        save_attribution,
        select_methods,
    )
    from actgrid.cli.loading import (
        load_model,
        parse_layers,
        read_tokens,
        resolve_preprocessing,
    )
    from actgrid.encoding import make_folder
    from actgrid.models.images import load_images, load_photos
    from actgrid.runs import explain_images
    from actgrid.runs.sample_items import SampleItems, find_run_items, iterate_samples

    # Invalid options are reported before the model loads, which takes seconds.
    texts = options["target"] or []
    layer = options["layer"]
    drawing = options.select(OverlayOptions)
    select = partial(select_methods, layer=layer, options=options.select(MethodOptions))
    methods = select(options["method"] or DEFAULT_METHODS)
    labels = read_labels_option(options["labels"])
    target = parse_targets(texts, labels)
    get_model = cache(partial(load_model, model, **options.select(LoadedModelOptions)))
    tokens: Any = read_tokens(options["tokens"])
    reading = options.select(InputOptions)
    items = find_run_items(images, None, get_model, reading | {"tokens": tokens})
    output = Path(options["output"])
    make_folder(output)
    network = get_model()
    if options["method"] is None:
        methods = select([find_default_method(network, layer).name])
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    layers = parse_layers(network, None if layer is None else [layer])
    inputs = parse_inputs(options["inputs"])
    load: Callable[[Path], Any]
    if isinstance(items, SampleItems):
        # The files are read twice, so that not all samples are in memory at a time.
        files = [file for file, _ in iterate_samples(items)]
        tokens = tokens if items.features is None else items.features
        samples = iterate_samples(items)
        load = lambda file: next(samples)[1]  # noqa: E731
        photo_of, preprocessing = None, None
    else:
        files = [item.source for item in items.start()]
        load = partial(load_images, model=network, **reading)
        size, fit = options["size"], options["fit"]
        photo_of = lambda file: load_photos(file, size=size, model=network, fit=fit)[0]  # noqa: E731
    results = explain_images(
        network,
        files,
        load,
        methods,
        target,
        None if layers is None else layers[0],
        labels=labels,
        batch_size=options["batch_size"],
        photo_of=photo_of,
        inputs=inputs,
        embedding=options["embedding"],
        tokens=tokens,
    )
    input_names = list_explained_inputs(network, inputs)
    names = picture_names(files, methods, input_names, texts)
    with (
        rephrase_target_errors(),
        print_warnings_in_one_line(),
        show_progress(len(files), "explaining") as advance,
    ):
        for file, attributions in results:
            for attribution in attributions:
                picture = output / f"{next(names)}.{options['format']}"
                save_attribution(attribution, picture, options["style"], **drawing)
                if options["json"]:
                    about = report.preprocessing_as_dict(preprocessing)
                    line = report.attribution_as_dict(file, attribution, picture)
                    typer.echo(json.dumps(line | {"preprocessing": about}))
                else:
                    report.print_attribution(file, attribution, picture)
            advance()
    if not options["json"]:
        report.print_preprocessing(preprocessing)
