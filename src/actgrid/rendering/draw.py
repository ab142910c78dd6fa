"""`actgrid.render`: measure, map, paint."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.encoding import blank_levels
from actgrid.errors import OptionError, suggest
from actgrid.option_types import integer_option, thread_count
from actgrid.rendering.backends import Backend, load_backend
from actgrid.rendering.colormaps import palette
from actgrid.rendering.grid import Grid
from actgrid.rendering.layout import MAX_PADDING, MAX_ZOOM, Layout, level_option, near_square
from actgrid.rendering.normalize import SCOPES, Normalization, parse_normalize
from actgrid.rendering.stats import ChannelStats
from actgrid.rendering.tiles import Tiling, as_array, tile

__all__ = ["ORDERS", "SIGNED", "check_options", "render"]

# How what has a sign is best drawn: zero in the middle of a diverging colormap, and the colour of
# that where there is no tile.
SIGNED: dict[str, Any] = {"normalize": "symmetric", "cmap": "RdBu_r", "background": 128}

# What channels can be sorted by: their index, or a statistic, the largest first.
ORDERS = {"index": None, "mean": "mean", "std": "std", "max": "max", "zeros": "zero_fraction"}


def render(
    activations: object,
    *,
    sample: int = 0,
    normalize: object = "standard",
    scope: str = "channel",
    columns: int | None = None,
    padding: int = 1,
    zoom: int = 1,
    background: int = 0,
    order: str | Iterable[int] = "index",
    data_format: str = "channels_last",
    cmap: str = "viridis",
    backend: str = "auto",
    threads: int | None = None,
    kind: str | None = None,
    token_grid: tuple[int, int] | None = None,
) -> Grid:
    """Draw every channel of an activation as one tile of a picture.

    Parameters
    ----------
    activations
        A layer's output, or anything that NumPy can take as an array: float16, bfloat16,
        float32, float64, integers or bool, of any strides. It is not changed, and none but the
        kernels of 3-D convolutions is copied.

        ==========================  ====================================================
        (N, H, W, C), (H, W, C)     C tiles of H x W
        (N, D, H, W, C)             C x D tiles, a row of D for each channel
        (N, C), (C,)                one picture, its C values folded near to square
        (N, T, C)                   with ``kind="sequence"``: one picture, T x C; with
                                    `token_grid`: C tiles
        (kh, kw, Cin, Cout)         with ``kind="kernel"``: a row of Cin tiles for each
                                    output channel; of one input channel: Cout tiles
        (kd, kh, kw, Cin, Cout)     with ``kind="kernel"``: a row of Cin x kd tiles for each
                                    output channel
        (kw, Cin, Cout)             with ``kind="kernel"``: Cout tiles of kw x Cin
        (Cin, Cout)                 with ``kind="kernel"``: one picture, Cin x Cout; likewise
                                    where each side of the kernel is 1
        (C,)                        with ``kind="kernel"``: a bias, like a dense layer
        ==========================  ====================================================
    sample
        Which of the N.
    normalize
        How values become levels 0 to 255:

        ``"standard"``
            (x - mean) / std * 64 + 128, as the textbook does (Chollet, *Deep Learning with
            Python*, 2017, section 5.4.1).
        ``"minmax"``
            The smallest value is level 0, the largest 255.
        ``"symmetric"``
            Zero is the middle level: for signed values, with a diverging colormap.
        ``"percentile(lo, hi)"``
            Like minmax between two percentiles, 1 and 99 unless given.
        ``"range(lo, hi)"``
            Like minmax between two values.

        The numbers may also be given in a tuple: ``("range", 0, 6)``.
    scope
        ``"channel"``: each tile is mapped by its own statistics; ``"layer"``: all by those of all
        their values.
    columns
        Tiles in a row; None: as many as bring the picture nearest to square, or one row for each
        channel where it has several tiles. A sequence's one picture is never cut.
    padding
        Pixels between tiles, before zooming.
    zoom
        How often each pixel of the picture is repeated in either direction.
    background
        Level of the padding and of unused cells.
    order
        ``"index"``; ``"mean"``, ``"std"``, ``"max"`` or ``"zeros"`` (largest first); or the
        channels to draw, in this order.
    data_format
        ``"channels_last"``, or ``"channels_first"``: (N, C, H, W).
    cmap
        Name of a colormap of matplotlib's or of the package cmap.
    backend
        ``"native"``, ``"numba"``, ``"numpy"``, or ``"auto"``: the first of these that is there.
        `actgrid.render_model` has one more.
    threads
        At most this many threads; None: one for each processor. The picture does not depend on it.
    kind
        What the array is, where its rank does not tell: ``"image"``, ``"volume"``,
        ``"sequence"``, ``"dense"`` or ``"kernel"``.
    token_grid
        (h, w): draw (N, T, C) as C tiles of h x w tokens; leading class and register tokens are
        skipped.

    Returns
    -------
    Grid
        The picture and its statistics. NaN is drawn as level 0, +inf as 255, -inf as 0, a
        constant channel flat.

    Raises
    ------
    OptionError, ShapeError
        If an option or the array's shape cannot be used. Both are ValueErrors.
    DtypeError
        If the array is not of real numbers. Also a TypeError.
    BackendError
        If the backend is not there. Also an ImportError.

    Examples
    --------
    >>> activations = np.random.rand(1, 56, 56, 64).astype("float32")
    >>> grid = actgrid.render(activations, columns=16, cmap="gray")
    >>> grid.levels.shape
    (227, 911)
    """
    options = check_options(
        normalize=normalize,
        scope=scope,
        columns=columns,
        padding=padding,
        zoom=zoom,
        background=background,
        order=order,
        cmap=cmap,
        backend=backend,
        threads=threads,
    )
    draw, threads = options.backend, options.threads
    tiling = tile(
        as_array(activations),
        kind=kind,
        sample=sample,
        data_format=data_format,
        token_grid=token_grid,
    )
    tiles = tiling.tiles
    count, slices = tiles.shape[:2]

    tile_stats = draw.measure(tiles, threads)
    stats = (tile_stats.pool(1) if slices > 1 else tile_stats).reshape(-1)
    channels = _ordered(order, stats)
    if tiling.joined:
        scope = "layer"
    layout = lay_out(tiling, channels.size, columns, options.padding)

    canvas = layout.canvas(options.background)
    origin = np.full((count, slices), -1, np.int64)
    origin[channels] = layout.origins().reshape(-1, slices)
    mapping = options.normalization.mapping(tiles, tile_stats, scope, draw, threads)
    draw.paint(tiles, mapping, origin, canvas, threads)
    if tiling.single_values:
        stats = tile_stats.pool().reshape(-1)
    canvas = zoomed(canvas, options.zoom)
    return Grid(canvas, stats, np.repeat(channels, slices), cmap, layout, options.zoom)


def zoomed(canvas: npt.NDArray[np.uint8], zoom: int) -> npt.NDArray[np.uint8]:
    """Return a picture with every pixel repeated `zoom` times in either direction."""
    if zoom == 1:
        return canvas
    larger = blank_levels(*(side * zoom for side in canvas.shape))
    larger[:] = canvas.repeat(zoom, 0).repeat(zoom, 1)
    return larger


def lay_out(tiling: Tiling, channels: int, columns: int | None, padding: int) -> Layout:
    """Return where the tiles of so many of the channels go."""
    _, slices, height, width = tiling.tiles.shape
    count = channels * slices
    if tiling.joined:
        padding = 0
    if tiling.joined and tiling.columns:
        columns = count  # it is one picture: cut into rows it would be none
    elif columns is None:
        columns = tiling.columns or near_square(count, height, width, padding)
    return Layout(count, height, width, min(columns, count), padding)


class Options(NamedTuple):
    """Options of `render` that do not depend on the activation, checked."""

    normalization: Normalization
    padding: int
    zoom: int
    background: int
    backend: Backend
    threads: int


def check_options(
    *,
    normalize: object,
    scope: str,
    columns: int | None,
    padding: int,
    zoom: int,
    background: int,
    order: Any,
    cmap: str,
    backend: str,
    threads: int | None = None,
) -> Options:
    """Raise what `render` would raise for these options whatever the activation; return them."""
    if scope not in SCOPES:
        raise OptionError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
    if columns is not None:
        integer_option("columns", columns, 1)
    if isinstance(order, str) and order not in ORDERS:
        raise OptionError(
            f"order must be one of {', '.join(ORDERS)} or a sequence of channels, "
            f"not {order!r}{suggest(order, ORDERS)}"
        )
    background = level_option("background", background)
    palette(cmap)
    return Options(
        normalization=parse_normalize(normalize),
        padding=integer_option("padding", padding, 0, MAX_PADDING),
        zoom=integer_option("zoom", zoom, 1, MAX_ZOOM),
        background=background,
        backend=load_backend(backend),
        threads=thread_count(threads),
    )


def _ordered(order: Any, stats: ChannelStats) -> npt.NDArray[np.intp]:
    """Return the channels to draw, in order; `stats` has one entry for each channel."""
    count = stats.mean.size
    if isinstance(order, str):
        statistic = ORDERS[order]
        if statistic is None:
            return np.arange(count)
        keys = getattr(stats, statistic)
        # Channels without a statistic (NaN) come last; equal ones stay in order.
        return np.argsort(np.where(np.isnan(keys), np.inf, -keys), kind="stable")
    channels = channel_sequence(order)
    check_channels(channels, count)
    return channels


def channel_sequence(order: Iterable[int]) -> npt.NDArray[np.intp]:
    """Return the channels that are named one by one."""
    try:
        channels = np.asarray(list(order))
        if channels.dtype.kind not in "iu" or channels.ndim != 1:
            raise TypeError
    except TypeError:
        raise OptionError(f"order must be a sequence of channels, not {order!r}") from None
    return channels.astype(np.intp)


def check_channels(channels: npt.NDArray[np.intp], count: int) -> None:
    """Raise OptionError unless channels can be drawn where there are `count`."""
    outside = channels[(channels < 0) | (channels >= count)]
    if outside.size:
        raise OptionError(f"order names channel {outside[0]}, but there are {count}")
    if np.unique(channels).size != channels.size:
        raise OptionError("order names a channel twice")
