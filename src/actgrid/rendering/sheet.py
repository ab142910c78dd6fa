"""Lay out pictures as a table with titles and captions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from actgrid.encoding import check_picture_size
from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.option_groups import check_option
from actgrid.options import GridOptions, SheetOptions
from actgrid.rendering.layout import Layout, choose_columns
from actgrid.rendering.picture import Picture

__all__ = ["Sheet", "lay_out_sheet", "pad_pictures", "shorten_text", "stack_pictures"]

# Font size as a fraction of a picture's width, and its readable minimum in pixels.
_FONT_SIZE_FRACTION = 1 / 16
_MIN_FONT_SIZE = 10
_ELLIPSIS = "…"


@dataclass(frozen=True, eq=False, repr=False)
class Sheet(Picture):  # numpydoc ignore=PR01
    """Picture that is a labelled table of pictures of one size.

    `lay_out_sheet` returns a sheet.

    Parameters
    ----------
    pictures : numpy.ndarray
        (N, height, width, 3) uint8.
    titles : tuple of str
        Titles of the columns; empty for none.
    captions : tuple of str
        Captions under the pictures; empty for none.
    background : int
        Level of the area between the pictures, 0 (black) to 255 (white).

    Examples
    --------
    >>> from actgrid.rendering import lay_out_sheet
    >>> sheet = lay_out_sheet(np.zeros((4, 32, 32, 3), np.uint8), padding=2)
    >>> sheet.to_rgb().shape
    (66, 66, 3)
    """

    pictures: npt.NDArray[np.uint8]
    titles: tuple[str, ...]
    captions: tuple[str, ...]
    background: int
    _layout: Layout  # a cell holds a picture and its caption

    def __len__(self) -> int:
        return len(self.pictures)

    def __repr__(self) -> str:
        layout = self._layout
        height = layout.height + _get_line_height(self.titles, layout.tile_width)
        return f"<Sheet {layout.width} x {height}, {len(self)} pictures>"

    @property
    def columns(self) -> int:
        """Number of pictures in a row of the sheet."""
        return self._layout.columns

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Draw the sheet, a labelled table of pictures, as RGB pixels.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8.
        """
        layout = self._layout
        _, height, width, _ = self.pictures.shape
        top = _get_line_height(self.titles, width)
        shape = (top + layout.height, layout.width, 3)
        check_picture_size(*shape[:2])
        sheet = np.full(shape, self.background, np.uint8)
        corners = [layout.find_corner(cell) for cell in range(len(self))]
        for picture, (y, x) in zip(self.pictures, corners, strict=True):
            sheet[top + y : top + y + height, x : x + width] = picture
        lines = [
            *((title, (0, x)) for title, (_, x) in zip(self.titles, corners, strict=False)),
            *(
                (caption, (top + y + height, x))
                for caption, (y, x) in zip(self.captions, corners, strict=False)
            ),
        ]
        if not lines:
            return sheet
        image = Image.fromarray(sheet)
        draw, font = ImageDraw.Draw(image), _load_font(width)
        text_colour = (0, 0, 0) if self.background >= 128 else (255, 255, 255)
        for text, (y, x) in lines:
            position = (x + width / 2, y)
            draw.text(
                position, shorten_text(text, font, width), fill=text_colour, font=font, anchor="ma"
            )
        return np.asarray(image)


