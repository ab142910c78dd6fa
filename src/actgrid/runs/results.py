"""Write the results of statistics: summary, sheets of top images, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from actgrid.errors import ModelError
from actgrid.figures.files import number_files
from actgrid.models import Extractor
from actgrid.models.receptive_fields import compute_receptive_fields
from actgrid.models.types import LayersLike
from actgrid.runs.run_spec import ImageLoader
from actgrid.runs.sources import Item, Items
from actgrid.runs.stores import Store
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.layer_stats import LayerStats
from actgrid.statistics.report import make_report
from actgrid.statistics.top_images import find_top_images

__all__ = ["REPORT", "SUMMARY", "TOP", "make_reloader", "write_results"]

SUMMARY, REPORT, TOP = "summary.json", "report.html", "top/"

Array = npt.NDArray[Any]


def write_results(
    store: Store,
    stats: DatasetStats,
    extractor: Extractor,
    layers: LayersLike,
    items: Items,
    loader: ImageLoader,
    *,
    channels: int | None = 8,
    drawing: Mapping[str, Any] | None = None,
) -> None:
    """Write ``summary.json``, ``top/NN_layer.png`` and ``report.html``.

    Parameters
    ----------
    store
        Store of the files.
    stats
        The statistics.
    extractor, layers, items, loader
        Those with which the statistics were measured; the top images are loaded again.
    channels
        Number of channels of each layer that are shown with their top images, see
        `find_top_images`; None: all.
    drawing
        Options of `actgrid.render` for the tiles of the channels.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    store.write(SUMMARY, orjson.dumps(stats.summary(), option=orjson.OPT_INDENT_2))
    if not stats.images:
        return
    model = extractor.model
    load = partial(loader.load_with_pixels, model)
    layer_stats = stats.layers  # each access copies
    try:
        x = _make_example_input(layer_stats, items, loader, model)
        fields = compute_receptive_fields(model, x, layers)
    except ModelError:
        fields = {}  # without receptive fields, whole images are shown
    top_images = find_top_images(
        extractor,
        stats,
        make_reloader(items, load),
        fields,
        channels=channels,
        **dict(drawing or {}),
    )
    files = number_files(list(top_images), ".png")
    for file, top in zip(files, top_images.values(), strict=True):
        store.write(TOP + file, top.sheet().to_png())
    about = f"{stats.images:,} images, {len(layer_stats):,} layers"
    store.write(REPORT, make_report(stats, model=model.name, about=about, top_images=top_images))


def _make_example_input(
    layer_stats: Mapping[str, LayerStats], items: Items, loader: ImageLoader, model: Any
) -> Array | None:
    """Return an array of the shape of an input that the model received in the run.

    If the size differs between images, the input is that of an image that is loaded again. None:
    the image cannot be loaded again.
    """
    if (spec := loader.input_spec(model)) is not None:
        return np.zeros((1, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
    index = max(int(layer.top_index.max()) for layer in layer_stats.values())
    image = make_reloader(items, partial(loader.load_with_pixels, model))(index)
    return None if image is None else image[1]


def make_reloader(
    items: Items, load: Callable[[Item], tuple[Array, Array]]
) -> Callable[[int], tuple[Array, Array] | None]:
    """Return a function that loads images again, by increasing index.

    A stream of images is iterated once. The function returns None for an image that is missing.
    """
    iterator: Iterator[Item] | None = None

    def reload(index: int) -> tuple[Array, Array] | None:
        nonlocal iterator
        if not items.is_repeatable:
            return None
        if items.are_files or iterator is None:
            iterator = items.start(index)
        for item in iterator:
            if item.index == index:
                try:
                    pixels, x = load(item)
                except Exception:
                    return None  # the file may have been removed
                return pixels[0], x
        return None

    return reload
