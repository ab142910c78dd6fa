"""The command `actgrid compare-models`."""

from __future__ import annotations

from actgrid.cli.arguments import ListedImages, Model, OtherModel
from actgrid.cli.command import NoneMeaning, Options, command
from actgrid.options import (
    BatchOptions,
    DestinationOptions,
    EventOptions,
    InputOptions,
    LayerOptions,
    LoadedModelOptions,
    SortOptions,
    StatisticsOptions,
    StreamOptions,
    ThreadOptions,
    VocabularyOptions,
)


@command(
    DestinationOptions,
    LayerOptions,
    SortOptions,
    StatisticsOptions,
    InputOptions,
    VocabularyOptions,
    LoadedModelOptions,
    ThreadOptions,
    BatchOptions,
    StreamOptions,
    EventOptions,
    layers=NoneMeaning("all layers of both models whose outputs can be drawn"),
)
def compare_models(
    model: Model, other_model: OtherModel, images: ListedImages, options: Options
) -> None:
    """Compare the channels of two models over images: differences, dead channels, CKA.

    Layers of the same path correspond; --layers PATH=OTHER names the layer of the other model.
    OUTPUT/report.html shows the results, and comparison.npz and summary.json contain them.
    OUTPUT/top/NN_LAYER.png shows the layers that differ most. manifest.jsonl and run.json are
    described under actgrid render. The exit code is 1 if images failed.
    """
    from actgrid.cli.running import finish_run, start_comparison

    finish_run(start_comparison(model, other_model, images, options), options)
