"""Read the options that `actgrid serve` and `actgrid export` have in common."""

from __future__ import annotations

from typing import Any

from actgrid.cli.command import Options
from actgrid.cli.explaining import read_labels_option
from actgrid.models.image_sources import find_images
from actgrid.options import BatchOptions, InputOptions, ViewerOptions
from actgrid.statistics import DatasetStats

__all__ = ["read_viewer_options"]


def read_viewer_options(images: list[str], options: Options) -> dict[str, Any]:
    """Return the images and options of a command as keyword arguments of the viewer.

    Parameters
    ----------
    images
        Paths, folders or globs of image files.
    options
        Options of the command.

    Returns
    -------
    dict
        Name of the argument -> value. Files of labels and statistics are loaded.
    """
    statistics = options["statistics"]
    return options.select(InputOptions, BatchOptions, ViewerOptions) | {
        "images": [file for image in images for file in find_images(image)],
        "labels": read_labels_option(options["labels"]),
        "statistics": None if statistics is None else DatasetStats.load(statistics),
    }
