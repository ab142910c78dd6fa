"""Data formats of the tensors in the graphs of exported models."""

from __future__ import annotations

from collections.abc import Sequence

from actgrid.models.graph_axes import AxesOperation, find_data_formats

Shapes = dict[str, Sequence[int | str | None]]

IMAGE = ("batch", 3, 8, 6)
SHAPES: Shapes = {
    "image": IMAGE,
    "scaled": IMAGE,
    "maps": ("batch", 5, 8, 6),
    "kernel": (5, 3, 3, 3),
}
CONVOLUTION = AxesOperation(["scaled", "kernel"], ["maps"], is_first=True)


def test_formats_pass_in_both_directions() -> None:
    operations = [
        AxesOperation(["image"], ["scaled"]),
        CONVOLUTION,
        AxesOperation(["maps"], ["moved"], permutation=(0, 2, 3, 1)),
        AxesOperation(["moved"], ["activated"]),
    ]
    last = ("batch", 8, 6, 5)
    assert find_data_formats(operations, {**SHAPES, "moved": last, "activated": last}) == {
        "image": True,
        "scaled": True,
        "maps": True,
        "moved": False,
        "activated": False,
    }


def test_transposition_of_an_input() -> None:
    operations = [
        AxesOperation(["image"], ["scaled"], permutation=(0, 3, 1, 2)),
        CONVOLUTION,
    ]
    formats = find_data_formats(operations, {**SHAPES, "image": ("batch", 8, 6, 3)})
    assert formats == {"image": False, "scaled": True, "maps": True}


def test_channels_in_the_middle_have_no_format() -> None:
    operations = [CONVOLUTION, AxesOperation(["maps"], ["moved"], permutation=(0, 2, 1, 3))]
    formats = find_data_formats(operations, {**SHAPES, "moved": ("batch", 8, 5, 6)})
    assert "moved" not in formats


def test_number_of_channels_tells_the_axis_after_a_reshape() -> None:
    shapes: Shapes = {
        **SHAPES,
        "tokens": ("batch", 5, 48),
        "rows": ("batch", 8, 30),
        "vector": (1, 240),
    }
    operations = [
        CONVOLUTION,
        AxesOperation(["maps"], ["tokens", "rows", "vector"], keeps_axes=False),
    ]
    formats = find_data_formats(operations, shapes)
    assert formats["tokens"] is True
    assert not {"rows", "vector"} & set(formats)


def test_images_are_recognized_by_their_channels() -> None:
    shapes: Shapes = {
        "first": (1, 3, 8, 8),
        "last": (1, 8, 8, 3),
        "both": (1, 3, 8, 4),
        "none": (1, 9, 9),
    }
    assert find_data_formats([], shapes, images=shapes) == {
        "first": True,
        "last": False,
        "both": False,
    }
    assert find_data_formats([], shapes) == {}
