"""Draw a matrix of coloured cells with the names of its rows and columns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.encoding import check_picture_size
from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.rendering.colormaps import choose_text_colour
from actgrid.rendering.sheet import shorten_text

__all__ = ["draw_labelled_matrix"]

Pixels = npt.NDArray[np.uint8]

_MATRIX_SIDE = 1024  # pixels that the cells of one axis share
_MAX_CELL_SIDE = 28
_NAME_SPACING = 15  # smallest distance in pixels at which two names can be read
_MAX_NAME_WIDTH = 160
_MIN_TEXT_CELL_HEIGHT = 20
_MAX_TEXT_WIDTH = 100  # of the text in a cell
_MAX_LINE_WIDTH = 640  # of the title and the note, if the matrix is narrower
_MARGIN = 10
_GAP = 6
_AXIS_GAP = 3  # between the name of the column axis and the names of the columns
_FONT_SIZE = 12
_TITLE_FONT_SIZE = 14
_TEXT_COLOUR, _AXIS_COLOUR, _FRAME_COLOUR = (0, 0, 0), (110, 110, 110), (190, 190, 190)


def draw_labelled_matrix(
    colours: npt.NDArray[np.uint8],
    row_names: Sequence[str],
    column_names: Sequence[str],
    *,
    texts: Sequence[Sequence[str]] | None = None,
    title: str = "",
    row_axis: str = "",
    column_axis: str = "",
    note: str = "",
) -> npt.NDArray[np.uint8]:
    """Draw a matrix of coloured cells with the names of its rows and columns.

    Up to 36 rows or columns, a cell is 28 pixels long. Cells of larger matrices are smaller, and
    from 1024 rows or columns on 1 pixel long. If the cells are too small for a name each, only
    every k-th name is drawn. Text that is too long is cut with an ellipsis.

    Parameters
    ----------
    colours : numpy.ndarray
        (rows, columns, 3) uint8: RGB colour of each cell.
    row_names : sequence of str
        Names of the rows, drawn at the left. An empty name is left out.
    column_names : sequence of str
        Names of the columns, drawn above the matrix. They are turned by 90 degrees, reading
        upwards, unless each name fits into the width of a cell.
    texts : sequence of sequence of str, optional
        Text for each cell, in rows; black or white, whichever contrasts more. Cells with text are
        at least 20 pixels high, and wide enough for the longest text up to 100 pixels.
    title : str, default ""
        Line of text above the matrix.
    row_axis : str, default ""
        Name of the axis of the rows, drawn above the names of the rows.
    column_axis : str, default ""
        Name of the axis of the columns, drawn above the names of the columns.
    note : str, default ""
        Line of text below the matrix.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8 RGB on white. The font is the default font of Pillow, which has
        Latin letters.

    Raises
    ------
    ShapeError
        If `colours` is not (rows, columns, 3) or is empty. Also a ValueError.
    DtypeError
        If `colours` is not uint8. Also a TypeError.
    OptionError
        If the number of names or texts differs from the number of rows, columns or cells, or the
        picture is too large. Also a ValueError.

    Examples
    --------
    >>> from actgrid.rendering.labelled_matrix import draw_labelled_matrix
    >>> colours = np.zeros((2, 3, 3), np.uint8)
    >>> picture = draw_labelled_matrix(
    ...     colours, ["a", "b"], ["x", "y", "z"], row_axis="query", column_axis="key"
    ... )
    >>> picture.dtype, picture.shape[2]
    (dtype('uint8'), 3)
    """
    _check_arguments(colours, row_names, column_names, texts)
    rows, columns = colours.shape[:2]
    font = _load_font(_FONT_SIZE)
    row_texts = _shorten_texts(row_names, font, _MAX_NAME_WIDTH)
    column_texts = _shorten_texts(column_names, font, _MAX_NAME_WIDTH)
    cell_height, cell_width = _choose_cell_side(rows), _choose_cell_side(columns)
    if texts is not None:
        cell_height = max(cell_height, _MIN_TEXT_CELL_HEIGHT)
        longest = max((_measure(text, font) for line in texts for text in line), default=0)
        cell_width = max(cell_width, min(longest, _MAX_TEXT_WIDTH) + _GAP)

    line_height = sum(font.getmetrics())
    longest_column = max(_measure(text, font) for text in column_texts)
    is_turned = longest_column > cell_width - 4
    names_height = longest_column if is_turned else line_height * any(column_texts)
    axis_width = max(_measure(axis, font) for axis in (row_axis, column_axis))
    names_width = max(_measure(text, font) for text in [*row_texts, row_axis])
    # The row names' axis is beside the column names, so that it needs at least one line there.
    names_height = max(names_height, line_height if row_axis else 0)
    title_font = _load_font(_TITLE_FONT_SIZE)
    title_height = sum(title_font.getmetrics()) + _GAP if title else 0
    left = _MARGIN + (names_width + _GAP if names_width else 0)
    top = _MARGIN + title_height + (line_height + _AXIS_GAP if column_axis else 0)
    top += names_height + _GAP if names_height else 0
    height, width = rows * cell_height, columns * cell_width
    line_width = min(max(_measure(title, title_font), _measure(note, font)), _MAX_LINE_WIDTH)
    picture_width = max(left + max(width, axis_width) + _MARGIN, line_width + 2 * _MARGIN)
    note_height = line_height + _GAP if note else 0
    picture_height = top + height + note_height + _MARGIN
    check_picture_size(picture_height, picture_width)

    picture = np.full((picture_height, picture_width, 3), 255, np.uint8)
    # The frame separates light cells from the white ground.
    picture[top - 1 : top + height + 1, left - 1 : left + width + 1] = _FRAME_COLOUR
    cells = np.repeat(np.repeat(colours, cell_height, axis=0), cell_width, axis=1)
    picture[top : top + height, left : left + width] = cells
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    if title:
        text = shorten_text(title, title_font, picture_width - 2 * _MARGIN)
        draw.text((_MARGIN, _MARGIN), text, fill=_TEXT_COLOUR, font=title_font)
    if note:
        position = (_MARGIN, top + height + _GAP)
        text = shorten_text(note, font, picture_width - 2 * _MARGIN)
        draw.text(position, text, fill=_AXIS_COLOUR, font=font)
    baseline = top - _GAP
    draw.text(
        (left, baseline - names_height - _AXIS_GAP), column_axis, _AXIS_COLOUR, font, anchor="ld"
    )
    draw.text((left - _GAP, baseline), row_axis, _AXIS_COLOUR, font, anchor="rd")
    for row in range(0, rows, _choose_step(cell_height)):
        position = (left - _GAP, round(top + (row + 0.5) * cell_height))
        draw.text(position, row_texts[row], _TEXT_COLOUR, font, anchor="rm")
    for column in range(0, columns, _choose_step(cell_width)):
        middle = round(left + (column + 0.5) * cell_width)
        if is_turned:
            _draw_turned_text(image, column_texts[column], font, middle, baseline)
        else:
            draw.text((middle, baseline), column_texts[column], _TEXT_COLOUR, font, anchor="md")
    for row, line in enumerate(texts or ()):
        for column, cell_text in enumerate(line):
            red, green, blue = map(int, colours[row, column])
            draw.text(
                (left + (column + 0.5) * cell_width, top + (row + 0.5) * cell_height),
                shorten_text(cell_text, font, cell_width - _GAP + 1),
                fill=choose_text_colour((red, green, blue)),
                font=font,
                anchor="mm",
            )
    return np.asarray(image)


def _check_arguments(
    colours: npt.NDArray[np.uint8],
    row_names: Sequence[str],
    column_names: Sequence[str],
    texts: Sequence[Sequence[str]] | None,
) -> None:
    if colours.ndim != 3 or colours.shape[2] != 3 or colours.size == 0:
        raise ShapeError(
            f"colours: got shape {colours.shape}; expected (rows, columns, 3) and not empty"
        )
    if colours.dtype != np.uint8:
        raise DtypeError(f"colours: got {colours.dtype}; expected uint8")
    rows, columns = colours.shape[:2]
    for name, names, count in (
        ("row_names", row_names, rows),
        ("column_names", column_names, columns),
    ):
        if len(names) != count:
            raise OptionError(f"{name}: got {len(names)} names; expected {count}")
    lengths = [len(line) for line in texts or ()]
    if texts is not None and lengths != [columns] * rows:
        raise OptionError(
            f"texts: got lines of {lengths} texts; expected {rows} lines of {columns} texts"
        )


def _choose_cell_side(count: int) -> int:
    """Return the length of a cell in pixels for a number of rows or columns."""
    return max(1, min(_MAX_CELL_SIDE, _MATRIX_SIDE // count))


def _choose_step(side: int) -> int:
    """Return the k for which every k-th name is drawn, beside cells of this length in pixels."""
    return math.ceil(_NAME_SPACING / side)


def _load_font(size: int) -> Any:
    return ImageFont.load_default(size)


def _measure(text: str, font: Any) -> int:
    width: float = font.getlength(" ".join(text.split()))
    return math.ceil(width)


def _shorten_texts(texts: Sequence[str], font: Any, width: int) -> list[str]:
    return [shorten_text(text, font, width) for text in texts]


def _draw_turned_text(image: Image.Image, text: str, font: Any, middle: int, bottom: int) -> None:
    """Draw black text that reads upwards.

    Parameters
    ----------
    image
        Picture, which is changed.
    text
        The text.
    font
        Font of Pillow.
    middle
        Horizontal position of the middle of the text in pixels.
    bottom
        Vertical position of the start of the text in pixels.
    """
    if not text:
        return
    width, height = _measure(text, font), sum(font.getmetrics())
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((0, height / 2), text, fill=255, font=font, anchor="lm")
    turned = mask.transpose(Image.Transpose.ROTATE_90)
    image.paste(_TEXT_COLOUR, (middle - height // 2, bottom - width), turned)
