"""The commands. TensorFlow is imported only by those that run a model."""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from actgrid.cli.options import (
    SPEC,
    Actors,
    Backend,
    Background,
    BatchSize,
    ClassNames,
    Cmap,
    Columns,
    Compression,
    Destination,
    Engine,
    Fit,
    Format,
    Inputs,
    Json,
    JsonEvents,
    Layers,
    Megabytes,
    Model,
    Normalize,
    NumGpus,
    OnError,
    Order,
    Output,
    Overwrite,
    Padding,
    Preprocess,
    RayAddress,
    Resume,
    SafeMode,
    Scope,
    ShardSize,
    Size,
    Statistics,
    Threads,
    Top,
    TopChannels,
    Weights,
    Zoom,
    channel_choice,
    drawing_options,
    pair,
    suffix_of,
    weights_choice,
)
from actgrid.errors import OptionError
from actgrid.progress import progress

__all__ = ["app"]

app = typer.Typer(
    name="actgrid",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="See what a Keras/TensorFlow network sees: every channel of every layer, drawn fast.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"actgrid {metadata.version('actgrid')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the pictures.")] = Path(
        "actgrid-demo"
    ),
    as_json: Json = False,
) -> None:
    """Draw every layer of the embedded network for a photo of a cat, and where it sees the cat."""
    from actgrid.attribution import explain
    from actgrid.cli import report
    from actgrid.cli.loading import load_model
    from actgrid.demo import photo, top_classes
    from actgrid.encoding import writable_folder
    from actgrid.figures import save_layers
    from actgrid.models import Extractor, load_images

    writable_folder(output)
    network = load_model("demo", None, safe_mode=True)
    batch = load_images(photo(), model=network)
    # The class probabilities come out of the same run as the activations.
    head = network.layers[-1]
    extractor = Extractor(network, lambda layer: len(layer.output.shape) > 2 or layer is head)
    activations = extractor(batch)
    top = top_classes(activations.pop(head.name)[0])
    about = {"image": "cat.jpg", "model": network.name}
    drawn = save_layers(output, extractor.layers, activations, about=about)
    heatmap, file = explain(network, photo()), output / "gradcam.png"
    heatmap.overlay().save(file)
    if as_json:
        classes = [{"name": name, "probability": share} for name, share in top]
        explained = report.heatmap_as_dict(Path("cat.jpg"), heatmap, file)
        typer.echo(
            json.dumps(
                {**report.as_dict("cat.jpg", output, drawn), "top": classes, "explained": explained}
            )
        )
        return
    report.print_layers(drawn)
    report.print_top(top)
    print()
    report.print_heatmap(Path("cat.jpg"), heatmap, file)
    report.print_place(output, drawn)


@app.command()
def layers(
    model: Model,
    weights: Weights = "none",
    safe_mode: SafeMode = True,
    as_json: Json = False,
) -> None:
    """List the layers of a model: path, type, shape, parameters."""
    from dataclasses import asdict

    from actgrid.cli import report
    from actgrid.cli.loading import load_model
    from actgrid.models import list_layers

    infos = list_layers(load_model(model, weights_choice(weights), safe_mode))
    if as_json:
        typer.echo(json.dumps([{**asdict(info), "channels": info.channels} for info in infos]))
    else:
        report.print_infos(infos)


@app.command()
def info(as_json: Json = False) -> None:
    """Show versions, rendering backends, the processor and devices."""
    from actgrid.cli import report
    from actgrid.rendering import backend_problems

    backends = backend_problems()
    facts: dict[str, Any] = {
        "versions": {"actgrid": metadata.version("actgrid"), "python": platform.python_version()}
        | {name: _version(name) for name in report.PACKAGES},
        "backends": {name: problem or "available" for name, problem in backends.items()},
        "auto": next(name for name, problem in backends.items() if problem is None),
        "cpu": _cpu(native=backends["native"] is None),
        "devices": _devices(),
    }
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        report.print_facts(facts)


