"""The command `actgrid measure`."""

from __future__ import annotations

from actgrid.cli.arguments import ListedImages, Model
from actgrid.cli.command import Options, command
from actgrid.options import (
    BatchOptions,
    DestinationOptions,
    EventOptions,
    InputOptions,
    LayerOptions,
    LoadedModelOptions,
    RayOptions,
    StatisticsOptions,
    StreamOptions,
    ThreadOptions,
    VocabularyOptions,
)


@command(
    DestinationOptions,
    LayerOptions,
    StatisticsOptions,
    InputOptions,
    VocabularyOptions,
    LoadedModelOptions,
    ThreadOptions,
    BatchOptions,
    StreamOptions,
    RayOptions,
    EventOptions,
)
def measure(model: Model, images: ListedImages, options: Options) -> None:
    """Measure channel statistics over images: dead channels, top images of channels.

    OUTPUT/report.html shows the results, and stats.npz and summary.json contain them.
    OUTPUT/top/NN_LAYER.png shows the images that activate each channel most. manifest.jsonl and
    run.json are described under actgrid render. The exit code is 1 if images failed.
    """
    from actgrid.cli.running import finish_run, start_run

    finish_run(start_run(model, images, options, is_drawn=False, top=options["top"]), options)
