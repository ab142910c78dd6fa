"""What there is to show of a layer: numbers for JSON, and levels for pictures."""

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
from actgrid.models.drawing import arrange_kernel_axes, draw_layer, draw_weight
from actgrid.models.layers import Weight, collect_weights
from actgrid.option_checks import resolve_thread_count
from actgrid.rendering import ChannelStats, Grid, render
from actgrid.rendering.draw import lay_out_tiles
from actgrid.rendering.layout import choose_columns
from actgrid.rendering.stats import reshape_stats
from actgrid.rendering.tiles import Tiling, tile
from actgrid.statistics import LayerStats
from actgrid.statistics.measurements import measure_image_stats
from actgrid.web.images import ImageStore

__all__ = [
    "check_size",
    "draw_kernel",
    "draw_levels",
    "draw_summary",
    "histograms",
    "kernels",
    "layer_facts",
    "measured_facts",
    "plain_numbers",
    "top_classes",
]

Array = npt.NDArray[Any]

# Of one picture: a browser draws no larger one.
_MOST_PIXELS = 1 << 24
_LONGEST_SIDE = 1 << 14
# Of one that is drawn on request for whoever wants it as a file.
_MOST_DRAWN = 1 << 26
# Channels in a thumbnail, at most.
_SHOWN = 16
_BINS = 32
# Values that are turned into numbers of bins at once.
_BLOCK = 1 << 16
_TOP = 5
_DIGITS = 6
_STATISTICS = ("mean", "std", "min", "max", "zero_fraction")


