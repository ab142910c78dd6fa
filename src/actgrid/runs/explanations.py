"""Explain many images in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy.typing as npt

from actgrid.attribution.method import Method
from actgrid.attribution.requests import Labels, prepare_request
from actgrid.models.images import Photo
from actgrid.models.inputs import get_batch_shape, join_batches
from actgrid.models.types import LayerLike, TargetLike
from actgrid.option_checks import check_integer
from actgrid.rendering import Attribution, Heatmap

__all__ = ["explain_images"]

Array = npt.NDArray[Any]
FileAndInput = tuple[Path, Any]


def explain_images(
    model: Any,
    files: Sequence[Path],
    load: Callable[[Path], Any],
    methods: Mapping[Method, Mapping[str, Any]],
    target: TargetLike = None,
    layer: LayerLike | None = None,
    *,
    labels: Labels = None,
    batch_size: int = 32,
    photo_of: Callable[[Path], Photo] | None = None,
    inputs: Any = None,
    embedding: Any = None,
    tokens: Any = None,
) -> Iterator[tuple[Path, list[Attribution]]]:
    """Compute attribution maps for files with several methods, batch by batch.

    At most one batch of samples is in memory.

    Parameters
    ----------
    model : keras.Model
        The model.
    files : sequence of pathlib.Path
        The files, or other names of the samples.
    load : callable
        Loads a file as a batch of one sample for the model, see `load_images`: an array, or a dict
        of arrays by input name.
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
    inputs, embedding, tokens : object
        The explained inputs and their tokens, see `actgrid.explain`.

    Yields
    ------
    tuple
        ``(file, attributions)``: the file, and for each method and target an attribution of one
        map, such as a Heatmap; for several inputs one after another.

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
        batch_files, samples = zip(*batch, strict=True)
        request = prepare_request(
            model,
            join_batches(samples),
            [target] * len(batch_files) if isinstance(target, list) else target,
            labels,
            batch_size=batch_size,
            inputs=inputs,
            embedding=embedding,
            tokens=tokens,
            has_batch_axis=True,
        )
        if len(methods) > 1:
            request = request.with_predicted_classes()
        results = [
            attribution
            for method, options in methods.items()
            for attribution in request.explain_all(method, layer, options)
        ]
        target_count = len(results[0]) // len(batch_files)
        for index, file in enumerate(batch_files):
            rows = range(index * target_count, (index + 1) * target_count)
            attributions = [attribution[row] for attribution in results for row in rows]
            if photo_of is not None:
                photo = photo_of(file)
                attributions = [
                    attribution.replace_images(photo.pixels, photo.box)
                    if isinstance(attribution, Heatmap)
                    else attribution
                    for attribution in attributions
                ]
            yield file, attributions


def _group_batches(pairs: Iterator[FileAndInput], batch_size: int) -> Iterator[list[FileAndInput]]:
    """Group consecutive samples of equal shape into batches."""
    for _, group in groupby(pairs, key=lambda pair: get_batch_shape(pair[1])):
        while batch := list(islice(group, batch_size)):
            yield batch
