"""Explain many images in batches."""

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
from actgrid.option_checks import check_integer
from actgrid.rendering import Heatmap

__all__ = ["explain_images"]

Array = npt.NDArray[Any]
FileAndInput = tuple[Path, Array]


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
    """Compute attribution maps for image files with several methods, batch by batch.

    At most one batch of images is in memory.

    Parameters
    ----------
    model : keras.Model
        The model.
    files : sequence of pathlib.Path
        The image files.
    load : callable
        Loads a file as a batch (1, H, W, C) for the model, see `load_images`.
    methods : dict
        Attribution method -> its options, a dict.
    target : object
        The target of all images, see `actgrid.explain`; a list gives several targets for each
        image. None: the predicted class.
    layer : object
        The layer for methods that use a layer, see `actgrid.explain`; None: the default layer.
    labels : sequence of str, dict or None
        Class names, see `actgrid.explain`.
    batch_size : int
        Maximum number of images, or copies of images, in a batch. Images of different sizes are in
        different batches.
    photo_of : callable or None
        Loads a file as the photo under its maps; called once the maps are computed. None: the maps
        are drawn over the input.

    Yields
    ------
    tuple
        ``(file, heatmaps)``: the file, and for each method and target a Heatmap of one map.

    Examples
    --------
    >>> import keras
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from actgrid.attribution.methods import find_method
    >>> from actgrid.runs import explain_images
    >>> layers = [keras.layers.Conv2D(2, 3), keras.layers.GlobalAveragePooling2D()]
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    >>> Image.new("RGB", (8, 8)).save("image.png")
    >>> load = lambda file: actgrid.load_images(file, size=8, preprocess="unit")
    >>> methods = {find_method("saliency"): {}}
    >>> results = dict(explain_images(model, [Path("image.png")], load, methods, target=0))
    >>> results[Path("image.png")][0].values.shape
    (1, 8, 8)
    """
    batch_size = check_integer("batch_size", batch_size, 1)
    for batch in _group_batches(((file, load(file)) for file in files), batch_size):
        batch_files, inputs = zip(*batch, strict=True)
        request = prepare_request(
            model,
            np.concatenate(inputs),
            [target] * len(batch_files) if isinstance(target, list) else target,
            labels,
            batch_size=batch_size,
        )
        if len(methods) > 1:
            request = request.with_predicted_classes()
        results = [request.explain(method, layer, options) for method, options in methods.items()]
        target_count = len(results[0]) // len(batch_files)
        for index, file in enumerate(batch_files):
            rows = range(index * target_count, (index + 1) * target_count)
            heatmaps = [heatmap[row] for heatmap in results for row in rows]
            if photo_of is not None:
                photo = photo_of(file)
                heatmaps = [heatmap.replace_images(photo.pixels, photo.box) for heatmap in heatmaps]
            yield file, heatmaps


def _group_batches(pairs: Iterator[FileAndInput], batch_size: int) -> Iterator[list[FileAndInput]]:
    """Group consecutive images of equal shape into batches."""
    for _, group in groupby(pairs, key=lambda pair: pair[1].shape):
        while batch := list(islice(group, batch_size)):
            yield batch
