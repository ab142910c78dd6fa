"""Grids of pictures, heatmaps over images, and files, as in tf-explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from actgrid.compat.tf_explain.utils.display import (
    filter_display,
    grid_display,
    heatmap_display,
    image_to_uint_255,
)
from actgrid.compat.tf_explain.utils.image import (
    apply_grey_patch,
    transform_to_normalized_grayscale,
)
from actgrid.compat.tf_explain.utils.saver import save_grayscale, save_rgb
from actgrid.errors import OptionError, OutputError, ShapeError
from actgrid.rendering import palette


def test_grid_display() -> None:
    pictures = np.arange(1, 7).reshape(3, 1, 2)
    np.testing.assert_array_equal(grid_display(pictures), [[1, 2, 3, 4], [5, 6, 0, 0]])
    np.testing.assert_array_equal(grid_display(pictures, num_rows=1), [[1, 2, 3, 4, 5, 6]])
    np.testing.assert_array_equal(grid_display(pictures, num_columns=1), pictures[:, 0])
    assert grid_display(pictures, num_rows=5, num_columns=2).shape == (5, 4)
    with pytest.warns(
        UserWarning, match="1 rows of 2 columns are too few for 3 pictures: using 2 row"
    ):
        assert grid_display(pictures, num_rows=1, num_columns=2).shape == (2, 4)
    assert grid_display(np.zeros((5, 2, 3, 3))).shape == (6, 9, 3)
    for array in (np.zeros((2, 2)), np.zeros((0, 2, 2))):
        with pytest.raises(ShapeError, match="array must be pictures"):
            grid_display(array)
    with pytest.raises(OptionError, match="num_columns must be at least 1"):
        grid_display(pictures, num_columns=0)


def test_filter_display() -> None:
    activations = np.arange(8).reshape(2, 2, 1, 2)
    np.testing.assert_array_equal(filter_display(activations), [[0, 1], [2, 3], [4, 5], [6, 7]])
    with pytest.raises(ShapeError, match="activations must be"):
        filter_display(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0.0, 0.5, 1.0], [0, 127, 255]),
        ([-1.0, 0.0, 1.0], [0, 127, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([-100.0, 0.0, 100.0], [0, 128, 255]),
    ],
)
def test_image_to_uint_255(values: list[float], levels: list[int]) -> None:
    image = np.repeat(np.array(values)[None, :, None], 3, 2)
    result = image_to_uint_255(image)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result[0, :, 0], levels)
    np.testing.assert_array_equal(image_to_uint_255(result), result)


def test_heatmap_display() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    result = heatmap_display([[0.0, 1.0, 3.0]], image, image_weight=0.5)
    expected = np.minimum(50.0 + palette("viridis")[[0, 85, 255]], 255)
    np.testing.assert_array_equal(result[0], expected)
    jet = heatmap_display([[0.0, 1.0, 3.0]], image, colormap=2, image_weight=0)
    np.testing.assert_array_equal(jet[0], palette("jet")[[0, 85, 255]])
    gray = heatmap_display(np.ones((2, 2)), np.ones((4, 6, 1)), "gray")
    np.testing.assert_array_equal(gray, np.full((4, 6, 3), 178))  # a constant map has level 0
    with pytest.raises(OptionError, match="colormap must be 0 to 20, or a name, not 99"):
        heatmap_display(np.ones((2, 2)), image, colormap=99)
    with pytest.raises(OptionError, match="no colormap is called 'virid'"):
        heatmap_display(np.ones((2, 2)), image, colormap="virid")
    with pytest.raises(OptionError, match="image_weight must be a number from 0 to 1"):
        heatmap_display(np.ones((2, 2)), image, image_weight=2)
    for shape in ((2, 2), (2, 2, 5)):
        with pytest.raises(ShapeError, match="an image must be"):
            heatmap_display(np.ones((2, 2)), np.full(shape, 7.0))


def test_transform_to_normalized_grayscale() -> None:
    values = np.zeros((2, 1, 2, 2), np.float32)
    values[0, 0, 0] = 1, 2  # the sums are 3, 0, 0 and 0, with deviation 1.299
    result = transform_to_normalized_grayscale(values)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, [[[255, 0]], [[0, 0]]])
    values[1, 0, 1] = 0.5, 0.5
    level = 255 * (1 - 1) / 1
    np.testing.assert_array_equal(transform_to_normalized_grayscale(values)[1, 0], [0, int(level)])


def test_apply_grey_patch() -> None:
    image = np.zeros((4, 5, 3), np.float32)
    result = apply_grey_patch(image, top_left_x=3, top_left_y=1, patch_size=2)
    expected = np.zeros((4, 5, 3))
    expected[1:3, 3:5] = 127.5
    np.testing.assert_array_equal(result, expected)
    assert not image.any()
    levels = apply_grey_patch(np.zeros((2, 2, 3), np.uint8), 1, 1, 9)
    np.testing.assert_array_equal(levels[..., 0], [[0, 0], [0, 127]])


def test_save_grayscale_and_save_rgb(tmp_path: Path) -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    save_grayscale(levels[..., None], tmp_path / "new", "gray.png")
    with Image.open(tmp_path / "new" / "gray.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(picture, levels)
    colours = np.stack([levels, levels + 1, levels + 2], -1)
    save_rgb(colours, str(tmp_path), "rgb.png")
    with Image.open(tmp_path / "rgb.png") as picture:
        np.testing.assert_array_equal(picture, colours)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        save_rgb(colours, tmp_path / "file", "rgb.png")
    with pytest.raises(OptionError, match="no image format is known"):
        save_rgb(colours, tmp_path, "rgb.pgn")
