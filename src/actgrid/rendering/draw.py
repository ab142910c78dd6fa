"""Render activations as grids of tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt

from actgrid.encoding import make_blank_levels
from actgrid.errors import OptionError
from actgrid.option_checks import resolve_thread_count
from actgrid.option_groups import takes_options
from actgrid.options import RenderArrayOptions
from actgrid.rendering.backends import Backend, DrawTask, load_backend
from actgrid.rendering.folding import choose_strips
from actgrid.rendering.grid import Grid
from actgrid.rendering.layout import Layout, choose_columns
from actgrid.rendering.normalize import Normalization, parse_normalize
from actgrid.rendering.stats import ChannelStats, reshape_stats
from actgrid.rendering.tiles import Tiling, as_array, tile

__all__ = ["ORDERS", "RELEVANCE", "render", "render_arrays", "sort_channels"]

# Orders of channels, and the statistic to sort by (largest first); None for the index.
ORDERS = {"index": None, "mean": "mean", "std": "std", "max": "max", "zeros": "zero_fraction"}
# Order of channels by their contribution to a score, which needs the model.
RELEVANCE = "relevance"


@takes_options(RenderArrayOptions)
def render(activations: npt.ArrayLike, **options: Unpack[RenderArrayOptions]) -> Grid:
    """Render every channel of an activation as one tile of a picture.

    Parameters
    ----------
    activations : array_like
        A layer's output, of dtype float16, bfloat16, float32, float64, integer or bool and with any
        strides. It is not modified, and only kernels of 3-D convolutions are copied. The shapes
        below are supported.

        ==========================  ====================================================
        (N, H, W, C), (H, W, C)     C tiles of H x W
        (N, D, H, W, C)             C x D tiles, a row of D for each channel
        (N, C), (C,)                one picture of C values, folded near to square
        (N, T, C)                   with ``kind="sequence"``: one picture, T x C, with steps
                                    from top to bottom, see Notes; with `token_grid`: C tiles
        (N, heads, T, S)            with ``kind="attention"``: a tile for each head, with T
                                    queries as rows and S keys as columns
        (N, T, heads, C)            with ``kind="heads"``: a tile of T x C for each head
        (kh, kw, Cin, Cout)         with ``kind="kernel"``: a row of Cin tiles for each
                                    output channel; with one input channel: Cout tiles
        (kd, kh, kw, Cin, Cout)     with ``kind="kernel"``: a row of Cin x kd tiles for each
                                    output channel
        (kw, Cin, Cout)             with ``kind="kernel"``: Cout tiles of kw x Cin
        (Cin, Cout)                 with ``kind="kernel"``: one picture, Cin x Cout; also
                                    if each side of the kernel is 1
        (C,)                        with ``kind="kernel"``: a bias, like a dense layer
        ==========================  ====================================================

        N is the batch size, of which the option `sample` selects one sample.
    **options
        See `actgrid.options.RenderArrayOptions`.

    Returns
    -------
    Grid
        The picture and its statistics. NaN is drawn as level 0, +inf as 255, -inf as 0. A constant
        channel is drawn in one level.

    Raises
    ------
    OptionError, ShapeError
        If an option or the shape of the array is invalid. Both are ValueErrors.
    DtypeError
        If the array does not hold real numbers. Also a TypeError.
    BackendError
        If the backend is not available. Also an ImportError.

    Notes
    -----
    `normalize` maps values to levels 0 to 255:

    ``"standard"``
        (x - mean) / std * 64 + 128, as in Chollet (2017), section 5.4.1.
    ``"minmax"``
        The smallest value is level 0, the largest is 255.
    ``"symmetric"``
        Zero is the middle level: for signed values with a diverging colormap.
    ``"percentile(lo, hi)"``
        Like minmax, between two percentiles; 1 and 99 by default.
    ``"range(lo, hi)"``
        Like minmax, between two given values.

    The limits may also be given in a tuple: ``("range", 0, 6)``. The picture does not depend on
    `threads`.

    A sequence with a side of more than 512 pixels is cut into strips, for a picture near to square:
    12,000 steps of 32 channels become 19 strips of 632 steps, side by side. `columns` is then the
    number of strips; 1 leaves the picture in one piece. A picture of more than 4,194,304 pixels is
    pooled along time, unless `columns` is given: a pixel shows the level of several steps that is
    farthest from the mean level. `Grid.note` says how the picture was folded and pooled.

    References
    ----------
    Chollet, 2017, Deep Learning with Python, Manning.

    Examples
    --------
    >>> activations = np.random.rand(1, 56, 56, 64).astype("float32")
    >>> grid = actgrid.render(activations, columns=16, cmap="gray")
    >>> grid.levels.shape
    (227, 911)
    """
    (grid,) = render_arrays([(activations, {})], options)
    return grid


def render_arrays(
    requests: Iterable[tuple[npt.ArrayLike, Mapping[str, Any]]], options: Mapping[str, Any]
) -> list[Grid]:
    """Render several activations with common options.

    A backend that can draw several activations at once does so in one call, which takes much less
    time than a call for each of many small activations.

    Parameters
    ----------
    requests
        Activations, each with the options of `actgrid.render` that differ from `options`:
        `kind`, `sample`, `data_format` or `token_grid`.
    options
        All options of `actgrid.render`, checked.

    Returns
    -------
    list of Grid
        A grid for each activation, as `actgrid.render` draws it.
    """
    backend, threads = load_backend(options["backend"]), resolve_thread_count(options["threads"])
    normalization = parse_normalize(options["normalize"])
    drawings = [_Drawing.prepare(as_array(array), {**options, **own}) for array, own in requests]
    draw_at_once = getattr(backend, "draw", None)
    if draw_at_once is not None and normalization.name != "percentile":
        batch = [drawing for drawing in drawings if drawing.is_independent]
        results = draw_at_once([drawing.lay_out() for drawing in batch], normalization, threads)
        for drawing, stats in zip(batch, results, strict=True):
            drawing.stats = stats
    for drawing in drawings:
        if drawing.stats is None:
            drawing.draw(backend, normalization, threads)
    return [drawing.make_grid() for drawing in drawings]


@dataclass
class _Drawing:
    """State of the drawing of one activation.

    Attributes
    ----------
    channels
        Channels to draw, in order; None while their order depends on statistics.
    scope
        ``"channel"`` or ``"layer"``.
    stats
        Statistics of the tiles, once they are drawn.
    layout, canvas
        Positions of the tiles, and the picture, once they are laid out.
    """

    tiling: Tiling
    options: Mapping[str, Any]
    channels: npt.NDArray[np.intp] | None
    scope: str
    stats: ChannelStats | None = None
    layout: Layout | None = None
    canvas: npt.NDArray[np.uint8] | None = None

    @classmethod
    def prepare(cls, array: npt.NDArray[Any], options: Mapping[str, Any]) -> _Drawing:
        tiling = tile(
            array,
            kind=options["kind"],
            sample=options["sample"],
            data_format=options["data_format"],
            token_grid=options["token_grid"],
        )
        order = options["order"]
        channels: npt.NDArray[np.intp] | None
        if isinstance(order, str):
            if order == RELEVANCE:
                raise OptionError(
                    "order='relevance' needs a model and its input: got an array; use "
                    "actgrid.render_model, or pass a sequence of channels as order"
                )
            channels = None if ORDERS[order] else np.arange(tiling.tiles.shape[0])
        else:
            channels = np.array(order, np.intp)
            check_channels(channels, tiling.tiles.shape[0])
        return cls(tiling, options, channels, "layer" if tiling.is_joined else options["scope"])

    @property
    def is_independent(self) -> bool:
        """True if each tile is drawn by its own statistics, in an order that is known."""
        return self.scope == "channel" and self.channels is not None

    def lay_out(self) -> DrawTask:
        """Choose the positions of the tiles, and create the canvas."""
        assert self.channels is not None
        tiles = self.tiling.tiles
        self.layout = lay_out_tiles(
            self.tiling, self.channels.size, self.options["columns"], self.options["padding"]
        )
        self.canvas = self.layout.make_canvas(self.options["background"])
        origins = self.layout.compute_origins().reshape(-1, tiles.shape[1])
        if self.options["order"] != "index":
            drawn_origins, origins = origins, np.full(tiles.shape[:2], -1, np.int64)
            origins[self.channels] = drawn_origins
        return DrawTask(tiles, origins, self.canvas)

    def draw(self, backend: Backend, normalization: Normalization, threads: int) -> None:
        """Measure, map and paint the tiles."""
        tiles = self.tiling.tiles
        stats = backend.measure(tiles, threads)
        if self.channels is None:
            statistic = str(ORDERS[self.options["order"]])
            self.channels = sort_channels(getattr(self._pool_slices(stats), statistic))
        task = self.lay_out()
        mapping = normalization.compute_mapping(tiles, stats, self.scope, backend, threads)
        backend.paint(tiles, mapping, task.origin, task.canvas, threads)
        self.stats = stats

    def make_grid(self) -> Grid:
        """Return the drawn grid."""
        assert self.stats is not None
        assert self.channels is not None
        assert self.layout is not None
        assert self.canvas is not None
        has_single_values = self.tiling.has_single_values
        stats = self.stats.pool() if has_single_values else self._pool_slices(self.stats)
        return make_grid(
            self.canvas,
            reshape_stats(stats, -1),
            self.channels,
            self.tiling,
            self.layout,
            self.options,
        )

    def _pool_slices(self, stats: ChannelStats) -> ChannelStats:
        slices = self.tiling.tiles.shape[1]
        return reshape_stats(stats.pool(1) if slices > 1 else stats, -1)


def make_grid(
    canvas: npt.NDArray[np.uint8],
    stats: ChannelStats,
    channels: npt.NDArray[np.intp],
    tiling: Tiling,
    layout: Layout,
    options: Mapping[str, Any],
) -> Grid:
    """Create a grid from the drawn tiles: fold the picture of a long sequence, and enlarge it.

    Parameters
    ----------
    canvas
        The drawn tiles.
    stats
        Statistics of each channel.
    channels
        Indices of the drawn channels, in order.
    tiling, layout
        The tiles of the activation, and their positions on the canvas.
    options
        Options of `actgrid.render`, of which `background`, `cmap`, `columns`, `padding` and `zoom`
        are used.

    Returns
    -------
    Grid
        The grid.
    """
    fold = None
    if tiling.is_sequence:
        steps, count = canvas.shape
        fold = choose_strips(steps, count, options["padding"], options["columns"])
    if fold is not None:
        canvas = fold.fold(canvas, options["background"])
    zoom = options["zoom"]
    parts = np.repeat(channels, tiling.tiles.shape[1])
    return Grid(zoom_canvas(canvas, zoom), stats, parts, options["cmap"], layout, zoom, fold)


def zoom_canvas(canvas: npt.NDArray[np.uint8], zoom: int) -> npt.NDArray[np.uint8]:
    """Enlarge a picture by repeating each pixel `zoom` times in both directions."""
    if zoom == 1:
        return canvas
    zoomed = make_blank_levels(*(side * zoom for side in canvas.shape))
    zoomed[:] = canvas.repeat(zoom, 0).repeat(zoom, 1)
    return zoomed


def lay_out_tiles(tiling: Tiling, channels: int, columns: int | None, padding: int) -> Layout:
    """Return the layout of a grid for a number of channels.

    Parameters
    ----------
    tiling
        The activation as tiles, with rules for their layout.
    channels
        Number of channels to draw.
    columns
        Number of columns. None: chosen by the rules, or for a nearly square grid.
    padding
        Pixels between tiles.

    Returns
    -------
    Layout
        Positions of the tiles.
    """
    _, slices, height, width = tiling.tiles.shape
    count = channels * slices
    if tiling.is_joined:
        padding = 0
    if tiling.is_joined and tiling.columns:
        columns = count  # the picture is cut into strips afterwards, if it is long
    elif columns is None:
        columns = tiling.columns or choose_columns(count, height, width, padding)
    return Layout(count, height, width, min(columns, count), padding)


def sort_channels(keys: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the indices of channels sorted by a number of each channel, largest first.

    Channels without a number (NaN) come last. Channels of equal numbers stay in index order.
    """
    return np.argsort(np.where(np.isnan(keys), np.inf, -keys), kind="stable")


def check_channels(channels: npt.NDArray[np.intp], count: int) -> None:
    """Raise OptionError unless channel indices are distinct and below `count`."""
    outside = channels[(channels < 0) | (channels >= count)]
    if outside.size:
        raise OptionError(f"order names channel {outside[0]}, but there are {count} channels")
    if np.unique(channels).size != channels.size:
        raise OptionError("order names a channel twice; expected distinct channels")
