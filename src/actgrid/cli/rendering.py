"""What `actgrid render` does, less the printing."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from actgrid.models import Extractor, load_images
from actgrid.models.frameworks import keras
from actgrid.pipeline import DrawnLayer, folder_names, save_layers
from actgrid.rendering.layout import integer_option

__all__ = ["draw_images"]


def draw_images(
    model: Any,
    files: list[Path],
    output: Path,
    *,
    layers: list[str] | None,
    preprocess: str,
    size: tuple[int, int] | None,
    fit: str,
    batch_size: int,
    **options: Any,
) -> Iterator[tuple[Path, Path, list[DrawnLayer]]]:
    """Draw images one batch after the other; yield each one's file, folder and layers."""
    batch_size = integer_option("batch_size", batch_size, 1)
    extractor = Extractor(model, None if layers is None else [_selector(name) for name in layers])
    folders = [output / name for name in folder_names(files)]
    images = (load_images(file, size, preprocess, model=model, fit=fit) for file in files)
    jobs = zip(files, folders, images, strict=True)
    for batch in _batches(jobs, batch_size):
        activations = extractor(np.concatenate([image for _, _, image in batch]))
        for sample, (file, folder, _) in enumerate(batch):
            drawn = save_layers(
                folder,
                extractor.layers,
                activations,
                sample=sample,
                about={"image": file.name, "model": model.name},
                **options,
            )
            yield file, folder, drawn


def _batches(jobs: Iterator[Any], batch_size: int) -> Iterator[list[Any]]:
    """Group jobs that follow each other and whose images have one shape."""
    for _, alike in groupby(jobs, key=lambda job: job[2].shape):
        batch: list[Any] = []
        for job in alike:
            batch.append(job)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch


def _selector(name: str) -> Any:
    """Return an index, a Keras layer class, or the layer path or glob itself."""
    if name.lstrip("-").isdigit():
        return int(name)
    known = getattr(keras().layers, name, None)
    return known if isinstance(known, type) else name