@app.command()
def render(
    model: Model,
    images: Inputs,
    output: Destination,
    layers: Layers = None,
    normalize: Normalize = "standard",
    scope: Scope = "channel",
    columns: Columns = None,
    padding: Padding = 1,
    zoom: Zoom = 1,
    background: Background = 0,
    order: Order = "index",
    cmap: Cmap = "viridis",
    file_format: Format = "png",
    compression: Compression = "fast",
    token_grid: Annotated[
        str | None,
        typer.Option(
            metavar="HxW", help="Draw sequences as tiles of H x W tokens.", show_default=False
        ),
    ] = None,
    sink: Annotated[
        str,
        typer.Option(help="folders: one for each image; tar: shards as WebDataset reads them."),
    ] = "folders",
    statistics: Annotated[
        bool, typer.Option("--stats", help="Also take what actgrid stats does.")
    ] = False,
    top: Top = 9,
    top_channels: TopChannels = 8,
    preprocess: Preprocess = "auto",
    size: Size = None,
    fit: Fit = "crop",
    weights: Weights = "imagenet",
    safe_mode: SafeMode = True,
    backend: Backend = "auto",
    threads: Threads = None,
    batch_size: BatchSize = 8,
    shard_size: ShardSize = 100,
    on_error: OnError = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    engine: Engine = "local",
    actors: Actors = 2,
    num_gpus: NumGpus = 0,
    ray_address: RayAddress = None,
    as_json: JsonEvents = False,
) -> None:
    """Draw a model's layers for images: OUTPUT/IMAGE/NN_LAYER.png and stats.json.

    OUTPUT/manifest.jsonl has a line for each image, OUTPUT/run.json says of what the run is. The
    exit code is 1 if images failed.
    """
    from actgrid.cli.running import carry_out, start

    # What is wrong with these is said before a model is loaded.
    drawing = drawing_options(
        compression,
        order,
        normalize=normalize,
        scope=scope,
        columns=columns,
        padding=padding,
        zoom=zoom,
        background=background,
        cmap=cmap,
        backend=backend,
    )
    drawing |= {"token_grid": pair("token-grid", token_grid), "suffix": suffix_of(file_format)}
    run = start(
        model,
        images,
        output,
        layers,
        weights=weights_choice(weights),
        safe_mode=safe_mode,
        drawing=drawing,
        top=top if statistics else None,
        preprocess=preprocess,
        size=pair("size", size),
        fit=fit,
        sink=sink,
        threads=threads,
        batch_size=batch_size,
        shard_size=shard_size,
        on_error=on_error,
        resume=resume,
        overwrite=overwrite,
        engine=engine,
        actors=actors,
        num_gpus=num_gpus,
        ray_address=ray_address,
    )
    carry_out(run, as_json, top_channels)


@app.command()
def stats(
    model: Model,
    images: Inputs,
    output: Destination,
    layers: Layers = None,
    top: Top = 9,
    top_channels: TopChannels = 8,
    preprocess: Preprocess = "auto",
    size: Size = None,
    fit: Fit = "crop",
    weights: Weights = "imagenet",
    safe_mode: SafeMode = True,
    threads: Threads = None,
    batch_size: BatchSize = 8,
    shard_size: ShardSize = 100,
    on_error: OnError = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    engine: Engine = "local",
    actors: Actors = 2,
    num_gpus: NumGpus = 0,
    ray_address: RayAddress = None,
    as_json: JsonEvents = False,
) -> None:
    """Measure a model's channels over images: which are dead, and what excites each of them most.

    OUTPUT/report.html shows it all, stats.npz and summary.json hold it, top/NN_LAYER.png are the
    images that excite channels most. manifest.jsonl and run.json are as with actgrid render. The
    exit code is 1 if images failed.
    """
    from actgrid.cli.running import carry_out, start

    run = start(
        model,
        images,
        output,
        layers,
        weights=weights_choice(weights),
        safe_mode=safe_mode,
        drawing=None,
        top=top,
        preprocess=preprocess,
        size=pair("size", size),
        fit=fit,
        sink="folders",
        threads=threads,
        batch_size=batch_size,
        shard_size=shard_size,
        on_error=on_error,
        resume=resume,
        overwrite=overwrite,
        engine=engine,
        actors=actors,
        num_gpus=num_gpus,
        ray_address=ray_address,
    )
    carry_out(run, as_json, top_channels)


