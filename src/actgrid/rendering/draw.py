"""Render activations as grids of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from actgrid.encoding import make_blank_levels
from actgrid.errors import OptionError
from actgrid.option_checks import resolve_thread_count
from actgrid.option_groups import takes_options
from actgrid.options import RenderArrayOptions
from actgrid.rendering.backends import load_backend
from actgrid.rendering.grid import Grid
from actgrid.rendering.layout import Layout, choose_columns
from actgrid.rendering.normalize import parse_normalize
from actgrid.rendering.stats import ChannelStats, reshape_stats
from actgrid.rendering.tiles import Tiling, as_array, tile

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ORDERS", "render"]

# Orders of channels, and the statistic to sort by (largest first); None for the index.
ORDERS = {"index": None, "mean": "mean", "std": "std", "max": "max", "zeros": "zero_fraction"}


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
        (N, T, C)                   with ``kind="sequence"``: one picture, T x C; with
                                    `token_grid`: C tiles
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
    backend, threads = load_backend(options["backend"]), resolve_thread_count(options["threads"])
    scope = options["scope"]
    tiling = tile(
        as_array(activations),
        kind=options["kind"],
        sample=options["sample"],
        data_format=options["data_format"],
        token_grid=options["token_grid"],
    )
    tiles = tiling.tiles
    count, slices = tiles.shape[:2]

    tile_stats = backend.measure(tiles, threads)
    stats = reshape_stats(tile_stats.pool(1) if slices > 1 else tile_stats, -1)
    channels = _order_channels(options["order"], stats)
    if tiling.is_joined:
        scope = "layer"
    layout = lay_out_tiles(tiling, channels.size, options["columns"], options["padding"])

    canvas = layout.make_canvas(options["background"])
    origins = np.full((count, slices), -1, np.int64)
    origins[channels] = layout.compute_origins().reshape(-1, slices)
    normalization = parse_normalize(options["normalize"])
    mapping = normalization.compute_mapping(tiles, tile_stats, scope, backend, threads)
    backend.paint(tiles, mapping, origins, canvas, threads)
    if tiling.has_single_values:
        stats = reshape_stats(tile_stats.pool(), -1)
    zoom = options["zoom"]
    channels = np.repeat(channels, slices)
    return Grid(zoom_canvas(canvas, zoom), stats, channels, options["cmap"], layout, zoom)


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
        columns = count  # a joined picture must not be cut into rows
    elif columns is None:
        columns = tiling.columns or choose_columns(count, height, width, padding)
    return Layout(count, height, width, min(columns, count), padding)


def _order_channels(order: Any, stats: ChannelStats) -> npt.NDArray[np.intp]:
    """Return the indices of the channels to draw, in the order of drawing.

    Parameters
    ----------
    order
        Name of an order, such as by a statistic, or the indices themselves.
    stats
        Statistics with one entry per channel.
    """
    count = stats.mean.size
    if isinstance(order, str):
        statistic = ORDERS[order]
        if statistic is None:
            return np.arange(count)
        keys = getattr(stats, statistic)
        # Channels without a statistic (NaN) come last; ties stay in index order.
        return np.argsort(np.where(np.isnan(keys), np.inf, -keys), kind="stable")
    channels = np.array(order, np.intp)
    check_channels(channels, count)
    return channels


def check_channels(channels: npt.NDArray[np.intp], count: int) -> None:
    """Raise OptionError unless channel indices are distinct and below `count`."""
    outside = channels[(channels < 0) | (channels >= count)]
    if outside.size:
        raise OptionError(f"order names channel {outside[0]}, but there are {count} channels")
    if np.unique(channels).size != channels.size:
        raise OptionError("order names a channel twice; expected distinct channels")