@dataclass(frozen=True)
class _Tiles:
    """How tiles are laid out in a picture: tile t at row t // columns, column t % columns.

    Attributes
    ----------
    count, columns
        Tiles, and how many are in a row.
    height, width
        Of a tile in the picture.
    slices
        Tiles of each channel.
    joined
        Whether they are parts of one picture.
    step
        Every so manieth pixel of a tile, down and right, is in the picture.
    """

    count: int
    columns: int
    height: int
    width: int
    slices: int
    joined: bool
    step: int

    @classmethod
    def of(cls, tiling: Tiling) -> _Tiles:
        channels, slices, height, width = tiling.tiles.shape
        count = channels * slices
        if tiling.is_joined and tiling.columns:
            columns = count
        else:
            columns = choose_columns(channels, height, slices * width, 0) * slices
        rows = -(-count // columns)

        def sides(step: int) -> tuple[int, int]:
            return rows * -(-height // step), columns * -(-width // step)

        step = 1
        while step < max(height, width) and (
            math.prod(sides(step)) > _MOST_PIXELS or max(sides(step)) > _LONGEST_SIDE
        ):
            step += 1
        high, wide = -(-height // step), -(-width // step)
        return cls(count, columns, high, wide, slices, tiling.is_joined, step)

    def picked(self, grid: Grid, tiling: Tiling) -> npt.NDArray[np.uint8]:
        """Return the levels of a grid of these tiles, drawn without padding, as they are shown."""
        if self.step == 1:
            return grid.levels
        height, width = tiling.tiles.shape[2:]
        rows, step = -(-self.count // self.columns), self.step
        cells = grid.levels.reshape(rows, height, self.columns, width)[:, ::step, :, ::step]
        return cells.reshape(rows * self.height, self.columns * self.width)


def layer_facts(info: LayerInfo, activation: Array) -> dict[str, Any]:
    """Return the statistics of each channel of a layer, and how its tiles are laid out."""
    stats = _stats(info, activation)
    return {
        "path": info.path,
        "shape": list(activation.shape[1:]),
        "stats": {name: plain_numbers(getattr(stats, name)) for name in (*_STATISTICS, "nonfinite")}
        | {"dead": _dead(stats).tolist()},
        "tiles": asdict(_Tiles.of(_tiling(info, activation))),
    }


def draw_levels(info: LayerInfo, activation: Array, normalize: Any, scope: str) -> bytes:
    """Return the levels of all tiles of a layer, without padding, in a grayscale PNG file."""
    tiling = _tiling(info, activation)
    tiles = _Tiles.of(tiling)
    grid = draw_layer(
        info,
        activation,
        normalize=normalize,
        scope=scope,
        columns=tiles.columns,
        padding=0,
    )
    return encode_png(tiles.picked(grid, tiling), threads=resolve_thread_count(None))


def draw_kernel(weight: Weight) -> tuple[dict[str, Any], bytes]:
    """Return what a kernel is, and its levels, zero in the middle, in a grayscale PNG file."""
    values = weight.variable.numpy()
    tiling = tile(arrange_kernel_axes(weight, values), kind="kernel")
    tiles = _Tiles.of(tiling)
    grid = draw_weight(weight, values, scope="layer", columns=tiles.columns, padding=0)
    pooled = grid.stats.pool()
    about = {
        "path": weight.path,
        "shape": list(values.shape),
        "min": plain_numbers(pooled.min)[0],
        "max": plain_numbers(pooled.max)[0],
        "cmap": grid.cmap,
        "tiles": asdict(tiles),
    }
    return about, encode_png(tiles.picked(grid, tiling), threads=resolve_thread_count(None))


def measured_facts(stats: LayerStats, images: ImageStore) -> dict[str, Any]:
    """Return the statistics of a layer's channels over many images, and those they like best."""
    names = stats.get_names()
    found = {index: images.find(name) for index, name in names.items()}

    def top_image(index: int, maximum: float | None) -> dict[str, Any]:
        image = found[index]
        # In what folders its files are is nobody else's business.
        name = PurePath(names[index]).name if image is None else image.name
        return {"name": name, "image": image and image.id, "maximum": maximum}

    return {
        "images": stats.images,
        **{
            name: plain_numbers(getattr(stats, name))
            for name in (*_STATISTICS, "activating_images")
        },
        "dead": np.flatnonzero(stats.dead).tolist(),
        "top": [
            [
                top_image(index, maximum)
                for index, maximum in zip(indices, plain_numbers(maxima), strict=True)
                if index >= 0
            ]
            for indices, maxima in zip(stats.top_index.tolist(), stats.top_max, strict=True)
        ],
    }


def kernels(model: Any, infos: Sequence[LayerInfo]) -> dict[int, Weight]:
    """Return the kernel of each node whose layer has one that makes its channels."""
    kernels: dict[str, list[Weight]] = {}
    for weight in collect_weights(model):
        if weight.nodes and weight.variable.name.endswith("kernel"):
            kernels.setdefault(weight.nodes[-1].path, []).append(weight)
    found: dict[int, Weight] = {}
    for node, info in enumerate(infos):
        path = info.path if info.path in kernels else re.sub(r"(:\d+)?(\[.*\])?$", "", info.path)
        for weight in kernels.get(path, []):
            shape = tuple(weight.variable.shape)
            if 2 <= len(shape) <= 5:
                blank = np.broadcast_to(np.float32(0), shape)
                made = tile(arrange_kernel_axes(weight, blank), kind="kernel").tiles.shape[0]
                if made == info.channels:
                    found[node] = weight
                    break
    return found


def _tiling(info: LayerInfo, activation: Array) -> Tiling:
    return tile(activation, kind=info.kind, data_format=info.data_format)


def _stats(info: LayerInfo, activation: Array) -> ChannelStats:
    """Return the statistics of each channel."""
    return reshape_stats(measure_image_stats(info, activation[:1], batch=1), -1)


def _dead(stats: ChannelStats) -> npt.NDArray[np.intp]:
    """Return the dead channels. One that has a single value could be nothing else, and is not."""
    return np.flatnonzero(stats.dead) if stats.size > 1 else np.zeros(0, np.intp)


def draw_summary(
    info: LayerInfo, activation: Array, cell: npt.NDArray[np.uint8]
) -> dict[str, Any] | None:
    """Return what there is to say of a layer in short, and draw its thumbnail."""
    try:
        stats = _stats(info, activation)
        grid = _small_grid(info, activation, stats)
    except ActgridError:  # as where a layer gives nothing for a small image
        return None
    small = Image.fromarray(grid).resize(cell.shape[::-1], Image.Resampling.BOX)
    cell[:] = np.asarray(small)
    pooled = stats.pool()
    low, high, mean = plain_numbers(np.concatenate([pooled.min, pooled.max, pooled.mean]))
    return {
        "dead": len(_dead(stats)) if stats.size > 1 else None,
        "min": low,
        "max": high,
        "mean": mean,
        "nonfinite": int(stats.nonfinite.sum()),
    }


def _small_grid(info: LayerInfo, activation: Array, stats: ChannelStats) -> npt.NDArray[np.uint8]:
    """Return the levels of a layer's channels that vary most, or of its one picture."""
    if info.kind in ("dense", "sequence"):
        return draw_layer(info, activation, normalize="minmax", threads=1).levels
    order = np.argsort(np.where(np.isnan(stats.std), np.inf, -stats.std), kind="stable")[:_SHOWN]
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


def top_classes(scores: Array, labels: Sequence[str] | None) -> dict[str, Any]:
    """Return the classes of the highest scores."""
    values = scores.astype(np.float64)
    shares = bool((values >= 0).all()) and math.isclose(values.sum(), 1, abs_tol=1e-3)
    best = np.argsort(-values, kind="stable")[:_TOP]
    return {
        "kind": "probability" if shares else "score",
        "top": [
            {"index": index, "name": None if labels is None else labels[index], "value": value}
            for index, value in zip(best.tolist(), plain_numbers(values[best]), strict=True)
        ],
    }


def histograms(info: LayerInfo, activation: Array) -> dict[str, Any]:
    """Return how many values of each channel are in each of equal bins of its range."""
    values = activation[0]
    if info.data_format == "channels_first":
        values = np.moveaxis(values, 0, -1)
    rows = values.reshape(-1, 1) if info.kind == "dense" else values.reshape(-1, values.shape[-1])
    stats = _stats(info, activation)
    if info.kind == "dense":
        stats = stats.pool()
    known = np.isfinite(stats.min)
    low, high = np.where(known, stats.min, 0), np.where(known, stats.max, 0)
    channels = rows.shape[1]
    counts = np.zeros(channels * _BINS, np.int64)
    # So few at once that they stay in the cache.
    block = max(1, _BLOCK // channels)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale = np.where(high > low, _BINS / (high - low), 0)
        for start in range(0, len(rows), block):
            part = rows[start : start + block].astype(np.float64)
            finite = np.isfinite(part)
            part -= low
            part *= scale
            np.clip(part, 0, _BINS - 1, out=part)
            bins = part.astype(np.intp)
            bins += np.arange(channels) * _BINS
            counts += np.bincount(bins[finite], minlength=counts.size)
    return {
        "bins": _BINS,
        "low": plain_numbers(np.where(known, low, np.nan)),
        "high": plain_numbers(np.where(known, high, np.nan)),
        "counts": counts.reshape(channels, _BINS).tolist(),
    }


def check_size(info: LayerInfo, activation: Array, options: dict[str, Any]) -> None:
    """Raise OptionError if a picture would be too large to be drawn for whoever asks."""
    token_grid = options["token_grid"] if info.kind == "sequence" else None
    tiling = tile(activation, kind=info.kind, data_format=info.data_format, token_grid=token_grid)
    order = options["order"]
    channels = tiling.tiles.shape[0] if isinstance(order, str) else len(order)
    layout = lay_out_tiles(tiling, channels, options["columns"], options["padding"])
    pixels = layout.height * layout.width * options["zoom"] ** 2
    if pixels > _MOST_DRAWN:
        raise OptionError(
            f"the picture would have {pixels} pixels; at most {_MOST_DRAWN} are drawn here: give "
            "another zoom, padding or columns"
        )


def plain_numbers(values: Array) -> list[Any]:
    """Return numbers for JSON, to 6 digits; None stands for NaN and infinities.

    Examples
    --------
    >>> plain_numbers(np.array([2 / 3, np.nan]))
    [0.666667, None]
    """
    if values.dtype.kind in "iub":
        listed: list[Any] = values.tolist()
        return listed
    if values.ndim > 1:
        return [plain_numbers(row) for row in values]
    return [
        float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None
        for number in values.astype(np.float64).tolist()
    ]
