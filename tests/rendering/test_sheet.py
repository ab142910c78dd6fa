"""Tests of `actgrid.rendering.lay_out_sheet`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.rendering import lay_out_sheet

# Each picture has its own gray level, neither black nor white.
PICTURES = (
    np.zeros((5, 40, 60, 3), np.uint8) + np.arange(50, 100, 10, dtype=np.uint8)[:, None, None, None]
)


def test_pictures_are_laid_out_row_by_row() -> None:
    sheet = lay_out_sheet(PICTURES, columns=3, padding=2, background=7)
    rgb = sheet.to_rgb()
    assert rgb.shape == (40 + 2 + 40, 60 + 2 + 60 + 2 + 60, 3)
    np.testing.assert_array_equal(rgb[:40, 62:122], PICTURES[1])
    np.testing.assert_array_equal(rgb[42:, :60], PICTURES[3])
    # The rest, including the end of the last row, is background.
    assert (rgb == 7).sum() == rgb.size - PICTURES.size
    assert (len(sheet), sheet.columns, sheet.background) == (5, 3, 7)
    assert repr(sheet) == "<Sheet 184 x 82, 5 pictures>"


def test_single_picture_fills_the_sheet() -> None:
    np.testing.assert_array_equal(lay_out_sheet(PICTURES[:1]).to_rgb(), PICTURES[0])


def test_default_columns_make_the_sheet_nearly_square() -> None:
    assert lay_out_sheet(np.zeros((6, 20, 30, 3), np.uint8), padding=0).columns == 2
    assert lay_out_sheet(np.zeros((6, 30, 20, 3), np.uint8), padding=0).columns == 3
    assert lay_out_sheet(PICTURES, columns=99).columns == 5


def contains_text(part: npt.NDArray[Any], background: int) -> bool:
    return bool((part != background).any())


@pytest.mark.parametrize(("background", "text"), [(255, 0), (0, 255)])
def test_titles_are_above_columns_and_captions_below_pictures(background: int, text: int) -> None:
    bare = lay_out_sheet(PICTURES, columns=2, background=background).to_rgb()
    sheet = lay_out_sheet(
        PICTURES,
        columns=2,
        background=background,
        titles=["left", "right"],
        captions=["one", "", "three", "four", ""],
    )
    rgb = sheet.to_rgb()
    line, remainder = divmod(len(rgb) - len(bare), 4)  # one line of titles, three of captions
    assert remainder == 0
    assert line >= 10
    np.testing.assert_array_equal(rgb[line : line + 40, :60], PICTURES[0])
    np.testing.assert_array_equal(rgb[line : line + 40, 64:], PICTURES[1])
    assert contains_text(rgb[:line, :60], background)
    assert contains_text(rgb[:line, 64:], background)
    captions = rgb[line + 40 : 2 * line + 40]
    assert contains_text(captions[:, :60], background)
    assert not contains_text(captions[:, 60:], background)
    assert abs(int(rgb[:line].min()) - min(text, background)) < 20
    assert abs(int(rgb[:line].max()) - max(text, background)) < 20
    assert repr(sheet) == f"<Sheet 124 x {len(rgb)}, 5 pictures>"


def test_empty_text_takes_no_space() -> None:
    bare = lay_out_sheet(PICTURES, columns=5)
    empty = lay_out_sheet(PICTURES, columns=5, titles=[""] * 5, captions=[""] * 5)
    np.testing.assert_array_equal(empty.to_rgb(), bare.to_rgb())


@pytest.mark.parametrize("width", [1, 9, 60, 300])
def test_text_stays_in_its_cell(width: int) -> None:
    pictures = np.full((2, 20, width, 3), 99, np.uint8)
    long = "a caption\nof two lines that is much wider than the picture it belongs to"
    sheet = lay_out_sheet(pictures, columns=2, padding=8, captions=["", long]).to_rgb()
    captions = sheet[20:]
    assert not contains_text(captions[:, : width + 6], 255)
    assert contains_text(captions[:, width + 6 :], 255) == (width >= 60)


def test_long_text_ends_in_an_ellipsis() -> None:
    def draw(caption: str) -> npt.NDArray[Any]:
        return lay_out_sheet(PICTURES[:1], captions=[caption]).to_rgb()

    assert not np.array_equal(draw("cat"), draw("cat…"))
    np.testing.assert_array_equal(draw("a cat"), draw(" a \n cat "))
    # Both texts are cut at the same letter.
    np.testing.assert_array_equal(draw("Egyptian cats sleep"), draw("Egyptian cats sleeping"))


@pytest.mark.parametrize(
    ("pictures", "error", "message"),
    [
        ([PICTURES[0], PICTURES[1][1:]], ShapeError, "of one size"),
        (PICTURES[0], ShapeError, r"must be \(N, height, width, 3\), not \(40, 60, 3\)"),
        (PICTURES[..., :2], ShapeError, "must be"),
        (PICTURES[:0], ShapeError, "must be"),
        (PICTURES.astype(float), DtypeError, "uint8, not of float64"),
    ],
)
def test_invalid_pictures_raise(pictures: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        lay_out_sheet(pictures)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": 0}, "columns must be at least 1"),
        ({"padding": -1}, "padding must be at least 0"),
        ({"background": 256}, "background must be at most 255"),
        (
            {"titles": ["one"], "columns": 2},
            "titles must have 2 entries, one for each column: got 1",
        ),
        ({"captions": ["one"]}, "captions must have 5 entries, one for each picture: got 1"),
        ({"captions": "abcde"}, "captions must be a list of texts"),
        ({"titles": [1], "columns": 1}, "titles must be a list of texts"),
    ],
)
def test_invalid_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        lay_out_sheet(PICTURES, **options)
