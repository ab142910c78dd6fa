"""Options that `actgrid serve` and `actgrid export` share, as Python functions take them."""

from __future__ import annotations

from typing import Any

from actgrid.cli.command import Options
from actgrid.cli.explaining import labels_choice
from actgrid.models.image_sources import find_images
from actgrid.options import BatchOptions, InputOptions, ViewerOptions
from actgrid.statistics import DatasetStats

__all__ = ["viewer_options"]


def viewer_options(images: list[str], options: Options) -> dict[str, Any]:
    """Return the images as files, and the options of the viewer, read and checked."""
    statistics = options["statistics"]
    return options.of(InputOptions, BatchOptions, ViewerOptions) | {
        "images": [file for image in images for file in find_images(image)],
        "labels": labels_choice(options["labels"]),
        "statistics": None if statistics is None else DatasetStats.load(statistics),
    }
