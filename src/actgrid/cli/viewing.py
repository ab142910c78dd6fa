"""Read the options that `actgrid serve` and `actgrid export` have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actgrid.cli.command import Options
from actgrid.cli.explaining import read_labels_option
from actgrid.models.image_sources import find_images, is_folder
from actgrid.options import BatchOptions, InputOptions, ViewerOptions, VocabularyOptions
from actgrid.statistics import DatasetStats

__all__ = ["read_viewer_options"]


def read_viewer_options(images: list[str], options: Options) -> dict[str, Any]:
    """Return the images and options of a command as keyword arguments of the viewer.

    Parameters
    ----------
    images
        Paths, folders or globs of files.
    options
        Options of the command.

    Returns
    -------
    dict
        Name of the argument -> value. Files of labels and statistics are loaded. `tokens` is the
        path of the file, see `read_tokens`.
    """
    statistics = options["statistics"]
    selected = options.select(InputOptions, VocabularyOptions, BatchOptions, ViewerOptions)
    return selected | {
        # Folders are searched by the viewer, which knows the samples that the model takes.
        "images": [
            file
            for image in images
            for file in ([Path(image)] if is_folder(image) else find_images(image))
        ],
        "labels": read_labels_option(options["labels"]),
        "statistics": None if statistics is None else DatasetStats.load(statistics),
    }
