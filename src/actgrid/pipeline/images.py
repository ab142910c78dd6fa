"""Many images: a model run batch by batch, a folder of files for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.models import Extractor
from actgrid.pipeline.files import DrawnLayer, folder_names, save_layers
from actgrid.rendering.layout import integer_option

__all__ = ["draw_images"]

Image = npt.NDArray[Any]


def draw_images(
    extractor: Extractor,
    files: Sequence[Path],
    load: Callable[[Path], Image],
    output: Path,
    *,
    batch_size: int = 1,
    **options: Any,
) -> Iterator[tuple[Path, Path, list[DrawnLayer]]]:
    """Draw and save the layers of image after image.

    Parameters
    ----------
    files
        The images.
    load
        Returns a file as a batch of one for the model.
    output
        Where the folders of the images go.
    batch_size
        Images in one run of the model; those of different sizes never share one.
    options
        Given to `save_layers`.

    Yields
    ------
    tuple
        File, folder and layers of each image, once all of its files are written.
    """
    batch_size = integer_option("batch_size", batch_size, 1)
    folders = [output / name for name in folder_names(files)]
    jobs = zip(files, folders, map(load, files), strict=True)
    for batch in _batches(jobs, batch_size):
        activations = extractor(np.concatenate([image for _, _, image in batch]))
        for sample, (file, folder, _) in enumerate(batch):
            about = {"image": file.name, "model": extractor.model.name}
            yield (
                file,
                folder,
                save_layers(
                    folder, extractor.layers, activations, sample=sample, about=about, **options
                ),
            )


def _batches(
    jobs: Iterator[tuple[Path, Path, Image]], batch_size: int
) -> Iterator[list[tuple[Path, Path, Image]]]:
    """Group jobs that follow each other and whose images have one shape."""
    for _, alike in groupby(jobs, key=lambda job: job[2].shape):
        batch = []
        for job in alike:
            batch.append(job)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
