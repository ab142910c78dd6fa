"""Draw named values as horizontal bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.rendering.sheet import shorten_text

__all__ = ["draw_bars"]

_WIDTH = 640
_NAME_WIDTH = 200
_NUMBER_WIDTH = 90
_ROW_HEIGHT = 22
_FONT_SIZE = 13
_GRAY = (110, 110, 110)


def draw_bars(
    names: Sequence[str],
    values: npt.NDArray[np.float32],
    colours: npt.NDArray[np.uint8],
    note: str = "",
    rows: int | None = None,
    icons: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw a bar for each value, with its name and its number.

    Parameters
    ----------
    names
        Name of each value.
    values
        (K,) values. Bars start at a common line of zero.
    colours
        (K, 3) uint8 colour of each bar.
    note
        Line of text under the bars.
    rows
        Number of rows to leave space for; None: one for each value.
    icons
        (K, height, width, 3) uint8: a small picture left of each name; None: there are none.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8.
    """
    count = len(values) if rows is None else rows
    row_height = _ROW_HEIGHT if icons is None else max(_ROW_HEIGHT, icons.shape[1] + 2)
    height = count * row_height + _ROW_HEIGHT
    image = Image.new("RGB", (_WIDTH, height), (255, 255, 255))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_SIZE)
    finite = np.nan_to_num(np.asarray(values, np.float64))
    low, high = min(0.0, finite.min(initial=0)), max(0.0, finite.max(initial=0))
    left, right = _NAME_WIDTH + 8, _WIDTH - _NUMBER_WIDTH
    scale = (right - left) / ((high - low) or 1.0)
    zero = left - low * scale
    for row, (name, value, colour) in enumerate(zip(names, finite, colours, strict=True)):
        middle = row * row_height + row_height // 2
        name_width = _NAME_WIDTH
        if icons is not None:
            image.paste(Image.fromarray(icons[row]), (4, row * row_height + 1))
            name_width -= icons.shape[2] + 8
        text = shorten_text(name, font, name_width)
        draw.text((_NAME_WIDTH, middle), text, fill=(0, 0, 0), font=font, anchor="rm")
        ends = sorted((zero, zero + value * scale))
        box = (ends[0], middle - _ROW_HEIGHT // 3, max(ends[1], ends[0] + 1), middle + 7)
        draw.rectangle(box, fill=tuple(map(int, colour)), outline=_GRAY)
        draw.text((_WIDTH - 4, middle), f"{value:.4g}", fill=_GRAY, font=font, anchor="rm")
    draw.line((zero, 0, zero, count * row_height), fill=_GRAY)
    if note:
        position = (4, count * row_height + _ROW_HEIGHT // 2)
        draw.text(
            position, shorten_text(note, font, _WIDTH - 8), fill=_GRAY, font=font, anchor="lm"
        )
    return np.asarray(image)
