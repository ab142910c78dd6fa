"""The command `actgrid residual-stream`."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import typer

from actgrid.cli.arguments import Input, Model
from actgrid.cli.command import Options, command
from actgrid.options import (
    InputOptions,
    JsonOptions,
    LoadedModelOptions,
    LogitLensOptions,
    PictureFileOptions,
    StreamStyleOptions,
    TokenSampleOptions,
)


@command(
    PictureFileOptions,
    StreamStyleOptions,
    LogitLensOptions,
    InputOptions,
    LoadedModelOptions,
    JsonOptions,
    output="residual-stream.png",
)
def residual_stream(model: Model, source: Input, *, options: Options) -> None:
    """Draw the residual stream of a transformer, or what it would predict from each layer.

    INPUT is an image, a file of texts or arrays, or a text. Of a file with several samples, the
    option --sample selects one.
    """
    from actgrid.cli import report
    from actgrid.cli.loading import load_model, load_source, read_tokens, resolve_preprocessing
    from actgrid.encoding import find_image_format, make_folder
    from actgrid.figures import compute_logit_lens, measure_residual_stream

    # Invalid options are reported before the model loads, which takes seconds.
    output = Path(options["output"])
    find_image_format(output.suffix)
    tokens = read_tokens(options["tokens"])
    make_folder(output.parent)
    network = load_model(model, **options.select(LoadedModelOptions))
    x = load_source(source, network, options.select(InputOptions))
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    as_dict: Callable[[], dict[str, Any]]
    print_table: Callable[[], None]
    if options["stream_style"] == "lens":
        lens = compute_logit_lens(
            network, x, **{**options.select(LogitLensOptions), "tokens": tokens}
        )
        lens.save(output)
        as_dict = partial(report.lens_as_dict, output, lens)
        print_table = partial(report.print_lens, output, lens)
    else:
        stream = measure_residual_stream(
            network, x, **{**options.select(TokenSampleOptions), "tokens": tokens}
        )
        stream.save(output)
        as_dict = partial(report.stream_as_dict, output, stream)
        print_table = partial(report.print_stream, output, stream)
    if options["json"]:
        typer.echo(json.dumps(as_dict()))
    else:
        print_table()
        report.print_preprocessing(preprocessing)