@app.command()
def explain(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help=SPEC, show_default=False)
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE...", help="Image files, folders of them, or globs.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the pictures.", show_default=False),
    ] = None,
    list_methods: Annotated[
        bool, typer.Option("--list", help="List the methods; nothing else is needed.")
    ] = False,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="One of those of --list; repeatable (default: gradcam).", show_default=False
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Name or index of a class (default: the one predicted), or OUTPUT=CLASS for one "
            "of several outputs of the model, by its name or position; repeatable: a picture for "
            "each. A model that ends in one sigmoid has the classes 0 and 1.",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(
            help="For methods that look at one: its path, or index into model.layers (default: "
            "the last layer between image and score that keeps the image's height and width, and "
            "comes from a learned operation such as a convolution; no pooling, padding or "
            "upsampling; before the first upsampling of a model whose output is a picture).",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Names of the classes: a text file, one a line, or imagenet (default: those of "
            "ImageNet for whole networks of keras.applications and for demo); OUTPUT=FILE for one "
            "of several outputs of the model, repeatable.",
            show_default=False,
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Of the methods that have it, such as steps=100 or patch=16x16; repeatable "
            "(--list --json tells all).",
            show_default=False,
        ),
    ] = None,
    style: Annotated[
        str, typer.Option(help="overlay, contours, or map: without the image.")
    ] = "overlay",
    alpha: Annotated[float, typer.Option(help="Of overlay: 1 hides the image.")] = 0.5,
    cmap: Annotated[
        str | None,
        typer.Option(
            help="A colormap of matplotlib's (default: viridis, or RdBu_r for signed maps).",
            show_default=False,
        ),
    ] = None,
    clip: Annotated[
        float, typer.Option(help="Percentile of a map that is drawn as its largest value.")
    ] = 99,
    file_format: Format = "png",
    preprocess: Preprocess = "auto",
    size: Size = None,
    fit: Fit = "crop",
    weights: Weights = "imagenet",
    safe_mode: SafeMode = True,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images, or copies of them, in one run of the model.")
    ] = 32,
    as_json: Json = False,
) -> None:
    """Draw where in images a model sees a class: OUTPUT/IMAGE_METHOD.png.

    Of several targets: OUTPUT/IMAGE_METHOD_TARGET.png.
    """
    from actgrid.cli import report

    if list_methods:
        report.print_methods(as_json)
        return
    if model is None or not images or output is None:
        raise OptionError("MODEL, IMAGE and --output are needed, but for actgrid explain --list")

    from actgrid.cli.explaining import (
        check_drawing,
        draw,
        labels_choice,
        method_choice,
        target_choice,
        targets_as_options,
        warnings_in_a_line,
    )
    from actgrid.cli.loading import layer_choice, load_model, used_preprocessing
    from actgrid.encoding import writable_folder
    from actgrid.figures import folder_names, safe_name, unique_names
    from actgrid.models.image_pixels import check_fit
    from actgrid.models.image_sources import find_images
    from actgrid.models.images import load_images, load_photos
    from actgrid.runs import explain_images

    # What is wrong with these is said before a model is loaded.
    methods = method_choice(method or ["gradcam"], layer, option or [])
    check_drawing(style, alpha, cmap, clip)
    names = labels_choice(labels or [])
    wanted = target_choice(target or [], names)
    pixels = pair("size", size)
    check_fit(fit)
    suffix = suffix_of(file_format)
    files = [file for image in images for file in find_images(image)]
    writable_folder(output)
    network = load_model(model, weights_choice(weights), safe_mode)
    prepared = used_preprocessing(network, preprocess)
    layers = layer_choice(network, None if layer is None else [layer])
    results = explain_images(
        network,
        files,
        lambda file: load_images(file, pixels, preprocess, model=network, fit=fit),
        methods,
        wanted,
        None if layers is None else layers[0],
        labels=names,
        batch_size=batch_size,
        photo_of=lambda file: load_photos(file, pixels, model=network, fit=fit)[0],
    )
    # Several targets of an image are told apart by what was given for each.
    endings = [f"_{safe_name(text)}" for text in target] if target and len(target) > 1 else [""]
    pictures = iter(
        unique_names(
            f"{name}_{method.name}{ending}"
            for name in folder_names(files)
            for method in methods
            for ending in endings
        )
    )
    with (
        targets_as_options(),
        warnings_in_a_line(),
        progress(len(files), "explaining") as advance,
    ):
        for file, heatmaps in results:
            for heatmap in heatmaps:
                picture = output / f"{next(pictures)}{suffix}"
                draw(heatmap, style, alpha, cmap, clip).save(picture)
                if as_json:
                    about = report.preprocessing_as_dict(prepared)
                    line = report.heatmap_as_dict(file, heatmap, picture) | {"preprocessing": about}
                    typer.echo(json.dumps(line))
                else:
                    report.print_heatmap(file, heatmap, picture)
            advance()
    if not as_json:
        report.print_preprocessing(prepared)


