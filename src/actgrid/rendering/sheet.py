"""Pictures side by side, with text."""

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
from actgrid.rendering.layout import Layout, near_square
from actgrid.rendering.picture import Picture

__all__ = ["Sheet", "lay_out_sheet", "shortened"]

# Text is this share of a picture's width in size, yet never too small to be read.
_TEXT_SHARE = 1 / 16
_LEAST_TEXT = 10
_ELLIPSIS = "…"


@dataclass(frozen=True, eq=False, repr=False)
class Sheet(Picture):
    """Pictures of one size in rows and columns. Made by `lay_out_sheet`.

    Attributes
    ----------
    pictures
        (N, height, width, 3) uint8.
    titles
        The headings of the columns; empty if there are none.
    captions
        The line under each picture; empty if there are none.
    background
        Level of what is between the pictures, 0 (black) to 255 (white).

    Examples
    --------
    >>> sheet = lay_out_sheet(np.zeros((4, 32, 32, 3), np.uint8), padding=2)
    >>> sheet.to_rgb().shape
    (66, 66, 3)
    """

    pictures: npt.NDArray[np.uint8]
    titles: tuple[str, ...]
    captions: tuple[str, ...]
    background: int
    _layout: Layout  # of cells: a picture and its caption

    def __len__(self) -> int:
        return len(self.pictures)

    def __repr__(self) -> str:
        layout = self._layout
        height = layout.height + _line_height(self.titles, layout.tile_width)
        return f"<Sheet {layout.width} x {height}, {len(self)} pictures>"

    @property
    def columns(self) -> int:
        """Pictures in a row."""
        return self._layout.columns

    def to_rgb(self) -> npt.NDArray[np.uint8]:
        """Return the sheet, (height, width, 3) uint8."""
        layout = self._layout
        _, height, width, _ = self.pictures.shape
        top = _line_height(self.titles, width)
        shape = (top + layout.height, layout.width, 3)
        check_picture_size(*shape[:2])
        sheet = np.full(shape, self.background, np.uint8)
        corners = [layout.corner(cell) for cell in range(len(self))]
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
        draw, font = ImageDraw.Draw(image), _font(width)
        ink = (0, 0, 0) if self.background >= 128 else (255, 255, 255)
        for text, (y, x) in lines:
            place = (x + width / 2, y)
            draw.text(place, shortened(text, font, width), fill=ink, font=font, anchor="ma")
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
    """Lay out pictures in rows and columns.

    Parameters
    ----------
    pictures
        (N, height, width, 3) uint8, or N pictures of one size, (height, width, 3).
    columns
        Pictures in a row; None: as many as bring the sheet nearest to square.
    padding
        Pixels between pictures.
    background
        Level of the rest, 0 (black) to 255 (white); text is black or white, whichever is seen.
    titles
        Headings of the columns, as many as there are.
    captions
        A line for under each picture, as many as there are, ``""`` for none.

    Returns
    -------
    Sheet
        Text that is wider than its picture ends in an ellipsis. The font is Pillow's own, which
        has Latin letters.

    Raises
    ------
    ShapeError, OptionError
        If the pictures are not of one size, or an option cannot be used. Both are ValueErrors.
    DtypeError
        If they are not uint8. Also a TypeError.

    Examples
    --------
    >>> photos = np.zeros((2, 64, 96, 3), np.uint8)
    >>> sheet = lay_out_sheet(photos, columns=2, titles=["before", "after"])
    >>> sheet.save("photos.png")
    """
    stacked = _stacked(pictures)
    count, height, width, _ = stacked.shape
    padding = check_option(SheetOptions, "padding", padding)
    under = _texts("captions", captions)
    if under and len(under) != count:
        raise OptionError(f"captions must be {count}, one for each picture, not {len(under)}")
    cell_height = height + _line_height(under, width)
    if columns is None:
        columns = near_square(count, cell_height, width, padding)
    columns = min(check_option(SheetOptions, "columns", columns), count)
    above = _texts("titles", titles)
    if above and len(above) != columns:
        raise OptionError(f"titles must be {columns}, one for each column, not {len(above)}")
    layout = Layout(count, cell_height, width, columns, padding)
    return Sheet(stacked, above, under, check_option(GridOptions, "background", background), layout)


def _stacked(pictures: Any) -> npt.NDArray[np.uint8]:
    try:
        stacked = np.asarray(pictures)
    except ValueError:
        raise ShapeError("the pictures of a sheet must be of one size") from None
    if stacked.ndim != 4 or stacked.shape[3] != 3 or stacked.size == 0:
        raise ShapeError(f"pictures must be (N, height, width, 3), not {stacked.shape}")
    if stacked.dtype != np.uint8:
        raise DtypeError(f"pictures must be of uint8, not of {stacked.dtype}")
    return stacked


def _texts(name: str, texts: Any) -> tuple[str, ...]:
    if texts is None:
        return ()
    listed = () if isinstance(texts, str) else tuple(texts)
    if not listed or not all(isinstance(text, str) for text in listed):
        raise OptionError(f"{name} must be a list of texts, not {texts!r}")
    return listed


def _font(width: int) -> Any:
    return ImageFont.load_default(max(_LEAST_TEXT, round(width * _TEXT_SHARE)))


def _line_height(texts: tuple[str, ...], width: int) -> int:
    """Return the height of a line of text in a column of this width; 0 if there is no text."""
    return sum(_font(width).getmetrics()) if any(texts) else 0


def shortened(text: str, font: Any, width: int) -> str:
    """Return a text as one line that is no wider than this, with an ellipsis if it was."""
    whole = text = " ".join(text.split())
    while text and font.getlength(text if text == whole else text + _ELLIPSIS) > width:
        text = text[:-1]
    return text if text == whole else (text.rstrip() + _ELLIPSIS if text else "")
