"""Tests of `actgrid.rendering.labelled_matrix`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actgrid.errors import DtypeError, OptionError, ShapeError
from actgrid.rendering.labelled_matrix import draw_labelled_matrix

Pixels = npt.NDArray[np.uint8]


def make_colours(rows: int, columns: int) -> Pixels:
    """Return a different, bluish colour for each cell; no text has such a colour."""
    colours = np.full((rows, columns, 3), 200, np.uint8)
    colours[..., 0] = np.arange(rows)[:, None] % 100
    colours[..., 1] = np.arange(columns) % 100
    return colours


def name_cells(count: int, prefix: str = "name") -> list[str]:
    return [f"{prefix}{index}" for index in range(count)]


def find_cells(picture: Pixels) -> tuple[slice, slice]:
    """Return the rows and columns of pixels that cells cover."""
    is_cell = (picture[..., 2] == 200) & (picture[..., 0] < 100) & (picture[..., 1] < 100)
    rows, columns = np.flatnonzero(is_cell.any(1)), np.flatnonzero(is_cell.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def count_groups(is_dark: npt.NDArray[Any]) -> int:
    """Return the number of runs of True, which are the lines of a text."""
    return int((np.diff(is_dark.astype(int), prepend=0) == 1).sum())


@pytest.mark.parametrize(
    ("rows", "columns", "cell"),
    [
        (3, 4, (28, 28)),
        (12, 64, (28, 16)),
        (64, 64, (16, 16)),
        (197, 197, (5, 5)),
        (1, 1, (28, 28)),
    ],
)
def test_cells_have_their_colours_and_share_the_space(
    rows: int, columns: int, cell: tuple[int, int]
) -> None:
    colours = make_colours(rows, columns)
    picture = draw_labelled_matrix(colours, name_cells(rows), name_cells(columns))
    cells = picture[find_cells(picture)]
    np.testing.assert_array_equal(cells, colours.repeat(cell[0], 0).repeat(cell[1], 1))


def test_cells_of_large_matrices_are_single_pixels() -> None:
    colours = make_colours(1024, 1500)
    picture = draw_labelled_matrix(colours, name_cells(1024), name_cells(1500))
    np.testing.assert_array_equal(picture[find_cells(picture)], colours)


@pytest.mark.parametrize(("rows", "names"), [(10, 10), (64, 64), (128, 64), (200, 67)])
def test_every_kth_name_is_drawn(rows: int, names: int) -> None:
    # A hyphen is one line of pixels high, so that neighbouring names do not touch.
    picture = draw_labelled_matrix(make_colours(rows, 3), ["-"] * rows, [""] * 3)
    _, columns = find_cells(picture)
    is_dark = np.asarray((picture[:, : columns.start - 2] < 128).any((1, 2)))
    assert count_groups(is_dark) == names


def test_names_titles_and_notes_have_their_own_space() -> None:
    colours, names = make_colours(3, 3), ["a", "bc", "def"]
    bare = draw_labelled_matrix(colours, [""] * 3, [""] * 3)
    assert bare.shape == (3 * 28 + 20, 3 * 28 + 20, 3)
    picture = draw_labelled_matrix(
        colours, names, names, title="title", row_axis="query", column_axis="key", note="note"
    )
    rows, columns = find_cells(picture)
    for part in (
        picture[: rows.start - 1, columns],
        picture[rows, : columns.start - 1],
        picture[: rows.start - 1, : columns.start - 1],
        picture[rows.stop + 1 :],
    ):
        assert (part < 128).any()
    # No text is cut at the edges.
    for edge in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]):
        assert (edge == 255).all()


def test_long_names_are_shortened_and_short_names_of_columns_lie() -> None:
    long = ["x" * 500] * 2
    picture = draw_labelled_matrix(make_colours(2, 2), long, long, title="t" * 500, note="n" * 500)
    assert picture.shape[0] < 320
    assert picture.shape[1] <= 640 + 20
    upright = draw_labelled_matrix(make_colours(2, 2), ["", ""], ["a", "b"])
    turned = draw_labelled_matrix(make_colours(2, 2), ["", ""], ["a", "bcdefgh"])
    assert upright.shape[0] < turned.shape[0]


def test_texts_of_cells_contrast_with_their_colours() -> None:
    colours = np.zeros((1, 2, 3), np.uint8)
    colours[0, 1] = 230
    picture = draw_labelled_matrix(colours, [""], [""] * 2, texts=[["dark", "light"]])
    dark, light = picture[10:38, 10:-10][:, :20], picture[10:38, -30:-12]
    assert (dark.min(), dark.max()) == (0, 255)
    assert light.max() == 230
    assert light.min() < 60
    wide = draw_labelled_matrix(colours, [""], [""] * 2, texts=[["x" * 300, ""]])
    assert wide.shape[1] == 2 * (100 + 6) + 20


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.text(max_size=30),
    st.booleans(),
)
def test_any_text_leaves_the_cells_and_the_margin_intact(
    rows: int, columns: int, text: str, is_titled: bool
) -> None:
    colours = make_colours(rows, columns)
    line = text if is_titled else ""
    picture = draw_labelled_matrix(
        colours, [text] * rows, [text] * columns, title=line, row_axis=line, note=line
    )
    cells = picture[find_cells(picture)]
    expected = colours.repeat(cells.shape[0] // rows, 0).repeat(cells.shape[1] // columns, 1)
    np.testing.assert_array_equal(cells, expected)
    assert (picture[:, -1] == 255).all()


def test_invalid_arguments_are_rejected() -> None:
    colours = make_colours(2, 3)
    with pytest.raises(ShapeError, match=r"colours: got shape \(2, 3\); expected"):
        draw_labelled_matrix(colours[..., 0], ["a", "b"], ["a", "b", "c"])
    with pytest.raises(DtypeError, match="colours: got float64; expected uint8"):
        draw_labelled_matrix(colours.astype(float), ["a", "b"], ["a", "b", "c"])
    with pytest.raises(OptionError, match="row_names: got 1 names; expected 2"):
        draw_labelled_matrix(colours, ["a"], ["a", "b", "c"])
    with pytest.raises(OptionError, match="column_names: got 2 names; expected 3"):
        draw_labelled_matrix(colours, ["a", "b"], ["a", "b"])
    with pytest.raises(OptionError, match=r"texts: got lines of \[1\] texts; expected 2 lines"):
        draw_labelled_matrix(colours, ["a", "b"], ["a", "b", "c"], texts=[["a"]])
    large = np.broadcast_to(np.uint8(0), (40_000, 40_000, 3))
    with pytest.raises(OptionError, match="too large"):
        draw_labelled_matrix(large, [""] * 40_000, [""] * 40_000)
