"""Draw curves in a plot with axes and a legend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.rendering.sheet import shorten_text

__all__ = ["draw_curves"]

_WIDTH, _HEIGHT = 420, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 30, 44
_LEGEND_ROW = 18
_FONT_SIZE = 12
_TICKS = 5
_SCALE = 3  # lines are drawn enlarged and reduced again, so that their edges are smooth
_GRAY, _GRID_COLOUR = (110, 110, 110), (225, 225, 225)
# Colours that are also told apart with colour blindness (Okabe and Ito, 2008).
_COLOURS = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (0, 0, 0),
    (150, 140, 20),
]


def draw_curves(
    x: npt.NDArray[np.float32],
    curves: Mapping[str, npt.NDArray[Any]],
    *,
    title: str = "",
    x_label: str = "",
) -> npt.NDArray[np.uint8]:
    """Draw curves over common abscissae, with axes and a legend below.

    Parameters
    ----------
    x
        (S,) abscissae, increasing.
    curves
        Name of each curve -> its ordinates, (S,). NaN interrupts a curve.
    title
        Line of text above the plot.
    x_label
        Name of the axis below the plot.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    ordinates = np.concatenate([np.asarray(curve, np.float64) for curve in curves.values()])
    finite = ordinates[np.isfinite(ordinates)]
    low, high = (min(0.0, finite.min()), finite.max()) if finite.size else (0.0, 1.0)
    high = high if high > low else low + 1
    plot_width, plot_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    span = (float(x[-1]) - float(x[0])) or 1.0

    def to_column(value: Any) -> Any:
        return _LEFT + (value - float(x[0])) / span * plot_width

    def to_row(value: Any) -> Any:
        return _TOP + (high - value) / (high - low) * plot_height

    legend_height = (len(curves) + 1) // 2 * _LEGEND_ROW + 6
    size = (_WIDTH, _HEIGHT + legend_height)
    large = Image.new("RGB", (size[0] * _SCALE, size[1] * _SCALE), (255, 255, 255))
    draw = ImageDraw.Draw(large)

    def draw_line(points: list[tuple[float, float]], colour: Any, width: int) -> None:
        scaled = [(column * _SCALE, row * _SCALE) for column, row in points]
        draw.line(scaled, fill=colour, width=width, joint="curve")

    ticks = np.linspace(low, high, _TICKS)
    for tick in ticks:
        row = to_row(tick)
        draw_line([(_LEFT, row), (_WIDTH - _RIGHT, row)], _GRID_COLOUR, _SCALE)
    draw_line(
        [(_LEFT, _TOP), (_LEFT, _HEIGHT - _BOTTOM), (_WIDTH - _RIGHT, _HEIGHT - _BOTTOM)],
        _GRAY,
        _SCALE,
    )
    for index, curve in enumerate(curves.values()):
        colour = _COLOURS[index % len(_COLOURS)]
        points: list[tuple[float, float]] = []
        for abscissa, ordinate in zip(x, np.asarray(curve, np.float64), strict=True):
            if np.isfinite(ordinate):
                points.append((to_column(float(abscissa)), to_row(ordinate)))
                continue
            draw_line(points, colour, 2 * _SCALE)
            points = []
        draw_line(points, colour, 2 * _SCALE)
    image = large.resize(size, Image.Resampling.BOX)
    draw = ImageDraw.Draw(image)
    draw.text((_LEFT, 6), shorten_text(title, font, plot_width), fill=(0, 0, 0), font=font)
    for tick in ticks:
        draw.text((_LEFT - 6, to_row(tick)), f"{tick:.3g}", fill=_GRAY, font=font, anchor="rm")
    for tick in np.linspace(float(x[0]), float(x[-1]), _TICKS):
        position = (to_column(tick), _HEIGHT - _BOTTOM + 4)
        draw.text(position, f"{tick:.3g}", fill=_GRAY, font=font, anchor="ma")
    middle = _LEFT + plot_width / 2
    draw.text((middle, _HEIGHT - 20), x_label, fill=_GRAY, font=font, anchor="ma")
    for index, name in enumerate(curves):
        column = 12 + index % 2 * _WIDTH // 2
        row = _HEIGHT + index // 2 * _LEGEND_ROW + _LEGEND_ROW / 2
        colour = _COLOURS[index % len(_COLOURS)]
        draw.line((column, row, column + 18, row), fill=colour, width=3)
        text = shorten_text(name, font, _WIDTH // 2 - 40)
        draw.text((column + 24, row), text, fill=(0, 0, 0), font=font, anchor="lm")
    return np.asarray(image)
