"""Descriptions of layers for JSON, and pictures of their channels and kernels."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from actgrid.encoding import encode_png
from actgrid.errors import ActgridError, OptionError
from actgrid.models import LayerInfo
from actgrid.models.drawing import (
    arrange_kernel_axes,
    choose_token_grid,
    draw_layer,
    draw_weight,
)
from actgrid.models.layers import Weight
from actgrid.models.network import is_editable
from actgrid.models.networks import get_network
from actgrid.option_checks import resolve_thread_count
from actgrid.rendering import ChannelStats, Grid, render
from actgrid.rendering.backends import load_backend
from actgrid.rendering.draw import lay_out_tiles
from actgrid.rendering.layout import choose_columns
from actgrid.rendering.normalize import Normalization
from actgrid.rendering.stats import reshape_stats
from actgrid.rendering.tiles import Tiling, tile
from actgrid.statistics import LayerStats
from actgrid.statistics.measurements import measure_image_stats
from actgrid.web.images import ImageStore

__all__ = [
    "TOP_CLASSES",
    "check_size",
    "compute_histograms",
    "describe_classes",
    "describe_dataset",
    "describe_layer",
    "describe_range",
    "draw_kernel",
    "draw_levels",
    "find_kernels",
    "rank_classes",
    "round_for_json",
    "summarize_layer",
]

Array = npt.NDArray[Any]

# Maximum size of a picture of levels; browsers cannot draw larger canvases.
_MAX_PIXELS = 1 << 24
_MAX_SIDE = 1 << 14
# Maximum size of a picture that a client requests with its own options.
_MAX_RENDERED_PIXELS = 1 << 26
# Maximum number of channels in a thumbnail.
_THUMBNAIL_CHANNELS = 16
_BINS = 32
# Number of values that are binned at a time.
_BLOCK_VALUES = 1 << 16
# Number of classes in a list of the classes with the highest scores.
TOP_CLASSES = 5
_DIGITS = 6
_STATISTICS = ("mean", "std", "min", "max", "zero_fraction")


@dataclass(frozen=True)
class _TileLayout:
    """Layout of tiles in a picture without padding, as the HTTP API describes it.

    Tile t is in row t // columns and column t % columns.

    Parameters
    ----------
    count
        Number of tiles.
    columns
        Number of tiles in a row.
    height, width
        Size of a tile in the picture, in pixels.
    slices
        Number of tiles of each channel.
    joined
        Whether the tiles are parts of one picture.
    step
        Distance of the sampled pixels of a tile: 2 keeps every second row and column.
    """

    count: int
    columns: int
    height: int
    width: int
    slices: int
    joined: bool
    step: int

    @classmethod
    def from_tiling(cls, tiling: Tiling) -> _TileLayout:
        channels, slices, height, width = tiling.tiles.shape
        count = channels * slices
        if tiling.is_joined and tiling.columns:
            columns = count
        else:
            columns = choose_columns(channels, height, slices * width, 0) * slices
        rows = -(-count // columns)

        def compute_size(step: int) -> tuple[int, int]:
            return rows * -(-height // step), columns * -(-width // step)

        step = 1
        while step < max(height, width) and (
            math.prod(compute_size(step)) > _MAX_PIXELS or max(compute_size(step)) > _MAX_SIDE
        ):
            step += 1
        tile_height, tile_width = -(-height // step), -(-width // step)
        return cls(count, columns, tile_height, tile_width, slices, tiling.is_joined, step)

    def select_pixels(self, grid: Grid, tiling: Tiling) -> npt.NDArray[np.uint8]:
        """Return every `step`-th pixel of each tile of a grid without padding."""
        if self.step == 1:
            return grid.levels
        height, width = tiling.tiles.shape[2:]
        rows, step = -(-self.count // self.columns), self.step
        cells = grid.levels.reshape(rows, height, self.columns, width)[:, ::step, :, ::step]
        return cells.reshape(rows * self.height, self.columns * self.width)


def describe_layer(info: LayerInfo, activation: Array) -> dict[str, Any]:
    """Return the channel statistics and the tile layout of a layer, for JSON."""
    stats = _measure_channels(info, activation)
    return {
        "path": info.path,
        "shape": list(activation.shape[1:]),
        "stats": {
            name: round_for_json(getattr(stats, name)) for name in (*_STATISTICS, "nonfinite")
        }
        | {"dead": _find_dead_channels(stats).tolist()},
        "tiles": asdict(_TileLayout.from_tiling(_make_tiling(info, activation))),
    }


def draw_levels(info: LayerInfo, activation: Array, normalize: Any, scope: str) -> bytes:
    """Return the tiles of a layer without padding as a grayscale PNG file."""
    tiling = _make_tiling(info, activation)
    layout = _TileLayout.from_tiling(tiling)
    grid = draw_layer(
        info,
        activation,
        normalize=normalize,
        scope=scope,
        # The page cuts a long sequence into strips by itself.
        columns=1 if tiling.is_sequence else layout.columns,
        padding=0,
    )
    return encode_png(layout.select_pixels(grid, tiling), threads=resolve_thread_count(None))


def describe_range(
    info: LayerInfo, activation: Array, normalization: Normalization, scope: str
) -> dict[str, Any]:
    """Return the values of the lowest and highest colour of a layer's tiles, for JSON."""
    tiling, backend, threads = _make_tiling(info, activation), load_backend("auto"), 1
    stats = backend.measure(tiling.tiles, threads)
    if tiling.is_joined:
        scope = "layer"
    mapping = normalization.compute_mapping(tiling.tiles, stats, scope, backend, threads)
    low, high = (values.ravel() for values in mapping.compute_range())
    if (low == low[0]).all() and (high == high[0]).all():
        low, high = low[:1], high[:1]
    low_meaning, high_meaning = normalization.describe_range()
    return {
        "low": round_for_json(low),
        "high": round_for_json(high),
        "low_meaning": low_meaning,
        "high_meaning": high_meaning,
    }


