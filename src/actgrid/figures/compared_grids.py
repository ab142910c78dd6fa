"""Draw the activations of two models and their difference side by side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.models import LayerInfo
from actgrid.models.drawing import draw_layer
from actgrid.rendering import Grid
from actgrid.rendering.color_bar import draw_color_bar
from actgrid.rendering.picture import Picture
from actgrid.rendering.sheet import pad_pictures, shorten_text

__all__ = ["ComparedGrids", "compare_activations"]

Array = npt.NDArray[Any]

_GAP = 16
_FONT_SIZE = 14
# Size to which small grids are enlarged, and the colormap of differences.
_MIN_SIDE = 240
_DIFFERENCE_COLORMAP = "RdBu_r"
_NEUTRAL_LEVEL = 128  # of zero in this colormap


@dataclass(frozen=True, eq=False, repr=False)
class ComparedGrids(Picture):  # numpydoc ignore=PR01
    """Picture of a layer in two models: two grids, and the grid of their difference.

    `actgrid.render_comparison` returns one for each layer.

    Parameters
    ----------
    a, b : Grid
        Activations of each model. A channel has the same scale in both grids.
    difference : Grid or None
        First model minus second, on the scale of both; None if the shapes differ.
    names : tuple of str
        Names of the models.
    layer : str
        Path of the layer in the first model.
    scope : str
        ``"channel"`` if each channel has its own scale, else ``"layer"``.
    low, high : float
        Smallest and largest value of the scale of the layer; NaN if each channel has its own.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(name="relu")])
    >>> other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.ReLU(1, name="relu")])
    >>> x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype(np.float32)
    >>> actgrid.render_comparison(model, other, x)["relu"].difference
    <Grid 17 x 17, 3 tiles, RdBu_r>
    """

    a: Grid
    b: Grid
    difference: Grid | None
    names: tuple[str, ...]
    layer: str
    scope: str
    low: float
    high: float

    def __repr__(self) -> str:
        return f"<ComparedGrids of {self.layer} in {' and '.join(self.names)}>"

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the grids side by side, with titles and colour bars.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        titles = [*self.names, "first - second"]
        grids = [grid for grid in (self.a, self.b, self.difference) if grid is not None]
        pictures = pad_pictures([_enlarge(grid.to_rgb()) for grid in grids])
        if self.scope == "channel":
            labels = ["smallest of the channel", "largest"]
            signed_labels = ["-range", "0", "+range"]
        else:
            size = self.high - self.low
            labels = [f"{self.low:.3g}", f"{self.high:.3g}"]
            signed_labels = [f"{-size:.3g}", "0", f"{size:.3g}"]
        font: Any = ImageFont.load_default(_FONT_SIZE)
        panels = []
        for index, (picture, title) in enumerate(zip(pictures, titles, strict=False)):
            is_signed = index == 2
            width = picture.shape[1]
            cmap = _DIFFERENCE_COLORMAP if is_signed else self.a.cmap
            bar = draw_color_bar(cmap, width, signed_labels if is_signed else labels)
            head = Image.new("RGB", (width, sum(font.getmetrics()) + 6), (255, 255, 255))
            text = shorten_text(title, font, width)
            ImageDraw.Draw(head).text((width / 2, 2), text, (0, 0, 0), font, anchor="ma")
            panels += [np.concatenate([np.asarray(head), picture, bar])]
            panels += [np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)]
        return np.concatenate(panels[:-1], 1)


def _enlarge(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Repeat the pixels of a small picture, so that the texts beside it fit."""
    factor = max(1, -(-_MIN_SIDE // picture.shape[1]))
    return picture.repeat(factor, 0).repeat(factor, 1)


def compare_activations(
    info: LayerInfo,
    a: Array,
    other_info: LayerInfo,
    b: Array,
    names: tuple[str, ...],
    shown_channels: int | None = 16,
) -> ComparedGrids:
    """Draw the activations of a layer in two models, and their difference, on one scale.

    Parameters
    ----------
    info, other_info
        Description of the layer in each model. The path of `info` is that of the picture.
    a, b
        Activations of the same sample in each model, with a batch axis of length 1. If their
        shapes differ, each has its own scale, and there is no difference.
    names
        Names of the models.
    shown_channels
        Number of channels that are drawn, those with the largest difference first; None: all.

    Returns
    -------
    ComparedGrids
        The picture. Images and volumes have one scale for each channel; other outputs have one for
        the layer.
    """
    options: dict[str, Any] = {}
    a, b = (np.asarray(array, np.float64) for array in (a, b))
    if a.shape != b.shape or info.channel_axis != other_info.channel_axis:
        return ComparedGrids(
            draw_layer(info, a),
            draw_layer(other_info, b),
            None,
            names,
            info.path,
            "channel",
            np.nan,
            np.nan,
        )
    difference = a - b
    has_tiles = info.kind in ("image", "volume")
    axes = tuple(range(a.ndim))
    scale_axes = axes
    if has_tiles:
        scale_axes = tuple(axis for axis in axes if axis != info.channel_axis)
        sizes = np.nan_to_num(np.abs(difference)).mean(scale_axes)
        options["order"] = np.argsort(-sizes, kind="stable")[:shown_channels]
    with np.errstate(invalid="ignore"):
        finite = [np.where(np.isfinite(array), array, np.nan) for array in (a, b)]
        low = _reduce(np.fmin, finite, scale_axes)
        high = _reduce(np.fmax, finite, scale_axes)
        size = np.where(high > low, high - low, 1)
        scaled = [(array - low) / size for array in (a, b)]
        scaled_difference = difference / size
    shared = {**options, "scope": "channel", "normalize": ("range", 0.0, 1.0)}
    signed = {**options, "scope": "channel", "normalize": ("range", -1.0, 1.0)}
    signed |= {"cmap": _DIFFERENCE_COLORMAP, "background": _NEUTRAL_LEVEL}
    info = replace(info, dtype="float64")
    return ComparedGrids(
        draw_layer(info, scaled[0], **shared),
        draw_layer(info, scaled[1], **shared),
        draw_layer(info, scaled_difference, **signed),
        names,
        info.path,
        "channel" if has_tiles else "layer",
        np.nan if has_tiles else float(low.item()),
        np.nan if has_tiles else float(high.item()),
    )


def _reduce(function: Any, arrays: list[Array], axes: tuple[int, ...]) -> Array:
    """Reduce two arrays to one value for each entry of the remaining axes, without NaN values."""
    values: Array = function(*(function.reduce(array, axes, keepdims=True) for array in arrays))
    return np.nan_to_num(values)
