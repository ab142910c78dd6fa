"""Draw grids in TensorFlow, inside the compiled function of a model.

Only pictures and statistics are copied from the device, not activations. The arithmetic is that of
`actgrid.rendering.backends.numpy_backend`. Shapes are tensors, as a trace may not know them.
TensorFlow treats subnormal numbers as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from actgrid.errors import OptionError, ShapeError
from actgrid.models import Extractor, LayerInfo
from actgrid.models.drawing import choose_token_grid, describe_grid
from actgrid.models.extraction import run_transform
from actgrid.models.frameworks import tensorflow
from actgrid.options import RenderModelOptions
from actgrid.rendering import ChannelStats, Grid, PictureDict, TokenGrid
from actgrid.rendering.draw import ORDERS, check_channels, lay_out_tiles, make_grid
from actgrid.rendering.layout import Layout
from actgrid.rendering.normalize import Normalization, choose_render_dtype, parse_normalize
from actgrid.rendering.stats import list_stat_arrays, make_stats
from actgrid.rendering.tiles import check_dtype, tile

__all__ = ["draw_on_device", "is_gpu_used"]

# TensorFlow's indices and shapes are int32.
_MAX_INDEX = np.iinfo(np.int32).max

# Axes of tiles, (channels, slices, height, width), over which statistics are computed.
Axes = tuple[int, ...]
_EACH_TILE: Axes = (2, 3)
_EACH_CHANNEL: Axes = (1, 2, 3)
_ALL: Axes = (0, 1, 2, 3)


def is_gpu_used() -> bool:
    """Return whether TensorFlow currently places operations on a GPU."""
    tf = tensorflow()
    return "GPU" in (tf.zeros(()) + 1.0).device


def draw_on_device(
    extractor: Extractor, x: Any, options: RenderModelOptions, *, fuse: bool
) -> PictureDict[Grid]:
    """Run a model and draw its layers on the device of the model.

    Parameters
    ----------
    x
        The model's input, with its batch axis.
    options
        All options of `render_model`, checked.
    fuse
        Whether XLA compiles the drawing. The compilation takes time once; then the drawing makes
        fewer passes over the device's memory.

    Returns
    -------
    dict of str to Grid
        Layer path -> grid.
    """
    tf = tensorflow()
    if options["kind"] is not None:
        raise OptionError("kind must be None for the tensorflow backend: leave kind out")
    for shape in map(np.shape, tf.nest.flatten(x)):
        if 0 in shape:
            raise ShapeError(f"x must not be empty: got an input of shape {tuple(shape)}")
    sample, columns, order = options["sample"], options["columns"], options["order"]
    data_format = options["data_format"]
    transform = _DrawTransform(
        normalization=parse_normalize(options["normalize"]),
        scope=options["scope"],
        columns=None if columns is None else min(columns, _MAX_INDEX),
        padding=options["padding"],
        background=options["background"],
        order=order if isinstance(order, str) else tuple(order),
        data_format=data_format,
        token_grid=cast("tuple[int, int] | None", options["token_grid"]),
        fuse=fuse,
    )
    sample_tensor = tf.constant(min(max(sample, -_MAX_INDEX), _MAX_INDEX))
    layers = run_transform(extractor, x, transform, sample_tensor)
    infos = extractor.layers
    shapes = {path: tuple(layer.shape.numpy().tolist()) for path, layer in layers.items()}
    batch = max(shape[0] for shape in shapes.values())
    grids = PictureDict[Grid]()
    for path, layer in layers.items():
        info, shape = infos[path], shapes[path]
        # Only the shape of the activation is on the host. It suffices for the layout, and to raise
        # the errors of `render`, which the device cannot raise.
        tiling = tile(
            np.broadcast_to(np.False_, shape),
            kind=info.kind,
            sample=0 if shape[0] == 1 < batch else sample,
            data_format=transform.choose_data_format(info),
            token_grid=choose_token_grid(info, transform.token_grid),
        )
        count = tiling.tiles.shape[0]
        if not isinstance(transform.order, str):
            check_channels(np.array(transform.order), count)
        channels = layer.channels.numpy().astype(np.intp)
        *stats, nonfinite = layer.stats.numpy()
        grid = make_grid(
            layer.canvas.numpy(),
            make_stats([*stats, nonfinite.astype(np.int64)], tiling.tiles.size // nonfinite.size),
            channels,
            tiling,
            lay_out_tiles(tiling, channels.size, transform.columns, transform.padding),
            options,
        )
        grids[path] = describe_grid(info, grid, options)
    return grids


class _DrawnTensors(NamedTuple):
    """Record of the tensors that are copied from the device for one drawn layer.

    Attributes
    ----------
    canvas
        (height, width) uint8 levels of the grid.
    stats
        Statistics, with a row for each array of `ChannelStats`.
    channels
        Indices of the drawn channels, in order.
    shape
        Shape of the activation.
    """

    canvas: Any
    stats: Any
    channels: Any
    shape: Any


@dataclass(frozen=True)
class _DrawTransform:
    """Transform of an activation to a grid in TensorFlow, for `run_transform`."""

    normalization: Normalization
    scope: str
    columns: int | None
    padding: int
    background: int
    order: str | tuple[int, ...]
    data_format: str | None
    token_grid: tuple[int, int] | None
    fuse: bool

    def __call__(self, info: LayerInfo, activation: Any, sample: Any) -> _DrawnTensors:
        tf = tensorflow()
        check_dtype(np.dtype(activation.dtype.as_numpy_dtype))
        if 0 in activation.shape:
            raise ShapeError(
                f"layer {info.path}: the output must not be empty: got shape {info.shape}"
            )
        shape = tf.shape(activation)
        # The index wraps, as the device cannot raise an error; the host checks the index.
        values = activation[sample % shape[0]]
        channels_first = self.choose_data_format(info) == "channels_first"
        token_grid = choose_token_grid(info, self.token_grid)
        canvas, stats, channels = self._draw(values, info.kind, channels_first, token_grid)
        return _DrawnTensors(canvas, stats, channels, shape)

    def choose_data_format(self, info: LayerInfo) -> str:
        """Return the data format of a layer, in which the option comes first."""
        has_heads = info.kind in ("attention", "heads")
        return (not has_heads and self.data_format) or info.data_format

    @cached_property
    def _draw(self) -> Any:
        # A separate function is traced and optimized once for all layers of one shape.
        return tensorflow().function(
            self._draw_sample,
            autograph=False,
            jit_compile=self.fuse,
            experimental_attributes={"_noinline": True},
        )

    def _draw_sample(
        self,
        values: Any,
        kind: str,
        channels_first: bool,
        token_grid: tuple[int, int] | TokenGrid | None,
    ) -> tuple[Any, Any, Any]:
        """Draw one sample of an activation as a grid in TensorFlow.

        Parameters
        ----------
        values
            Activation of the sample, without batch axis.
        kind
            Kind of layer output, see `LayerInfo.kind`.
        channels_first
            Whether the channel axis is the first.
        token_grid
            Grid in which the tokens of a sequence are drawn; None: no grid.

        Returns
        -------
        tuple of tensor
            Canvas (height, width) uint8, statistics of the sample with a row for each array of
            `ChannelStats`, and indices of the drawn channels.
        """
        tf = tensorflow()
        is_single_tile = kind == "dense" or (kind == "sequence" and token_grid is None)
        tiles = self._make_tiles(values, kind, channels_first, token_grid)
        wide = tf.cast(tiles, tf.float64)
        measure = cache(lambda axes: _measure(wide, axes))

        channels = self._order_channels(measure(_EACH_CHANNEL), tf.shape(tiles)[0])
        axes = _EACH_TILE if kind == "volume" else _EACH_CHANNEL
        if is_single_tile or self.scope == "layer":
            axes = _ALL
        stats = measure(axes)
        low, high = stats.min, stats.max
        if self.normalization.name == "percentile":
            low, high = _compute_percentiles(wide, self.normalization.limits, axes)
        real = choose_render_dtype(np.dtype(values.dtype.as_numpy_dtype))
        terms = self.normalization.compute_terms(stats, low, high, real, tf.experimental.numpy)
        if self.order != "index":
            tiles = tf.gather(tiles, channels)
            if axes != _ALL:
                terms = tuple(tf.gather(term, channels) for term in terms)
        levels = _map_to_levels(tf.cast(tiles, real), *(tf.cast(term, real) for term in terms))

        canvas = _paint(levels, self._lay_out(levels, kind, is_single_tile), self.background)
        grid_stats = measure(_ALL if kind == "dense" else _EACH_CHANNEL)
        rows = [tf.reshape(array, [-1]) for array in list_stat_arrays(grid_stats)]
        return canvas, tf.stack(rows), channels

    def _make_tiles(
        self,
        values: Any,
        kind: str,
        channels_first: bool,
        token_grid: tuple[int, int] | TokenGrid | None,
    ) -> Any:
        """Rearrange one sample of an activation to (channels, slices, height, width)."""
        tf = tensorflow()
        if kind == "dense":
            return values[:, None, None, None]
        if kind in ("attention", "heads"):
            is_split = kind == "heads" and not channels_first
            return (tf.transpose(values, (1, 0, 2)) if is_split else values)[:, None]
        if not channels_first:
            axes = range(len(values.shape))
            values = tf.transpose(values, [axes[-1], *axes[:-1]])
        if kind == "volume":
            return values
        if kind == "image":
            return values[:, None]
        if token_grid is None:
            return values[:, None, :, None]
        height, width = token_grid[:2]
        # Class and register tokens come first and are skipped. If there are too few tokens, indices
        # are clipped, and the host raises the error.
        first = tf.shape(values)[1] - height * width
        if isinstance(token_grid, TokenGrid):
            first = token_grid.leading
        indices = tf.maximum(tf.range(first, first + height * width), 0)
        return tf.reshape(tf.gather(values, indices, axis=1), (-1, 1, height, width))

    def _order_channels(self, stats: ChannelStats, count: Any) -> Any:
        """Return the indices of the channels to draw, in the order of drawing.

        Parameters
        ----------
        stats
            Statistics of each channel, as tensors.
        count
            Number of channels, as a tensor.
        """
        tf = tensorflow()
        if not isinstance(self.order, str):
            # Invalid indices are clipped, and the host raises the error.
            indices = tf.constant(np.array(self.order).clip(0, _MAX_INDEX), tf.int32)
            return tf.minimum(indices, count - 1)
        statistic = ORDERS[self.order]
        if statistic is None:
            return tf.range(count)
        keys = tf.reshape(getattr(stats, statistic), [-1])
        return tf.argsort(tf.where(~tf.math.is_nan(keys), -keys, np.inf), stable=True)

    def _lay_out(self, levels: Any, kind: str, is_single_tile: bool) -> Layout:
        """Return the layout of the tiles of a grid, with tensors as sizes.

        The result equals that of `actgrid.rendering.draw.lay_out_tiles`.
        """
        tf = tensorflow()
        channels, slices, height, width = tf.unstack(tf.shape(levels))
        count, padding = channels * slices, 0 if is_single_tile else self.padding
        if is_single_tile and kind == "sequence":
            columns = count
        elif self.columns is not None:
            columns = tf.minimum(self.columns, count)
        elif kind == "volume":
            columns = slices
        else:
            # The layouts of all possible column counts.
            candidates: Any = Layout(count, height, width, tf.range(count, 0, -1), padding)
            longer = tf.maximum(candidates.width, candidates.height)
            shorter = tf.minimum(candidates.width, candidates.height)
            columns = candidates.columns[tf.argmin(longer / shorter)]
        return Layout(count, height, width, columns, padding)


def _measure(x: Any, axes: Axes) -> ChannelStats:
    """Compute statistics of tiles in TensorFlow over some axes, which keep length 1.

    Parameters
    ----------
    x
        (channels, slices, height, width) float64.
    axes
        Axes to reduce.

    Returns
    -------
    ChannelStats
        Statistics with tensors instead of arrays.
    """
    tf = tensorflow()
    is_finite = tf.math.is_finite(x)

    def sum_finite(values: Any) -> Any:
        return tf.reduce_sum(tf.where(is_finite, values, 0.0), axes, keepdims=True)

    count = sum_finite(tf.ones_like(x))
    mean = sum_finite(x) / count
    std = tf.sqrt(sum_finite((x - mean) ** 2) / count)
    low = tf.reduce_min(tf.where(is_finite, x, np.inf), axes, keepdims=True)
    high = tf.reduce_max(tf.where(is_finite, x, -np.inf), axes, keepdims=True)
    zeros = sum_finite(tf.cast(x == 0.0, x.dtype))
    varies, has_finite = low != high, count > 0.0
    arrays = (
        tf.where(varies, mean, low),
        tf.where(varies, std, 0.0),
        tf.where(has_finite, low, np.nan),
        tf.where(has_finite, high, np.nan),
        zeros / count,
        tf.reduce_sum(tf.cast(~is_finite, x.dtype), axes, keepdims=True),
    )
    return ChannelStats(*arrays, size=0)


def _compute_percentiles(x: Any, limits: tuple[float, ...], axes: Axes) -> list[Any]:
    """Compute percentiles of the finite values of tiles, like `numpy.percentile`.

    Parameters
    ----------
    x
        (channels, slices, height, width) float64.
    limits
        The percentiles, 0 to 100.
    axes
        Axes to reduce, which keep length 1.

    Returns
    -------
    list of tensor
        One for each percentile.
    """
    tf = tensorflow()
    sizes = [1 if axis in axes else tf.shape(x)[axis] for axis in range(3)]
    rows = tf.reshape(x, [*sizes, -1])
    is_finite = tf.math.is_finite(rows)
    ascending = tf.sort(tf.where(is_finite, rows, np.inf))
    last = tf.reduce_sum(tf.cast(is_finite, tf.int32), -1, keepdims=True) - 1

    def gather_value(index: Any) -> Any:
        return tf.gather(ascending, tf.maximum(tf.minimum(index, last), 0), batch_dims=3)

    percentiles = []
    for limit in limits:
        position = tf.cast(last, x.dtype) * (limit / 100)
        below = tf.floor(position)
        index = tf.cast(below, tf.int32)
        low, high = gather_value(index), gather_value(index + 1)
        percentiles.append(low + (high - low) * (position - below))
    return percentiles


def _map_to_levels(x: Any, shift: Any, scale: Any, base: Any) -> Any:
    tf = tensorflow()
    values = (x - shift) * scale + base
    values = tf.where(x != np.inf, values, 255.0)
    values = tf.where(~tf.math.is_nan(values), values, 0.0)  # NaN, and -inf with scale 0
    return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)


def _paint(levels: Any, layout: Layout, background: int) -> Any:
    """Arrange tiles in a grid in TensorFlow.

    Parameters
    ----------
    levels
        Levels of the tiles, (channels, slices, height, width) uint8.
    layout
        Positions of the tiles.
    background
        Level of the pixels between and beside the tiles.

    Returns
    -------
    tensor
        (height, width) uint8.
    """
    tf = tensorflow()
    rows, columns, padding = layout.rows, layout.columns, layout.padding
    height, width = layout.tile_height, layout.tile_width
    cells = tf.pad(
        tf.reshape(levels, (-1, height, width)),
        [[0, rows * columns - layout.count], [0, padding], [0, padding]],
        constant_values=background,
    )
    height, width = height + padding, width + padding
    cells = tf.transpose(tf.reshape(cells, (rows, columns, height, width)), (0, 2, 1, 3))
    canvas = tf.reshape(cells, (rows * height, columns * width))
    return canvas[: layout.height, : layout.width]
