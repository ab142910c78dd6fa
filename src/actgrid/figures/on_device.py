"""Drawing inside the model's compiled function: pictures leave the device, not activations.

The arithmetic is that of `actgrid.rendering.backends.numpy_backend`, in TensorFlow, and the rest
that of `actgrid.render`. A trace may not know shapes, so those are tensors here. TensorFlow takes
subnormal numbers for zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple, cast

import numpy as np

from actgrid.errors import OptionError, ShapeError
from actgrid.models import Extractor, LayerInfo
from actgrid.models.extraction import run_transform
from actgrid.models.frameworks import tensorflow
from actgrid.options import RenderModelOptions
from actgrid.rendering import ChannelStats, Grid
from actgrid.rendering.draw import ORDERS, check_channels, lay_out, zoomed
from actgrid.rendering.layout import Layout
from actgrid.rendering.normalize import Normalization, drawn_dtype, parse_normalize
from actgrid.rendering.stats import arrays_of, stats_of
from actgrid.rendering.tiles import check_dtype, tile

__all__ = ["draw_on_device", "on_gpu"]

_MOST = np.iinfo(np.int32).max  # TensorFlow's indices and shapes are int32

# Of tiles, (channels, slices, height, width), the axes over which to measure.
Axes = tuple[int, ...]
_EACH_TILE: Axes = (2, 3)
_EACH_CHANNEL: Axes = (1, 2, 3)
_ALL: Axes = (0, 1, 2, 3)


def on_gpu() -> bool:
    """Tell whether TensorFlow would run a model on a GPU, here and now."""
    tf = tensorflow()
    return "GPU" in (tf.zeros(()) + 1.0).device


def draw_on_device(
    extractor: Extractor, x: Any, options: RenderModelOptions, *, fuse: bool
) -> dict[str, Grid]:
    """Run a model and draw its layers where it runs; see `actgrid.render_model`.

    Parameters
    ----------
    options
        All of them, checked.
    fuse
        Whether XLA compiles the drawing: that takes time at first, and then fewer passes over the
        device's memory.
    """
    tf = tensorflow()
    if options["kind"] is not None:
        raise OptionError("the tensorflow backend knows what each layer gives: leave kind out")
    for shape in map(np.shape, tf.nest.flatten(x)):
        if 0 in shape:
            raise ShapeError(f"an input of shape {tuple(shape)} is empty: nothing can be drawn")
    sample, columns, order = options["sample"], options["columns"], options["order"]
    data_format = options["data_format"]
    token_grid = cast("tuple[int, int] | None", options["token_grid"])
    drawing = _Drawing(
        normalization=parse_normalize(options["normalize"]),
        scope=options["scope"],
        columns=None if columns is None else min(columns, _MOST),
        padding=options["padding"],
        background=options["background"],
        order=order if isinstance(order, str) else tuple(order),
        data_format=data_format,
        token_grid=token_grid,
        fuse=fuse,
    )
    drawn = run_transform(extractor, x, drawing, tf.constant(min(max(sample, -_MOST), _MOST)))
    infos = extractor.layers
    shapes = {path: tuple(layer.shape.numpy().tolist()) for path, layer in drawn.items()}
    batch = max(shape[0] for shape in shapes.values())
    grids: dict[str, Grid] = {}
    for path, layer in drawn.items():
        info, shape = infos[path], shapes[path]
        # All that is here of the activation is its shape: enough for the layout, and to refuse
        # what `render` would, before which the device does not stop.
        tiling = tile(
            np.broadcast_to(np.False_, shape),
            kind=info.kind,
            sample=0 if shape[0] == 1 < batch else sample,
            data_format=data_format or info.data_format,
            token_grid=token_grid if info.kind == "sequence" else None,
        )
        count, slices = tiling.tiles.shape[:2]
        if not isinstance(drawing.order, str):
            check_channels(np.array(drawing.order), count)
        channels = layer.channels.numpy().astype(np.intp)
        *stats, nonfinite = layer.stats.numpy()
        grids[path] = Grid(
            zoomed(layer.canvas.numpy(), options["zoom"]),
            stats_of([*stats, nonfinite.astype(np.int64)], tiling.tiles.size // nonfinite.size),
            np.repeat(channels, slices),
            options["cmap"],
            lay_out(tiling, channels.size, drawing.columns, drawing.padding),
            options["zoom"],
        )
    return grids


class _Drawn(NamedTuple):
    """What leaves the device of a layer.

    `shape` is that of the activation, `channels` are those drawn, in order, and `stats` has a row
    for each array of `ChannelStats`.
    """

    canvas: Any
    stats: Any
    channels: Any
    shape: Any


@dataclass(frozen=True)
class _Drawing:
    """How layers are drawn: a transform for `run_transform`."""

    normalization: Normalization
    scope: str
    columns: int | None
    padding: int
    background: int
    order: str | tuple[int, ...]
    data_format: str | None
    token_grid: tuple[int, int] | None
    fuse: bool

    def __call__(self, info: LayerInfo, activation: Any, sample: Any) -> _Drawn:
        tf = tensorflow()
        check_dtype(np.dtype(activation.dtype.as_numpy_dtype))
        if 0 in activation.shape:
            raise ShapeError(
                f"layer {info.path}: an output of {info.shape} is empty: nothing can be drawn"
            )
        shape = tf.shape(activation)
        one = activation[sample % shape[0]]  # one that there is not does not stop the device
        channels_first = (self.data_format or info.data_format) == "channels_first"
        canvas, stats, channels = self._draw(one, info.kind, channels_first)
        return _Drawn(canvas, stats, channels, shape)

    @cached_property
    def _draw(self) -> Any:
        # A function of its own is traced and optimized once for all layers of one shape.
        return tensorflow().function(
            self._canvas_stats_channels,
            autograph=False,
            jit_compile=self.fuse,
            experimental_attributes={"_noinline": True},
        )

    def _canvas_stats_channels(
        self, one: Any, kind: str, channels_first: bool
    ) -> tuple[Any, Any, Any]:
        tf = tensorflow()
        joined = kind == "dense" or (kind == "sequence" and self.token_grid is None)
        tiles = self._tiles(one, kind, channels_first)
        wide = tf.cast(tiles, tf.float64)
        measured = cache(lambda axes: _measure(wide, axes))

        channels = self._channels(measured(_EACH_CHANNEL), tf.shape(tiles)[0])
        axes = _EACH_TILE if kind == "volume" else _EACH_CHANNEL
        if joined or self.scope == "layer":
            axes = _ALL
        stats = measured(axes)
        low, high = stats.min, stats.max
        if self.normalization.name == "percentile":
            low, high = _percentiles(wide, self.normalization.limits, axes)
        real = drawn_dtype(np.dtype(one.dtype.as_numpy_dtype))
        terms = self.normalization.terms(stats, low, high, real, tf.experimental.numpy)
        if self.order != "index":
            tiles = tf.gather(tiles, channels)
            if axes != _ALL:
                terms = tuple(tf.gather(term, channels) for term in terms)
        levels = _levels(tf.cast(tiles, real), *(tf.cast(term, real) for term in terms))

        canvas = _paint(levels, self._layout(levels, kind, joined), self.background)
        shown = measured(_ALL if kind == "dense" else _EACH_CHANNEL)
        return canvas, tf.stack([tf.reshape(array, [-1]) for array in arrays_of(shown)]), channels

    def _tiles(self, one: Any, kind: str, channels_first: bool) -> Any:
        """Return one sample as tiles, as `actgrid.rendering.tiles.tile` does."""
        tf = tensorflow()
        if kind == "dense":
            return one[:, None, None, None]
        if not channels_first:
            axes = range(len(one.shape))
            one = tf.transpose(one, [axes[-1], *axes[:-1]])
        if kind == "volume":
            return one
        if kind == "image":
            return one[:, None]
        if self.token_grid is None:
            return one[:, None, :, None]
        height, width = self.token_grid
        tokens = tf.shape(one)[1]
        # The last ones, after class and register tokens. Too few do not stop the device.
        used = tf.maximum(tf.range(tokens - height * width, tokens), 0)
        return tf.reshape(tf.gather(one, used, axis=1), (-1, 1, height, width))

    def _channels(self, stats: ChannelStats, count: Any) -> Any:
        """Return the channels to draw, in order."""
        tf = tensorflow()
        if not isinstance(self.order, str):
            # One that there is not does not stop the device.
            return tf.minimum(tf.constant(np.array(self.order).clip(0, _MOST), tf.int32), count - 1)
        statistic = ORDERS[self.order]
        if statistic is None:
            return tf.range(count)
        keys = tf.reshape(getattr(stats, statistic), [-1])
        return tf.argsort(tf.where(~tf.math.is_nan(keys), -keys, np.inf), stable=True)

    def _layout(self, levels: Any, kind: str, joined: bool) -> Layout:
        """Return what `actgrid.rendering.draw.lay_out` does, of tensors."""
        tf = tensorflow()
        drawn, slices, height, width = tf.unstack(tf.shape(levels))
        count, padding = drawn * slices, 0 if joined else self.padding
        if joined and kind == "sequence":
            columns = count
        elif self.columns is not None:
            columns = tf.minimum(self.columns, count)
        elif kind == "volume":
            columns = slices
        else:
            every: Any = Layout(count, height, width, tf.range(count, 0, -1), padding)
            longer = tf.maximum(every.width, every.height)
            shorter = tf.minimum(every.width, every.height)
            columns = every.columns[tf.argmin(longer / shorter)]
        return Layout(count, height, width, columns, padding)


def _measure(x: Any, axes: Axes) -> ChannelStats:
    """Return the statistics over some axes of tiles in float64, as arrays that keep those axes."""
    tf = tensorflow()
    finite = tf.math.is_finite(x)

    def total(values: Any) -> Any:
        return tf.reduce_sum(tf.where(finite, values, 0.0), axes, keepdims=True)

    count = total(tf.ones_like(x))
    mean = total(x) / count
    std = tf.sqrt(total((x - mean) ** 2) / count)
    low = tf.reduce_min(tf.where(finite, x, np.inf), axes, keepdims=True)
    high = tf.reduce_max(tf.where(finite, x, -np.inf), axes, keepdims=True)
    zeros = total(tf.cast(x == 0.0, x.dtype))
    varied, some = low != high, count > 0.0
    arrays = (
        tf.where(varied, mean, low),
        tf.where(varied, std, 0.0),
        tf.where(some, low, np.nan),
        tf.where(some, high, np.nan),
        zeros / count,
        tf.reduce_sum(tf.cast(~finite, x.dtype), axes, keepdims=True),
    )
    return ChannelStats(*arrays, size=0)


def _percentiles(x: Any, limits: tuple[float, ...], axes: Axes) -> list[Any]:
    """Return percentiles of the finite values over some axes, which stay: `numpy.percentile`'s."""
    tf = tensorflow()
    kept = [1 if axis in axes else tf.shape(x)[axis] for axis in range(3)]
    rows = tf.reshape(x, [*kept, -1])
    finite = tf.math.is_finite(rows)
    ascending = tf.sort(tf.where(finite, rows, np.inf))
    last = tf.reduce_sum(tf.cast(finite, tf.int32), -1, keepdims=True) - 1

    def value(index: Any) -> Any:
        return tf.gather(ascending, tf.maximum(tf.minimum(index, last), 0), batch_dims=3)

    found = []
    for limit in limits:
        position = tf.cast(last, x.dtype) * (limit / 100)
        below = tf.floor(position)
        index = tf.cast(below, tf.int32)
        low, high = value(index), value(index + 1)
        found.append(low + (high - low) * (position - below))
    return found


def _levels(x: Any, shift: Any, scale: Any, base: Any) -> Any:
    tf = tensorflow()
    v = (x - shift) * scale + base
    v = tf.where(x != np.inf, v, 255.0)
    v = tf.where(~tf.math.is_nan(v), v, 0.0)  # NaN; also -inf where the scale is 0
    return tf.cast(tf.clip_by_value(v, 0.0, 255.0), tf.uint8)


def _paint(levels: Any, layout: Layout, background: int) -> Any:
    """Return the picture of tiles in the order of their cells."""
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