def draw_kernel(weight: Weight) -> tuple[dict[str, Any], bytes]:
    """Return a description of a kernel for JSON, and the bytes of a grayscale PNG.

    Gray level 128 of the picture stands for the value zero.
    """
    values = weight.variable.numpy()
    tiling = tile(arrange_kernel_axes(weight, values), kind="kernel")
    layout = _TileLayout.from_tiling(tiling)
    grid = draw_weight(weight, values, scope="layer", columns=layout.columns, padding=0)
    pooled = grid.stats.pool()
    description = {
        "path": weight.path,
        "shape": list(values.shape),
        "min": round_for_json(pooled.min)[0],
        "max": round_for_json(pooled.max)[0],
        "cmap": grid.cmap,
        "tiles": asdict(layout),
    }
    return description, encode_png(
        layout.select_pixels(grid, tiling), threads=resolve_thread_count(None)
    )


def describe_dataset(stats: LayerStats, images: ImageStore) -> dict[str, Any]:
    """Return the dataset statistics and top images of a layer's channels, for JSON.

    Parameters
    ----------
    stats
        Statistics of the layer over a dataset.
    images
        Images of the viewer, in which the top images are looked up by name.
    """
    names = stats.get_names()
    stored_images = {index: images.find_by_name(name) for index, name in names.items()}

    def describe_top_image(index: int, maximum: float | None) -> dict[str, Any]:
        image = stored_images[index]
        # Clients must not learn the folders of the server.
        name = PurePath(names[index]).name if image is None else image.name
        return {"name": name, "image": image and image.id, "maximum": maximum}

    return {
        "images": stats.images,
        **{
            name: round_for_json(getattr(stats, name))
            for name in (*_STATISTICS, "activating_images")
        },
        "dead": np.flatnonzero(stats.dead).tolist(),
        "top": [
            [
                describe_top_image(index, maximum)
                for index, maximum in zip(indices, round_for_json(maxima), strict=True)
                if index >= 0
            ]
            for indices, maxima in zip(stats.top_index.tolist(), stats.top_max, strict=True)
        ],
    }