@app.command()
def diagram(
    model: Model,
    image: Annotated[
        Path | None,
        typer.Argument(
            metavar="[IMAGE]", help="What each layer gives for it is shown.", show_default=False
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture.")] = Path(
        "diagram.png"
    ),
    layers: Layers = None,
    side: Annotated[int, typer.Option(help="Pixels of the longest side.")] = 160,
    width: Annotated[int, typer.Option(help="Pixels after which a new row begins.")] = 1600,
    names: Annotated[
        bool, typer.Option("--names/--no-names", help="Write names and shapes under the boxes.")
    ] = True,
    legend: Annotated[
        bool, typer.Option("--legend/--no-legend", help="Tell which colour is which type.")
    ] = True,
    normalize: Normalize = "minmax",
    cmap: Cmap = "viridis",
    weights: Annotated[
        str | None,
        typer.Option(
            help="For keras:NAME: imagenet, none (random), or a weights file (default: imagenet "
            "with an image, else none).",
            show_default=False,
        ),
    ] = None,
    safe_mode: SafeMode = True,
    as_json: Json = False,
) -> None:
    """Draw a network as a row of boxes, each as large as what its layer gives."""
    from actgrid import figures
    from actgrid.cli import report
    from actgrid.cli.loading import layer_choice, load_model, used_preprocessing
    from actgrid.encoding import image_format, writable_folder
    from actgrid.figures.diagrams import check_options
    from actgrid.models.image_sources import find_images

    # What is wrong with these is said before a model is loaded.
    options: dict[str, Any] = {"side": side, "width": width, "normalize": normalize, "cmap": cmap}
    check_options(**options)
    image_format(output.suffix)
    images = None if image is None else find_images(image)
    writable_folder(output.parent)
    if weights is None:
        weights = "none" if image is None else "imagenet"
    network = load_model(model, weights_choice(weights), safe_mode)
    prepared = None if images is None else used_preprocessing(network, "auto")
    chosen = layer_choice(network, layers)
    drawn = figures.diagram(network, images, chosen, names=names, legend=legend, **options)
    drawn.save(output)
    if as_json:
        about = prepared and {"preprocessing": report.preprocessing_as_dict(prepared)}
        typer.echo(json.dumps(report.diagram_as_dict(output, drawn) | (about or {})))
    else:
        report.print_diagram(output, drawn)
        if prepared is not None:
            report.print_preprocessing(prepared)


@app.command()
def filters(
    model: Model,
    output: Output,
    layers: Layers = None,
    normalize: Normalize = "symmetric",
    scope: Scope = "channel",
    columns: Columns = None,
    padding: Padding = 1,
    zoom: Zoom = 1,
    background: Background = 128,
    order: Order = "index",
    cmap: Cmap = "RdBu_r",
    file_format: Format = "png",
    compression: Compression = "fast",
    weights: Weights = "imagenet",
    safe_mode: SafeMode = True,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Draw a model's weights: OUTPUT/NN_LAYER_WEIGHT.png, by default of every convolution."""
    from actgrid.cli import report
    from actgrid.cli.loading import layer_choice, load_model
    from actgrid.encoding import writable_folder
    from actgrid.figures import save_weights

    # What is wrong with these is said before a model is loaded.
    options = drawing_options(
        compression,
        order,
        normalize=normalize,
        scope=scope,
        columns=columns,
        padding=padding,
        zoom=zoom,
        background=background,
        cmap=cmap,
        backend=backend,
        threads=threads,
    )
    suffix = suffix_of(file_format)
    writable_folder(output)
    network = load_model(model, weights_choice(weights), safe_mode)
    chosen = layer_choice(network, layers)
    drawn = save_weights(output, network, chosen, suffix=suffix, **options)
    if as_json:
        typer.echo(json.dumps(report.weights_as_dict(output, drawn)))
    else:
        report.print_weights(output, drawn)


@app.command()
def maximize(
    model: Model,
    layer: Annotated[
        str, typer.Option(help="Layer path, or index into model.layers.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="The picture.", show_default=False),
    ],
    channels: Annotated[
        str | None,
        typer.Option(
            help="Channels such as 3,0-2, or the name of a class (default: all).",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="How often the images are changed.")] = 128,
    size: Size = None,
    parametrization: Annotated[str, typer.Option(help="fourier or pixel.")] = "fourier",
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 0.05,
    total_variation: Annotated[
        float, typer.Option(help="How much differences between neighbouring pixels count.")
    ] = 0.0,
    jitter: Annotated[float, typer.Option(help="At most by this share moved at random.")] = 0.07,
    rotate: Annotated[float, typer.Option(help="At most so many degrees turned.")] = 10,
    scale: Annotated[float, typer.Option(help="At most by this share larger or smaller.")] = 0.2,
    preprocess: Preprocess = "auto",
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .npz file with one sample of each of the model's other inputs, by name.",
            show_default=False,
        ),
    ] = None,
    image_input: Annotated[
        str | None,
        typer.Option(
            help="Name of the input that is the image (default: the one not in --inputs).",
            show_default=False,
        ),
    ] = None,
    rgb_channels: Annotated[
        str | None,
        typer.Option(
            help="Channels drawn as red, green and blue, such as 3,2,1, of images that have two or "
            "more than four (default: each a gray tile).",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Channels at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Of the noise and the transforms.")] = 0,
    columns: Columns = None,
    padding: Padding = 1,
    weights: Weights = "imagenet",
    safe_mode: SafeMode = True,
    as_json: Json = False,
) -> None:
    """Draw the images that excite a layer's channels, or a class, the most: a tile for each."""
    from actgrid import attribution
    from actgrid.attribution.maximization import check_options
    from actgrid.cli import report
    from actgrid.cli.loading import layer_choice, load_inputs, load_model, used_preprocessing
    from actgrid.encoding import image_format, writable_folder

    options: dict[str, Any] = {
        "steps": steps,
        "parametrization": parametrization,
        "learning_rate": learning_rate,
        "total_variation": total_variation,
        "jitter": jitter,
        "rotate": rotate,
        "scale": scale,
        "batch_size": batch_size,
        "seed": seed,
        "columns": columns,
        "padding": padding,
    }
    # What is wrong with these is said before a model is loaded.
    check_options(**options)
    pixels = pair("size", size)
    wanted = None if channels is None else channel_choice("channels", channels)
    rgb: Any = None if rgb_channels is None else channel_choice("rgb-channels", rgb_channels)
    others = None if inputs is None else load_inputs(inputs)
    image_format(output.suffix)
    writable_folder(output.parent)
    network = load_model(model, weights_choice(weights), safe_mode)
    prepared = used_preprocessing(network, preprocess)
    found = attribution.maximize(
        network,
        layer_choice(network, [layer]),
        wanted,
        size=pixels,
        preprocess=preprocess,
        inputs=others,
        image_input=image_input,
        rgb_channels=rgb,
        progress=True,
        **options,
    )
    found.save(output)
    if as_json:
        about = {"preprocessing": report.preprocessing_as_dict(prepared)}
        typer.echo(json.dumps(report.maximization_as_dict(output, found) | about))
    else:
        report.print_preprocessing(prepared)
        report.print_maximization(output, found)


@app.command()
def serve(
    model: Model,
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Image file, folder or glob to look at; repeatable. The page can add others.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; one that others can reach wants a token."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="ACTGRID_TOKEN",
            help="What requests must bring (default: one is made up where it is needed).",
            show_default=False,
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Further name of this server, where there is no token; repeatable.",
            show_default=False,
        ),
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    stats: Statistics = None,
    labels: ClassNames = None,
    preprocess: Preprocess = "auto",
    size: Size = None,
    fit: Fit = "crop",
    weights: Weights = "imagenet",
    safe_mode: SafeMode = True,
    cache: Megabytes = 512,
    upload: Annotated[
        int,
        typer.Option(
            metavar="MIB", min=1, help="Largest image file that can be added, in MiB (2^20 bytes)."
        ),
    ] = 32,
    batch_size: BatchSize = 8,
) -> None:
    """Look around inside a network in the browser: every layer, channel and heatmap of an image.

    The command prints the address of the page and serves it until SIGINT (Ctrl-C) or SIGTERM, and
    exits with 0 then. The HTTP API is described at /api/openapi.json.
    """
    with _exit_on_signals():
        import actgrid
        from actgrid.cli import report
        from actgrid.cli.loading import load_model, used_preprocessing

        # What is wrong with these is said before a model is loaded.
        options = _viewer_options(
            images or [], stats, labels, preprocess, size, fit, cache, batch_size
        )

        def ready(url: str) -> None:
            typer.echo(f"the viewer is at {url} (Ctrl-C ends it)")
            report.print_preprocessing(prepared)
            if open_page:
                webbrowser.open(url)

        network = load_model(model, weights_choice(weights), safe_mode)
        prepared = used_preprocessing(network, preprocess)
        if not options["images"] and model == "demo":
            options["images"] = [actgrid.demo.photo()]
        actgrid.serve(
            network,
            host=host,
            port=port,
            token=token,
            allowed_hosts=allow_host or [],
            ready=ready,
            upload_bytes=upload << 20,
            **options,
        )


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Exit with code 0 at SIGINT or SIGTERM, whatever the threads of TensorFlow are doing.

    A server has nothing to finish. Python's own exit would wait for the threads that run the
    model. While uvicorn runs it answers the signals itself, closes, and raises them again.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = signal.SIGINT, signal.SIGTERM
    handlers = [signal.signal(number, lambda number, frame: os._exit(0)) for number in signals]
    try:
        yield
    finally:
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)


@app.command()
def export(
    model: Model,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...", help="Image files, folders of them, or globs.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the site.")] = Path(
        "site"
    ),
    layers: Annotated[
        list[str] | None,
        typer.Option(
            help="Whose channels can be looked at: layer path, glob, Keras layer class or index; "
            "repeatable (default: all).",
            show_default=False,
        ),
    ] = None,
    normalize: Annotated[
        list[str] | None,
        typer.Option(
            help="One that can be chosen, as of actgrid render; repeatable (default: standard).",
            show_default=False,
        ),
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="channel or layer: can be chosen; repeatable (default: channel).",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Heatmap that can be chosen, as of actgrid explain; repeatable (default: "
            "gradcam).",
            show_default=False,
        ),
    ] = None,
    stats: Statistics = None,
    labels: ClassNames = None,
    preprocess: Preprocess = "auto",
    size: Size = None,
    fit: Fit = "crop",
    weights: Weights = "imagenet",
    safe_mode: SafeMode = True,
    cache: Megabytes = 512,
    batch_size: BatchSize = 8,
) -> None:
    """Write the page of actgrid serve as files with the data in them, for any web server.

    Browsers run the page only from a web server, not from a file.
    """
    import actgrid
    from actgrid.cli import report
    from actgrid.cli.loading import layer_choice, load_model, used_preprocessing
    from actgrid.encoding import writable_folder

    # What is wrong with these is said before a model is loaded.
    options = _viewer_options(images, stats, labels, preprocess, size, fit, cache, batch_size)
    writable_folder(output)
    network = load_model(model, weights_choice(weights), safe_mode)
    prepared = used_preprocessing(network, preprocess)
    actgrid.export_site(
        network,
        output=output,
        layers=layer_choice(network, layers),
        normalize=normalize or "standard",
        scope=scope or "channel",
        methods=method or "gradcam",
        progress=True,
        **options,
    )
    size_of = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"{output}: {size_of / 1e6:,.1f} MB; it has to come from a web server, for example")
    print(f"python -m http.server --directory {output}")
    report.print_preprocessing(prepared)


