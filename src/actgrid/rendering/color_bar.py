"""Draw the bar that explains the colours of a colormap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.rendering.colormaps import palette

__all__ = ["draw_color_bar"]

_MARGIN = 8
# Maximum length of the bar relative to the size of its labels.
_LENGTH = 30
_GRAY = (110, 110, 110)


def draw_color_bar(
    cmap: str, width: int, labels: Sequence[str], font_size: int = 12
) -> npt.NDArray[np.uint8]:
    """Draw a colour bar with labels below.

    Parameters
    ----------
    cmap
        Name of the colormap.
    width
        Width of the picture in pixels. The bar is in its middle, at most 30 font sizes long.
    labels
        Texts at equal distances, from the lowest to the highest colour.
    font_size
        Size of the labels in pixels.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8.
    """
    font: Any = ImageFont.load_default(font_size)
    length = max(1, min(_LENGTH * font_size, width - 2 * _MARGIN))
    bar_height = font_size
    height = 3 * _MARGIN + bar_height + sum(font.getmetrics())
    picture = np.full((height, width, 3), 255, np.uint8)
    left = (width - length) // 2
    levels = np.linspace(0, 255, length).astype(np.uint8)
    picture[_MARGIN : _MARGIN + bar_height, left : left + length] = palette(cmap)[levels]
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    anchors = ["la", *["ma"] * (len(labels) - 2), "ra"]
    columns = np.linspace(left, left + length, len(labels))
    for label, column, anchor in zip(labels, columns, anchors, strict=True):
        position = (float(column), 2 * _MARGIN + bar_height)
        draw.text(position, label, fill=_GRAY, font=font, anchor=anchor)
    return np.asarray(image)
