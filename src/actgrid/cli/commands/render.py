"""The command `actgrid render`."""

from __future__ import annotations

from actgrid.cli.arguments import ListedImages, Model
from actgrid.cli.command import Options, command
from actgrid.options import (
    BackendOptions,
    BatchOptions,
    DestinationOptions,
    EventOptions,
    FileOptions,
    GridOptions,
    InputOptions,
    LayerOptions,
    LoadedModelOptions,
    RayOptions,
    RelevanceOptions,
    SinkOptions,
    StatisticsOptions,
    StreamOptions,
    ThreadOptions,
    VocabularyOptions,
)


@command(
    DestinationOptions,
    LayerOptions,
    GridOptions,
    RelevanceOptions,
    FileOptions,
    SinkOptions,
    StatisticsOptions,
    InputOptions,
    VocabularyOptions,
    LoadedModelOptions,
    BackendOptions,
    ThreadOptions,
    BatchOptions,
    StreamOptions,
    RayOptions,
    EventOptions,
)
def render(model: Model, images: ListedImages, options: Options) -> None:
    """Draw the activation maps of layers for images: OUTPUT/IMAGE/NN_LAYER.png.

    OUTPUT/manifest.jsonl has a line for each image, and OUTPUT/run.json describes the run. The exit
    code is 1 if images failed.
    """
    from actgrid.cli.explaining import rephrase_target_errors
    from actgrid.cli.running import finish_run, start_run

    top = options["top"] if options["statistics"] else None
    run = start_run(model, images, options, is_drawn=True, top=top)
    with rephrase_target_errors():
        finish_run(run, options)
