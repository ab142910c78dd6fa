"""Many images: a model run batch by batch, a folder of files for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from actgrid.models import Extractor
from actgrid.pipeline.files import DrawnLayer, drawing_threads, folder_names, start_saving
from actgrid.rendering.layout import integer_option

__all__ = ["draw_images", "in_batches"]

Image = npt.NDArray[Any]
T = TypeVar("T")
# A file, where its pictures go, and the image; or what waits for those pictures.
Job = tuple[Path, Path, Image]
Saving = tuple[Path, Path, Callable[[], list[DrawnLayer]]]


def draw_images(
    extractor: Extractor,
    files: Sequence[Path],
    load: Callable[[Path], Image],
    output: Path,
    *,
    batch_size: int = 1,
    threads: int | None = None,
    **options: Any,
) -> Iterator[tuple[Path, Path, list[DrawnLayer]]]:
    """Draw and save the layers of image after image.

    While the model runs on a batch, the next one is loaded and the last one drawn and saved by
    threads. There are never the activations of more than two batches.

    Parameters
    ----------
    files
        The images.
    load
        Returns a file as a batch of one for the model; called in a thread of its own.
    output
        Where the folders of the images go.
    batch_size
        Images in one run of the model; those of different sizes never share one.
    threads
        At most this many draw and save; None: one for each processor.
    options
        Given to `start_saving`.

    Yields
    ------
    tuple
        File, folder and layers of each image, once all of its files are written. Where an image
        cannot be loaded, those before it are yielded before the error is raised.
    """
    batch_size = integer_option("batch_size", batch_size, 1)
    folders = [output / name for name in folder_names(files)]
    jobs = zip(files, folders, map(load, files), strict=True)
    batches = in_batches(jobs, batch_size)
    with ThreadPoolExecutor(1, "actgrid-load") as loader, drawing_threads(threads) as pool:
        saving: list[Saving] = []
        problem: Exception | None = None
        loading = loader.submit(next, batches, None)
        while True:
            last, saving = saving, []
            try:
                batch = loading.result()
                if batch:
                    loading = loader.submit(next, batches, None)
                    saving = _start(pool, extractor, batch, options)
            except Exception as error:
                batch, problem = None, error
            for file, folder, finish in last:
                yield file, folder, finish()
            if not batch:
                break
        if problem:
            raise problem


def _start(
    pool: ThreadPoolExecutor,
    extractor: Extractor,
    batch: list[Job],
    options: dict[str, Any],
) -> list[Saving]:
    """Run the model on a batch and let its images be drawn and saved."""
    activations = extractor(np.concatenate([image for _, _, image in batch]))
    return [
        (
            file,
            folder,
            start_saving(
                pool,
                folder,
                extractor.layers,
                activations,
                sample=sample,
                about={"image": file.name, "model": extractor.model.name},
                **options,
            ),
        )
        for sample, (file, folder, _) in enumerate(batch)
    ]


def in_batches(
    jobs: Iterator[tuple[Path, T, Image]], batch_size: int
) -> Iterator[list[tuple[Path, T, Image]]]:
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
