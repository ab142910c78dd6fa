"""The command `actgrid serve`."""

from __future__ import annotations

import os
import signal
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from actgrid.cli.arguments import Model, OptionalImages
from actgrid.cli.command import Options, command
from actgrid.options import (
    BatchOptions,
    InputOptions,
    LabelOptions,
    LoadedModelOptions,
    OpenOptions,
    SecondModelOptions,
    ServerOptions,
    UploadOptions,
    ViewerOptions,
    VocabularyOptions,
)


@command(
    ServerOptions,
    OpenOptions,
    ViewerOptions,
    SecondModelOptions,
    UploadOptions,
    LabelOptions,
    InputOptions,
    VocabularyOptions,
    LoadedModelOptions,
    BatchOptions,
)
def serve(model: Model, images: OptionalImages = None, *, options: Options) -> None:
    """Serve the viewer: every layer, channel and heatmap of images in the browser.

    Sequences, volumes, tables and texts are shown for models that take these. Further images can be
    added on the page. The command prints the address of the page and serves it until SIGINT
    (Ctrl-C) or SIGTERM, and then exits with code 0. /api/openapi.json describes the HTTP API. The
    environment variable ACTGRID_TOKEN can also set the token.
    """
    with _exit_on_signals():
        import actgrid
        from actgrid.cli import report
        from actgrid.cli.loading import load_model, read_tokens, resolve_preprocessing
        from actgrid.cli.viewing import read_viewer_options

        # Invalid options are reported before the model loads, which takes seconds.
        images = images or (["demo"] if model == "demo" else [])
        viewing = read_viewer_options(images, options)

        def announce(url: str) -> None:
            typer.echo(f"the viewer is at {url} (stop it with Ctrl-C)")
            report.print_preprocessing(preprocessing)
            if options["open"]:
                webbrowser.open(url)

        loaded = options.select(LoadedModelOptions)
        has_second = options["compare_with"] is not None
        network = load_model(model, **{**loaded, **({"edits": None} if has_second else {})})
        preprocessing = resolve_preprocessing(network, options["preprocess"])
        if has_second:
            viewing["compare_with"] = load_model(options["compare_with"], **loaded)
            # Otherwise a warning about its preprocessing would be printed with a line of source.
            resolve_preprocessing(viewing["compare_with"], options["preprocess"])
        viewing["tokens"] = read_tokens(options["tokens"])
        actgrid.serve(
            network, ready=announce, **viewing, **options.select(ServerOptions, UploadOptions)
        )


@contextmanager
def _exit_on_signals() -> Iterator[None]:
    """Exit at once with code 0 at SIGINT or SIGTERM.

    Python's regular exit would wait for the threads that run the model. While uvicorn runs, it
    handles the signals itself, closes, and raises them again.
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