def lay_out_sheet(
    pictures: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    *,
    columns: int | None = None,
    padding: int = 4,
    background: int = 255,
    titles: Iterable[str] | None = None,
    captions: Iterable[str] | None = None,
) -> Sheet:
    """Lay out pictures as a table with optional titles and captions.

    Parameters
    ----------
    pictures : numpy.ndarray or sequence of numpy.ndarray
        (N, height, width, 3) uint8, or N pictures of one size, (height, width, 3) uint8.
    columns : int, optional
        Number of pictures in a row. None: the number that makes the sheet nearest to square.
    padding : int, default 4
        Pixels between pictures.
    background : int, default 255
        Level of the remaining area, 0 (black) to 255 (white). The text is black or white, whichever
        contrasts more.
    titles : iterable of str, optional
        Titles of the columns, one for each column.
    captions : iterable of str, optional
        Captions under the pictures, one for each picture; ``""`` for none.

    Returns
    -------
    Sheet
        The sheet. Text that is wider than its picture is cut with an ellipsis. The font is the
        default font of Pillow, which has Latin letters.

    Raises
    ------
    ShapeError, OptionError
        If the pictures differ in size, or an option is invalid. Both are ValueErrors.
    DtypeError
        If the pictures are not uint8. Also a TypeError.

    Examples
    --------
    >>> from actgrid.rendering import lay_out_sheet
    >>> photos = np.zeros((2, 64, 96, 3), np.uint8)
    >>> sheet = lay_out_sheet(photos, columns=2, titles=["before", "after"])
    >>> len(sheet), sheet.columns
    (2, 2)
    >>> sheet.save("photos.png")
    """
    stacked = _stack_pictures(pictures)
    count, height, width, _ = stacked.shape
    padding = check_option(SheetOptions, "padding", padding)
    caption_texts = _convert_texts("captions", captions)
    if caption_texts and len(caption_texts) != count:
        raise OptionError(
            f"captions must have {count} entries, one for each picture: got {len(caption_texts)}"
        )
    cell_height = height + _get_line_height(caption_texts, width)
    if columns is None:
        columns = choose_columns(count, cell_height, width, padding)
    columns = min(check_option(SheetOptions, "columns", columns), count)
    title_texts = _convert_texts("titles", titles)
    if title_texts and len(title_texts) != columns:
        raise OptionError(
            f"titles must have {columns} entries, one for each column: got {len(title_texts)}"
        )
    layout = Layout(count, cell_height, width, columns, padding)
    return Sheet(
        stacked,
        title_texts,
        caption_texts,
        check_option(GridOptions, "background", background),
        layout,
    )


def stack_pictures(pictures: Iterable[Picture]) -> Sheet:
    """Return pictures below each other, extended with white to one size."""
    return lay_out_sheet(pad_pictures(picture.to_rgb() for picture in pictures), columns=1)


def pad_pictures(pictures: Iterable[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Stack pictures of different sizes, extended with white at the right and at the bottom.

    Parameters
    ----------
    pictures
        Pictures (height, width, 3) uint8.

    Returns
    -------
    numpy.ndarray
        (N, height, width, 3) uint8, in the size of the largest height and width.
    """
    pictures = list(pictures)
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    padded = np.full((len(pictures), height, width, 3), 255, np.uint8)
    for target, picture in zip(padded, pictures, strict=True):
        target[: picture.shape[0], : picture.shape[1]] = picture
    return padded


def _stack_pictures(pictures: Any) -> npt.NDArray[np.uint8]:
    try:
        stacked = np.asarray(pictures)
    except ValueError:
        raise ShapeError("the pictures of a sheet must be of one size") from None
    if stacked.ndim != 4 or stacked.shape[3] != 3 or stacked.size == 0:
        raise ShapeError(f"pictures must be (N, height, width, 3), not {stacked.shape}")
    if stacked.dtype != np.uint8:
        raise DtypeError(f"pictures must be of uint8, not of {stacked.dtype}")
    return stacked


def _convert_texts(name: str, texts: Any) -> tuple[str, ...]:
    if texts is None:
        return ()
    text_tuple = () if isinstance(texts, str) else tuple(texts)
    if not text_tuple or not all(isinstance(text, str) for text in text_tuple):
        raise OptionError(f"{name} must be a list of texts, not {texts!r}")
    return text_tuple


def _load_font(width: int) -> Any:
    return ImageFont.load_default(max(_MIN_FONT_SIZE, round(width * _FONT_SIZE_FRACTION)))


def _get_line_height(texts: tuple[str, ...], width: int) -> int:
    """Return the height in pixels of the text line above or below pictures.

    Parameters
    ----------
    texts
        Texts of the line. The height is 0 if all are empty.
    width
        Width of a picture, which determines the size of the font.
    """
    return sum(_load_font(width).getmetrics()) if any(texts) else 0


def shorten_text(text: str, font: Any, width: int) -> str:
    """Shorten a text to one line of at most `width` pixels; an ellipsis marks the cut."""
    full_text = text = " ".join(text.split())
    while text and font.getlength(text if text == full_text else text + _ELLIPSIS) > width:
        text = text[:-1]
    return text if text == full_text else (text.rstrip() + _ELLIPSIS if text else "")