def find_kernels(model: Any, infos: Sequence[LayerInfo]) -> dict[int, Weight]:
    """Return a dict: node index -> the kernel that produces the channels of the node."""
    kernels: dict[str, list[Weight]] = {}
    network = get_network(model)
    for weight in network.weights() if is_editable(network) else []:
        if weight.nodes and weight.variable.name.endswith("kernel"):
            kernels.setdefault(weight.nodes[-1].path, []).append(weight)
    node_kernels: dict[int, Weight] = {}
    for node, info in enumerate(infos):
        path = info.path if info.path in kernels else re.sub(r"(:\d+)?(\[.*\])?$", "", info.path)
        for weight in kernels.get(path, []):
            shape = tuple(weight.variable.shape)
            if 2 <= len(shape) <= 5:
                blank = np.broadcast_to(np.float32(0), shape)
                tiles = tile(arrange_kernel_axes(weight, blank), kind="kernel").tiles
                if tiles.shape[0] == info.channels:
                    node_kernels[node] = weight
                    break
    return node_kernels


def _make_tiling(info: LayerInfo, activation: Array) -> Tiling:
    token_grid = choose_token_grid(info)
    return tile(activation, kind=info.kind, data_format=info.data_format, token_grid=token_grid)


def _measure_channels(info: LayerInfo, activation: Array) -> ChannelStats:
    """Return the statistics of each channel of the first sample."""
    return reshape_stats(measure_image_stats(info, activation[:1], batch=1), -1)


def _find_dead_channels(stats: ChannelStats) -> npt.NDArray[np.intp]:
    """Return the indices of dead channels.

    A channel with a single value is always constant, and does not count as dead.
    """
    return np.flatnonzero(stats.dead) if stats.size > 1 else np.zeros(0, np.intp)


def summarize_layer(
    info: LayerInfo, activation: Array, cell: npt.NDArray[np.uint8]
) -> dict[str, Any] | None:
    """Return the summary of a layer for JSON, and draw its thumbnail into `cell`.

    Returns None if the layer cannot be drawn.
    """
    try:
        stats = _measure_channels(info, activation)
        grid = _draw_small_grid(info, activation, stats)
    except ActgridError:  # for example, an empty activation of a small image
        return None
    small = Image.fromarray(grid).resize(cell.shape[::-1], Image.Resampling.BOX)
    cell[:] = np.asarray(small)
    pooled = stats.pool()
    low, high, mean = round_for_json(np.concatenate([pooled.min, pooled.max, pooled.mean]))
    return {
        "dead": len(_find_dead_channels(stats)) if stats.size > 1 else None,
        "min": low,
        "max": high,
        "mean": mean,
        "nonfinite": int(stats.nonfinite.sum()),
    }


