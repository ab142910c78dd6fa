"""`actgrid serve`."""

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
    ModelOptions,
    OpenOptions,
    ServerOptions,
    UploadOptions,
    ViewerOptions,
)


@command(
    ServerOptions,
    OpenOptions,
    ViewerOptions,
    UploadOptions,
    LabelOptions,
    InputOptions,
    ModelOptions,
    BatchOptions,
)
def serve(model: Model, images: OptionalImages = None, *, options: Options) -> None:
    """Show every layer, channel and heatmap of images in the browser.

    The page can add other images. The command prints the address of the page and serves it until
    SIGINT (Ctrl-C) or SIGTERM, and exits with 0 then. The HTTP API is described at
    /api/openapi.json. The token can also be given as the environment variable ACTGRID_TOKEN.
    """
    with _exit_on_signals():
        import actgrid
        from actgrid.cli import report
        from actgrid.cli.loading import load_model, used_preprocessing
        from actgrid.cli.viewing import viewer_options

        # What is wrong with these is said before a model is loaded.
        shown = images or (["demo"] if model == "demo" else [])
        viewing = viewer_options(shown, options)

        def ready(url: str) -> None:
            typer.echo(f"the viewer is at {url} (Ctrl-C ends it)")
            report.print_preprocessing(prepared)
            if options["open"]:
                webbrowser.open(url)

        network = load_model(model, **options.of(ModelOptions))
        prepared = used_preprocessing(network, options["preprocess"])
        actgrid.serve(network, ready=ready, **viewing, **options.of(ServerOptions, UploadOptions))


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
