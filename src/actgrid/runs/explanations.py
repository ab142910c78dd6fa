"""Many images explained, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.method import Method
from actgrid.attribution.requests import Labels, prepare_request
from actgrid.models.images import Photo
from actgrid.models.types import LayerLike, TargetLike
from actgrid.option_checks import integer_option
from actgrid.rendering import Heatmap

__all__ = ["explain_images"]

Array = npt.NDArray[Any]
Job = tuple[Path, Array]


def explain_images(
    model: Any,
    files: Sequence[Path],
    load: Callable[[Path], npt.NDArray[Any]],
    methods: Mapping[Method, Mapping[str, Any]],
    target: TargetLike = None,
    layer: LayerLike | None = None,
    *,
    labels: Labels = None,
    batch_size: int = 32,
    photo_of: Callable[[Path], Photo] | None = None,
) -> Iterator[tuple[Path, list[Heatmap]]]:
    """Explain image after image; there are never more than a batch of them.

    Parameters
    ----------
    files
        The images.
    load
        Returns a file as a batch of one for the model, see `load_images`.
    methods
        Each with its options.
    target, layer, labels
        As in `actgrid.explain`; the layer is for methods that look at one. `target` is the same
        for all images: a list has several targets for each image.
    batch_size
        Images, or copies of them, in one run of the model; those of different sizes never share
        one.
    photo_of
        Returns a file as the photo that its maps are drawn over, once they are there, so that
        there is never more than one photo in its own size. None: maps lie over the input.

    Yields
    ------
    tuple
        The file, and by each method a heatmap of one map for each target.
    """
    batch_size = integer_option("batch_size", batch_size, 1)
    for jobs in _in_batches(((file, load(file)) for file in files), batch_size):
        names, inputs = zip(*jobs, strict=True)
        request = prepare_request(
            model,
            np.concatenate(inputs),
            [target] * len(names) if isinstance(target, list) else target,
            labels,
            batch_size=batch_size,
        )
        if len(methods) > 1:
            request = request.with_predicted_classes()
        found = [request.explain(method, layer, options) for method, options in methods.items()]
        count = len(found[0]) // len(names)  # of targets
        for index, file in enumerate(names):
            rows = range(index * count, (index + 1) * count)
            heatmaps = [heatmap[row] for heatmap in found for row in rows]
            if photo_of is not None:
                photo = photo_of(file)
                heatmaps = [heatmap.over(photo.pixels, photo.box) for heatmap in heatmaps]
            yield file, heatmaps


def _in_batches(jobs: Iterator[Job], batch_size: int) -> Iterator[list[Job]]:
    """Group images that follow each other and have one shape."""
    for _, alike in groupby(jobs, key=lambda job: job[1].shape):
        while batch := list(islice(alike, batch_size)):
            yield batch
