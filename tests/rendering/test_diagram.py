"""Boxes: how large, where, and in what colours."""

from __future__ import annotations

import numpy as np
import pytest

from actgrid.errors import OptionError
from actgrid.rendering import Box, Diagram, draw_diagram, palette

RED = np.full((4, 4, 3), (255, 0, 0), np.uint8)


def drawn(*boxes: Box, names: bool = False, legend: bool = False, **options: int) -> Diagram:
    return draw_diagram(boxes, names=names, legend=legend, **options)


def extent(rgb: np.ndarray, colour: object) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the pixels of a colour."""
    y, x = np.nonzero((rgb == np.asarray(colour)).all(-1))
    return y.min(), y.max() + 1, x.min(), x.max() + 1


def test_lengths_are_as_square_roots() -> None:
    pictures = [
        drawn(Box("a", "A", (144, 64, 100)), Box("b", "B", (36, 16, 25), RED), side=120).to_rgb(),
        drawn(Box("a", "A", (100, 8)), Box("b", "B", (25, 2), RED), side=120).to_rgb(),
        drawn(Box("a", "A", (400,)), Box("b", "B", (100,), RED), side=120).to_rgb(),
    ]
    sizes = []
    for rgb in pictures:
        top, bottom, left, right = extent(rgb, (255, 0, 0))
        sizes.append((bottom - top, right - left))
    # Without the outline: half of 120 and a third of it; half of a sheet; half of a bar of 12.
    for found, wanted in zip(sizes, [(60, 40), (60, 60), (60, 12)], strict=True):
        assert np.abs(np.subtract(found, wanted)).max() <= 4, (found, wanted)


def test_fronts_have_the_colour_of_their_type_and_what_is_beside_them_is_darker() -> None:
    diagram = drawn(Box("a", "A", (8, 8, 8)), Box("b", "B", (8, 8, 8)), Box("c", "A", (4, 4, 4)))
    assert list(diagram.colours) == ["A", "B"]
    strong = palette("tab20")
    assert diagram.colours["A"] == tuple(strong[6])
    assert diagram.colours["B"] == tuple(strong[32])
    rgb = diagram.to_rgb()
    for colour in diagram.colours.values():
        assert (rgb == colour).all(-1).sum() > 1000
        for share in (0.80, 0.62):
            darker = np.array([int(value * share) for value in colour])
            assert (rgb == darker).all(-1).sum() > 500


def test_many_types_have_colours_of_their_own() -> None:
    diagram = drawn(*(Box(f"{n}", f"type {n}", (4, 4, 4)) for n in range(20)))
    assert len(set(diagram.colours.values())) == 20
    assert len(drawn(*(Box(f"{n}", f"type {n}", (4, 4, 4)) for n in range(23))).colours) == 23


def test_a_new_row_begins_where_there_is_no_room() -> None:
    boxes = [Box(f"{n}", "A", (8, 8, 8)) for n in range(4)]
    one = drawn(*boxes, width=1000).to_rgb()
    two = drawn(*boxes, width=450).to_rgb()
    four = drawn(*boxes, width=1).to_rgb()
    assert one.shape[1] > two.shape[1] > four.shape[1]
    assert one.shape[0] < two.shape[0] < four.shape[0]
    page = 32  # the margins
    assert two.shape[0] - page == 2 * (one.shape[0] - page)
    assert four.shape[0] - page == 4 * (one.shape[0] - page)


def test_names_and_a_legend_are_written() -> None:
    boxes = [Box("conv", "Conv2D", (8, 8, 8)), Box("a" * 200, "Dense", (3,))]
    bare = drawn(*boxes).to_rgb()
    named = drawn(*boxes, names=True).to_rgb()
    whole = drawn(*boxes, names=True, legend=True).to_rgb()
    assert bare.shape[0] < named.shape[0] < whole.shape[0]
    assert named.shape[0] - bare.shape[0] < 300  # a long name is cut
    ink = (40, 40, 40)
    assert not (bare == ink).all(-1).any()
    assert (named == ink).all(-1).any()


def test_a_long_name_leaves_its_shape() -> None:
    one, other = (
        drawn(Box("long" * 50, "Dense", shape), names=True).to_rgb() for shape in [(31,), (73,)]
    )
    assert not np.array_equal(one, other)


def test_small_and_large_boxes_are_all_seen() -> None:
    boxes = [Box("a", "A", (4096, 4096, 1)), Box("b", "B", (1, 1, 100000)), Box("c", "C", (1,))]
    diagram = drawn(*boxes, side=20)
    for colour in diagram.colours.values():
        assert (diagram.to_rgb() == colour).all(-1).any()
    assert repr(diagram) == "<Diagram of 3 boxes>"
    assert len(diagram) == 3


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(OptionError, match="no box"):
        draw_diagram([])
    with pytest.raises(OptionError, match="side must be at least 12"):
        drawn(Box("a", "A", (4,)), side=3)
    with pytest.raises(OptionError, match="width must be an integer"):
        drawn(Box("a", "A", (4,)), width="wide")  # type: ignore[arg-type]
