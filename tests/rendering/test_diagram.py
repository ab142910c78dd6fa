"""Tests of `actgrid.rendering.draw_diagram`."""

from __future__ import annotations

import numpy as np
import pytest

from actgrid.errors import OptionError
from actgrid.rendering import Box, Diagram, draw_diagram, palette

RED = np.full((4, 4, 3), (255, 0, 0), np.uint8)


def draw(*boxes: Box, names: bool = False, legend: bool = False, **options: int) -> Diagram:
    return draw_diagram(boxes, names=names, legend=legend, **options)


def find_extent(rgb: np.ndarray, colour: object) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the pixels of a colour."""
    y, x = np.nonzero((rgb == np.asarray(colour)).all(-1))
    return y.min(), y.max() + 1, x.min(), x.max() + 1


def test_sizes_are_proportional_to_square_roots() -> None:
    pictures = [
        draw(Box("a", "A", (144, 64, 100)), Box("b", "B", (36, 16, 25), RED), side=120).to_rgb(),
        draw(Box("a", "A", (100, 8)), Box("b", "B", (25, 2), RED), side=120).to_rgb(),
        draw(Box("a", "A", (400,)), Box("b", "B", (100,), RED), side=120).to_rgb(),
    ]
    sizes = []
    for rgb in pictures:
        top, bottom, left, right = find_extent(rgb, (255, 0, 0))
        sizes.append((bottom - top, right - left))
    # Without outlines: 1/2 and 1/3 of 120; 1/2 of a sequence; 1/2 of a bar of width 12.
    for size, expected in zip(sizes, [(60, 40), (60, 60), (60, 12)], strict=True):
        assert np.abs(np.subtract(size, expected)).max() <= 4, (size, expected)


def test_faces_have_colours_of_their_type() -> None:
    diagram = draw(Box("a", "A", (8, 8, 8)), Box("b", "B", (8, 8, 8)), Box("c", "A", (4, 4, 4)))
    assert list(diagram.colours) == ["A", "B"]
    colormap = palette("tab20")
    assert diagram.colours["A"] == tuple(colormap[6])
    assert diagram.colours["B"] == tuple(colormap[32])
    rgb = diagram.to_rgb()
    for colour in diagram.colours.values():
        assert (rgb == colour).all(-1).sum() > 1000
        for brightness in (0.80, 0.62):
            darker = np.array([int(value * brightness) for value in colour])
            assert (rgb == darker).all(-1).sum() > 500


def test_many_types_have_distinct_colours() -> None:
    diagram = draw(*(Box(f"{n}", f"type {n}", (4, 4, 4)) for n in range(20)))
    assert len(set(diagram.colours.values())) == 20
    assert len(draw(*(Box(f"{n}", f"type {n}", (4, 4, 4)) for n in range(23))).colours) == 23


def test_boxes_wrap_into_rows() -> None:
    boxes = [Box(f"{n}", "A", (8, 8, 8)) for n in range(4)]
    one_row = draw(*boxes, width=1000).to_rgb()
    two_rows = draw(*boxes, width=450).to_rgb()
    four_rows = draw(*boxes, width=1).to_rgb()
    assert one_row.shape[1] > two_rows.shape[1] > four_rows.shape[1]
    assert one_row.shape[0] < two_rows.shape[0] < four_rows.shape[0]
    margins = 32  # of the page
    assert two_rows.shape[0] - margins == 2 * (one_row.shape[0] - margins)
    assert four_rows.shape[0] - margins == 4 * (one_row.shape[0] - margins)


def test_names_and_legend_are_drawn() -> None:
    boxes = [Box("conv", "Conv2D", (8, 8, 8)), Box("a" * 200, "Dense", (3,))]
    bare = draw(*boxes).to_rgb()
    named = draw(*boxes, names=True).to_rgb()
    complete = draw(*boxes, names=True, legend=True).to_rgb()
    assert bare.shape[0] < named.shape[0] < complete.shape[0]
    assert named.shape[0] - bare.shape[0] < 300  # a long name is cut
    ink = (40, 40, 40)
    assert not (bare == ink).all(-1).any()
    assert (named == ink).all(-1).any()


def test_long_name_keeps_its_shape() -> None:
    first, second = (
        draw(Box("long" * 50, "Dense", shape), names=True).to_rgb() for shape in [(31,), (73,)]
    )
    assert not np.array_equal(first, second)


def test_extreme_sizes_stay_visible() -> None:
    boxes = [Box("a", "A", (4096, 4096, 1)), Box("b", "B", (1, 1, 100000)), Box("c", "C", (1,))]
    diagram = draw(*boxes, side=20)
    for colour in diagram.colours.values():
        assert (diagram.to_rgb() == colour).all(-1).any()
    assert repr(diagram) == "<Diagram of 3 boxes>"
    assert len(diagram) == 3


def test_invalid_diagrams_raise() -> None:
    with pytest.raises(OptionError, match="no box"):
        draw_diagram([])
    with pytest.raises(OptionError, match="side must be at least 12"):
        draw(Box("a", "A", (4,)), side=3)
    with pytest.raises(OptionError, match="width must be an integer"):
        draw(Box("a", "A", (4,)), width="wide")  # type: ignore[arg-type]
