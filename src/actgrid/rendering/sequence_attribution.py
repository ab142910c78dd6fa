"""Attributions of sequences, drawn as bands under a plot of the signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.rendering.attribution import Attribution, resize_maps
from actgrid.rendering.colormaps import palette
from actgrid.rendering.folding import Fold, choose_fold, pool_extremes, pool_range
from actgrid.rendering.sheet import shorten_text

__all__ = ["SequenceAttribution"]

Array = npt.NDArray[Any]
Pixels = npt.NDArray[np.uint8]

_WIDTH = 960  # of the plot in pixels
_MARGIN = 56  # at the left, for the numbers of the steps
_MAX_LINES = 8
_FONT_SIZE = 12
# More channels than this are drawn as an image of channels by time, not as lines.
_MAX_SIGNALS = 8
_SIGNAL_HEIGHT = 72
_BAND_HEIGHT = 18
_CHANNEL_BAND_HEIGHT = 8
_GAP = 10
_LINE_COLOUR = (40, 40, 40)
_GRAY = (110, 110, 110)


@dataclass(frozen=True, eq=False, repr=False, init=False)
class SequenceAttribution(Attribution):  # numpydoc ignore=PR01
    """Attributions of sequences, (N, T, C), drawn under plots of the signals.

    The parameters and attributes are those of `Attribution`, with the axes ``("time",)`` or
    ``("time", "channel")``. Up to eight channels are plotted as lines, each in its own range, with
    the attribution as a coloured band under them; further channels are drawn as an image of
    channels by time, each channel in its own range from black to white. A sequence of more than 960
    steps is folded into up to eight lines. If these are not enough, a column of pixels shows
    several steps: the range of the signal, and the attribution of the largest magnitude. The
    picture says how many.

    Examples
    --------
    >>> from actgrid.rendering import make_attribution
    >>> signal = np.sin(np.arange(5000) / 20)
    >>> attribution = make_attribution(signal[None] ** 2, ("time",), inputs=signal[None, :, None])
    >>> attribution.save("signal.png")
    """

    def _draw_pictures(self, alpha: float, cmap: str, clip: float, threads: int) -> Pixels:
        maps = self.values if self.values.ndim == 3 else self.values[..., None]
        steps = maps.shape[1] if self.inputs is None else self.inputs.shape[1]
        mappings = list(self._iterate_mappings(clip))
        pictures = []
        for row, (values, mapping) in enumerate(zip(maps, mappings, strict=True)):
            resampled = _resample(values.T, steps)
            fold = choose_fold(steps, _WIDTH, _MAX_LINES)
            pooled = pool_extremes(resampled, fold.pooled)
            with np.errstate(invalid="ignore", over="ignore"):
                scaled = (pooled - mapping.shift) * mapping.scale + mapping.base
            levels = np.nan_to_num(np.clip(scaled, 0, 255)).astype(np.uint8)
            signal = None if self.inputs is None else self.inputs[row].T
            pictures.append(_draw_sequence(signal, palette(cmap)[levels], fold))
        return np.stack(pictures)

    def _draw_input_pictures(self) -> Pixels:
        inputs = self._require_inputs()
        fold = choose_fold(inputs.shape[1], _WIDTH, _MAX_LINES)
        band = np.zeros((0, -(-fold.steps // fold.pooled), 3), np.uint8)
        return np.stack([_draw_sequence(signal.T, band, fold) for signal in inputs])


def _resample(values: Array, steps: int) -> Array:
    """Resize (C, t) to (C, steps) linearly; the outermost values extend to the edges."""
    if values.shape[1] == steps:
        return values
    return resize_maps(values[:, None], 1, steps, 1)[:, 0]


def _draw_sequence(signal: Array | None, band: Pixels, fold: Fold) -> Pixels:
    """Draw one sequence.

    Parameters
    ----------
    signal
        (C, T) values, or None.
    band
        (channels of the map, columns, 3): colours of the attribution of all columns; no channels:
        the signal is drawn alone.
    fold
        The lines of the sequence.
    """
    # Each step of a short sequence is several pixels wide.
    scale = max(1, _WIDTH // fold.columns) if fold.lines == 1 else 1
    strips = [] if signal is None else _make_strips(signal, fold, scale)
    height = _BAND_HEIGHT if len(band) == 1 else _CHANNEL_BAND_HEIGHT
    rows = list(band.repeat(scale, 1)[:, None].repeat(height, 1))
    if len(rows) == len(strips) > 1:  # each channel has its own band
        blocks = [block for pair in zip(strips, rows, strict=True) for block in pair]
    else:
        blocks = [*strips, *rows]
    pixels = np.concatenate(blocks)
    height = len(pixels)
    picture = np.full(
        (fold.lines * (height + _GAP) + 2 * _FONT_SIZE, _MARGIN + fold.columns * scale, 3),
        255,
        np.uint8,
    )
    for line in range(fold.lines):
        part = pixels[:, line * fold.columns * scale : (line + 1) * fold.columns * scale]
        top = line * (height + _GAP)
        picture[top : top + height, _MARGIN : _MARGIN + part.shape[1]] = part
    return _write_texts(picture, fold, height)


def _make_strips(signal: Array, fold: Fold, scale: int) -> list[Pixels]:
    """Return strips (height, columns, 3) of the channels of a signal, for all columns."""
    signal = _resample(np.nan_to_num(signal), signal.shape[1] * scale)
    low, high = pool_range(signal, fold.pooled)
    first = low.min(1, keepdims=True)
    span = np.maximum(high.max(1, keepdims=True) - first, np.finfo(np.float32).tiny)
    low, high = (low - first) / span, (high - first) / span
    if len(signal) <= _MAX_SIGNALS:
        return [_plot_line(*pair) for pair in zip(low, high, strict=True)]
    levels = np.rint(255 * np.where(high - 0.5 >= 0.5 - low, high, low)).astype(np.uint8)
    height = max(1, min(_CHANNEL_BAND_HEIGHT, 4 * _SIGNAL_HEIGHT // len(signal)))
    return [levels.repeat(height, 0)[..., None].repeat(3, 2)]


def _plot_line(low: Array, high: Array) -> Pixels:
    """Plot the range of values of each column, from 0 to 1, connected to its neighbours."""
    top = _SIGNAL_HEIGHT - 1
    # Each column reaches halfway to its neighbours, so that the line has no gaps.
    before, after = np.roll((low + high) / 2, 1), np.roll((low + high) / 2, -1)
    middle = (low + high) / 2
    before[0], after[-1] = middle[0], middle[-1]
    low = np.minimum(low, np.minimum(middle + before, middle + after) / 2)
    high = np.maximum(high, np.maximum(middle + before, middle + after) / 2)
    rows = np.arange(_SIGNAL_HEIGHT)[:, None]
    first = np.floor(top - high * top)
    last = np.ceil(top - low * top)
    strip = np.full((_SIGNAL_HEIGHT, len(low), 3), 255, np.uint8)
    strip[(rows >= first) & (rows <= last)] = _LINE_COLOUR
    return strip


def _write_texts(picture: Pixels, fold: Fold, height: int) -> Pixels:
    """Write the first step of each line at its left, and the number of steps at the bottom."""
    image = Image.fromarray(picture)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_SIZE)
    for line in range(fold.lines):
        text = f"{line * fold.steps_per_line:,}"
        position = (_MARGIN - 4, line * (height + _GAP) + height // 2)
        draw.text(position, text, fill=_GRAY, font=font, anchor="rm")
    text = fold.describe()
    if fold.pooled > 1:
        text += ": range of the signal, attribution of the largest magnitude"
    position = (_MARGIN, picture.shape[0] - _FONT_SIZE)
    text = shorten_text(text, font, picture.shape[1] - _MARGIN)
    draw.text(position, text, fill=_GRAY, font=font, anchor="lm")
    return np.asarray(image)