def _draw_small_grid(
    info: LayerInfo, activation: Array, stats: ChannelStats
) -> npt.NDArray[np.uint8]:
    """Return a grid of the 16 channels with the highest standard deviation."""
    token_grid = choose_token_grid(info)
    if info.kind == "dense" or (info.kind == "sequence" and token_grid is None):
        return draw_layer(info, activation, normalize="minmax", threads=1).levels
    order = np.argsort(np.where(np.isnan(stats.std), np.inf, -stats.std), kind="stable")[
        :_THUMBNAIL_CHANNELS
    ]
    options: dict[str, Any] = {
        "normalize": "minmax",
        "columns": math.ceil(math.sqrt(len(order))),
        "padding": 0,
        "order": order,
        "threads": 1,
        "data_format": info.data_format,
    }
    if info.kind == "volume":
        depth = 2 if info.data_format == "channels_first" else 1
        middle = activation.take(activation.shape[depth] // 2, depth)
        return render(middle, kind="image", **options).levels
    return draw_layer(info, activation, **options).levels


def rank_classes(scores: Array, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return the five classes with the highest scores, for JSON."""
    best = np.argsort(-scores.astype(np.float64), kind="stable")[:TOP_CLASSES]
    return describe_classes(scores, best.tolist(), labels)


def describe_classes(
    scores: Array, classes: Sequence[int], labels: Sequence[str] | None
) -> dict[str, Any]:
    """Return the names and scores of some classes in their order, for JSON."""
    values = scores.astype(np.float64)
    are_probabilities = bool((values >= 0).all()) and math.isclose(values.sum(), 1, abs_tol=1e-3)
    return {
        "kind": "probability" if are_probabilities else "score",
        "top": [
            {"index": index, "name": None if labels is None else labels[index], "value": value}
            for index, value in zip(classes, round_for_json(values[list(classes)]), strict=True)
        ],
    }


def compute_histograms(info: LayerInfo, activation: Array) -> dict[str, Any]:
    """Return a histogram of each channel between its minimum and maximum, for JSON.

    All units of a dense layer share one histogram.
    """
    values = activation[0]
    values = np.moveaxis(values, info.channel_axis - 1, -1)
    rows = values.reshape(-1, 1) if info.kind == "dense" else values.reshape(-1, values.shape[-1])
    stats = _measure_channels(info, activation)
    if info.kind == "dense":
        stats = stats.pool()
    has_finite = np.isfinite(stats.min)
    low, high = np.where(has_finite, stats.min, 0), np.where(has_finite, stats.max, 0)
    channels = rows.shape[1]
    counts = np.zeros(channels * _BINS, np.int64)
    # A block of rows that fits into the processor cache.
    block_rows = max(1, _BLOCK_VALUES // channels)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = np.where(high > low, _BINS / (high - low), 0)
        for start in range(0, len(rows), block_rows):
            block = rows[start : start + block_rows].astype(np.float64)
            finite = np.isfinite(block)
            block -= low
            block *= scale
            np.clip(block, 0, _BINS - 1, out=block)
            bins = block.astype(np.intp)
            bins += np.arange(channels) * _BINS
            counts += np.bincount(bins[finite], minlength=counts.size)
    return {
        "bins": _BINS,
        "low": round_for_json(np.where(has_finite, low, np.nan)),
        "high": round_for_json(np.where(has_finite, high, np.nan)),
        "counts": counts.reshape(channels, _BINS).tolist(),
    }


def check_size(info: LayerInfo, activation: Array, options: dict[str, Any]) -> None:
    """Raise OptionError if a picture with these options would have too many pixels."""
    tiling = tile(
        activation,
        kind=info.kind,
        data_format=info.data_format,
        token_grid=choose_token_grid(info, options["token_grid"]),
    )
    order = options["order"]
    channels = tiling.tiles.shape[0] if isinstance(order, str) else len(order)
    layout = lay_out_tiles(tiling, channels, options["columns"], options["padding"])
    pixels = layout.height * layout.width * options["zoom"] ** 2
    if pixels > _MAX_RENDERED_PIXELS:
        raise OptionError(
            f"the picture would have {pixels} pixels; the limit is {_MAX_RENDERED_PIXELS}: give "
            "another zoom, padding or columns"
        )


def round_for_json(values: Array) -> list[Any]:
    """Return an array as a list for JSON, rounded to 6 significant digits.

    NaN and infinities become None.

    Examples
    --------
    >>> round_for_json(np.array([2 / 3, np.nan]))
    [0.666667, None]
    """
    if values.dtype.kind in "iub":
        numbers: list[Any] = values.tolist()
        return numbers
    if values.ndim > 1:
        return [round_for_json(row) for row in values]
    return [
        float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None
        for number in values.astype(np.float64).tolist()
    ]
