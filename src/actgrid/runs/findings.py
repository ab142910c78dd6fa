"""What is made of statistics over many images: a summary, sheets of images, a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from actgrid.errors import ModelError
from actgrid.figures.files import numbered_files
from actgrid.models import Extractor
from actgrid.models.receptive_fields import receptive_fields
from actgrid.models.types import LayersLike
from actgrid.runs.jobs import Loading
from actgrid.runs.sources import Item, Items
from actgrid.runs.stores import Store
from actgrid.statistics.dataset import DatasetStats
from actgrid.statistics.layer_stats import LayerStats
from actgrid.statistics.report import make_report
from actgrid.statistics.top_images import find_top_images

__all__ = ["REPORT", "SUMMARY", "TOP", "write_findings"]

SUMMARY, REPORT, TOP = "summary.json", "report.html", "top/"

Array = npt.NDArray[Any]


def write_findings(
    store: Store,
    stats: DatasetStats,
    extractor: Extractor,
    layers: LayersLike,
    items: Items,
    loading: Loading,
    *,
    channels: int | None = 8,
    drawing: Mapping[str, Any] | None = None,
) -> None:
    """Write ``summary.json``, ``top/NN_layer.png`` and ``report.html``.

    Parameters
    ----------
    store
        Where.
    stats
        The statistics.
    extractor, layers, items, loading
        What they were taken by and of: the top images are loaded again.
    channels
        How many channels of each layer are shown with their top images, see `find_top_images`.
    drawing
        Options of `actgrid.render` for the channels' tiles.

    Raises
    ------
    OutputError
        If something cannot be written.
    """
    store.write(SUMMARY, orjson.dumps(stats.summary(), option=orjson.OPT_INDENT_2))
    if not stats.images:
        return
    model = extractor.model
    load = partial(loading.load_with_pixels, model)
    known = stats.layers  # a copy, of every channel
    try:
        fields = receptive_fields(model, _an_input(known, items, loading, model), layers)
    except ModelError:
        fields = {}  # of an input that is not known: whole images are shown
    found = find_top_images(
        extractor, stats, _again(items, load), fields, channels=channels, **dict(drawing or {})
    )
    for file, top in zip(numbered_files(list(found), ".png"), found.values(), strict=True):
        store.write(TOP + file, top.sheet().to_png())
    about = f"{stats.images:,} images, {len(known):,} layers"
    store.write(REPORT, make_report(stats, model=model.name, about=about, top_images=found))


def _an_input(
    known: Mapping[str, LayerStats], items: Items, loading: Loading, model: Any
) -> Array | None:
    """Return an input of the size that the model was given, None if there is none to be had."""
    if (spec := loading.spec(model)) is not None:
        return np.zeros((1, *spec.shape[1:]), spec.dtype.as_numpy_dtype)
    some = max(int(layer.top_index.max()) for layer in known.values())
    image = _again(items, partial(loading.load_with_pixels, model))(some)
    return None if image is None else image[1]


def _again(
    items: Items, load: Callable[[Item], tuple[Array, Array]]
) -> Callable[[int], tuple[Array, Array] | None]:
    """Return what loads images once more, by indices that only rise: a stream is passed once."""
    following: Iterator[Item] | None = None

    def again(index: int) -> tuple[Array, Array] | None:
        nonlocal following
        if not items.repeatable:
            return None
        if items.files or following is None:
            following = items.start(index)
        for item in following:
            if item.index == index:
                try:
                    pixels, x = load(item)
                except Exception:
                    return None  # it is not there any more
                return pixels[0], x
        return None

    return again