def _viewer_options(
    images: list[str],
    stats: Path | None,
    labels: Path | None,
    preprocess: str,
    size: str | None,
    fit: str,
    cache: int,
    batch_size: int,
) -> dict[str, Any]:
    """Return what `serve` and `export` have in common, checked; images as files."""
    from actgrid.models.image_pixels import check_fit
    from actgrid.models.image_sources import find_images
    from actgrid.models.labels import read_labels
    from actgrid.statistics import DatasetStats

    check_fit(fit)
    files = [file for image in images for file in find_images(image)]
    return {
        "images": files,
        "statistics": None if stats is None else DatasetStats.load(stats),
        "labels": None if labels is None else read_labels(labels),
        "preprocess": preprocess,
        "size": pair("size", size),
        "fit": fit,
        "cache_bytes": cache << 20,
        "batch_size": batch_size,
    }


@app.command()
def bench(
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the figures in a file.", show_default=False),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="OTHER",
            help="Compare with another build: a wheel, a checkout, an environment, a folder that "
            "holds the package, or an interpreter; or with a file that --save wrote.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="How much slower is not slower yet: 0.15 is 15%.")
    ] = 0.15,
    rounds: Annotated[
        int,
        typer.Option(min=1, help="Rounds at most, of new processes each: clear cases need fewer."),
    ] = 25,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only drawing and encoding, without TensorFlow.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell whether this build of actgrid is slower than another one.

    Two builds run the same cases in turns, in processes of their own, until each ratio of times is
    clear of the tolerance: that holds on a busy machine too. The exit code is 1 if anything is
    slower by more than the tolerance.

    Figures that --save keeps are ratios to fixed work of NumPy, zlib or Python. They hold only on
    the processor, and with the versions, that they were recorded with.
    """
    from contextlib import ExitStack
    from functools import partial

    from actgrid import bench
    from actgrid.cli import report
    from actgrid.cli.loading import load_tensorflow
    from actgrid.encoding import writable_folder

    # What is wrong with these is said before anything is measured.
    if not tolerance >= 0:  # NaN is not
        raise OptionError(f"--tolerance must be a share such as 0.15, not {tolerance}")
    if save is not None and against is not None:
        raise OptionError("--save records this build and --against compares it: give one of them")
    if save is not None:
        writable_folder(save.parent)
    cases = list(bench.bench_cases(quick))
    kept = dict.fromkeys(cases, 1.0)
    if against is not None and against.suffix == ".json":
        kept = bench.load(against, cases, quick)
    if not quick:
        load_tensorflow()  # what is missing is said here
    this = bench.this_build()
    start = partial(bench.turns_with_yardsticks, this, kept)
    left_out: dict[str, str] = {}
    with ExitStack() as opened:
        if against is not None and against.suffix != ".json":
            other = opened.enter_context(bench.opened_build(against))
            left_out = bench.check_builds(other, this, cases)
            cases = [name for name in cases if name not in left_out]
            start = partial(bench.turns_of_builds, other, this)
        settled = bench.is_steady if against is None else bench.is_clear(tolerance)
        advance = opened.enter_context(progress(len(cases) * rounds, "measuring"))
        figures = bench.measure(cases, start, rounds, settled, advance)
    if save is not None:
        bench.save(save, figures)
    limit = None if against is None else tolerance
    if as_json:
        typer.echo(json.dumps(report.figures_as_dict(figures, left_out, limit)))
    else:
        report.print_figures(figures, left_out, limit)
    if report.slower_cases(figures, limit):
        raise typer.Exit(1)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu(native: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"machine": platform.machine(), "simd": None, "simd_variants": []}
    if native:
        from actgrid import _core

        facts |= {"simd": _core.simd_variant(), "simd_variants": _core.simd_variants()}
    return facts


def _devices() -> list[str] | str:
    from actgrid.cli.loading import load_tensorflow
    from actgrid.errors import MissingDependencyError
    from actgrid.models.frameworks import tensorflow

    try:
        load_tensorflow()
    except MissingDependencyError as error:
        return str(error)
    devices = tensorflow().config.list_physical_devices()
    return [f"{device.device_type} {device.name}" for device in devices]
