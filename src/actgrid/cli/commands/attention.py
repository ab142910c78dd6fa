"""The command `actgrid attention`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from actgrid.cli.arguments import Input, Model
from actgrid.cli.command import NoneMeaning, Options, command, make_panel
from actgrid.options import (
    AttentionStyleOptions,
    FileOptions,
    FolderOptions,
    InputOptions,
    JsonOptions,
    LayerOptions,
    LoadedModelOptions,
    TokenSampleOptions,
)


@command(
    FolderOptions,
    LayerOptions,
    AttentionStyleOptions,
    TokenSampleOptions,
    make_panel(FileOptions, "format"),
    InputOptions,
    LoadedModelOptions,
    JsonOptions,
    layers=NoneMeaning("every layer of attention"),
)
def attention(model: Model, source: Input, *, options: Options) -> None:
    """Draw the attention of each layer for one input in OUTPUT/NUMBER_LAYER.png.

    INPUT is an image, a file of texts or arrays, or a text. Of a file with several samples, the
    option --sample selects one.
    """
    from actgrid.cli import report
    from actgrid.cli.loading import load_model, load_source, read_tokens, resolve_preprocessing
    from actgrid.cli.transformers import draw_attention
    from actgrid.encoding import make_folder
    from actgrid.figures import extract_attention
    from actgrid.figures.files import number_files

    # Invalid options are reported before the model loads, which takes seconds.
    output = Path(options["output"])
    tokens = read_tokens(options["tokens"])
    make_folder(output)
    network = load_model(model, **options.select(LoadedModelOptions))
    preprocessing = resolve_preprocessing(network, options["preprocess"])
    layers = options["layers"]
    items = None if layers is None else [_parse(text) for text in layers]
    x = load_source(source, network, options.select(InputOptions))
    maps = extract_attention(network, x, items, sample=options["sample"], tokens=tokens)
    files = number_files(list(maps), f".{options['format']}")
    for file, attention_map in zip(files, maps.values(), strict=True):
        picture = draw_attention(attention_map, options.select(AttentionStyleOptions))
        picture.save(output / file)
    if options["json"]:
        typer.echo(json.dumps(report.attention_as_dict(output, maps, files)))
    else:
        report.print_attention(output, maps)
        report.print_preprocessing(preprocessing)


def _parse(text: str) -> str | int:
    return int(text) if text.lstrip("-").isdecimal() else text
