"""Tests of `actgrid.Grid`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import actgrid
from actgrid.errors import OptionError, OutputError
from actgrid.rendering import palette


@pytest.fixture
def grid() -> actgrid.Grid:
    x = np.random.default_rng(0).normal(size=(1, 5, 7, 11)).astype(np.float32)
    return actgrid.render(x, columns=4, padding=2, zoom=3)


def test_image_is_indexed_with_the_colormap_as_palette(grid: actgrid.Grid) -> None:
    image = grid.to_image()
    assert image.mode == "P"
    np.testing.assert_array_equal(np.asarray(image), grid.levels)
    colours = image.getpalette()
    assert colours is not None
    np.testing.assert_array_equal(np.reshape(colours, (-1, 3)), palette("viridis"))
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), grid.to_rgb())


def test_to_rgb_applies_the_palette(grid: actgrid.Grid) -> None:
    rgb = grid.to_rgb()
    assert rgb.shape == (*grid.levels.shape, 3)
    assert rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb[4, 5], palette("viridis")[grid.levels[4, 5]])


def test_gray_colormap_makes_grayscale_images() -> None:
    grid = actgrid.render(np.arange(12.0).reshape(2, 3, 2), cmap="gray")
    assert grid.to_image().mode == "L"
    opened = Image.open(io.BytesIO(grid.to_png()))
    assert opened.mode == "L"
    np.testing.assert_array_equal(np.asarray(opened), grid.levels)


@pytest.mark.parametrize("compression", ["fast", "small"])
def test_png_contains_the_levels(grid: actgrid.Grid, compression: str) -> None:
    opened = Image.open(io.BytesIO(grid.to_png(compression)))
    assert opened.mode == "P"
    np.testing.assert_array_equal(np.asarray(opened), grid.levels)
    np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), grid.to_rgb())


def test_notebooks_show_the_png(grid: actgrid.Grid) -> None:
    assert grid._repr_png_()[0] == grid.to_png()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".tiff", ".bmp", ".gif", ".PNG"])
def test_saves_in_the_format_of_the_suffix(grid: actgrid.Grid, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"grid{suffix}"
    grid.save(path)
    with Image.open(path) as opened:
        assert opened.size == grid.levels.shape[::-1]
        if suffix in (".png", ".tiff", ".bmp", ".gif"):
            np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), grid.to_rgb())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_save_passes_options_to_pillow(grid: actgrid.Grid, tmp_path: Path) -> None:
    grid.save(tmp_path / "lossless.webp", lossless=True)
    with Image.open(tmp_path / "lossless.webp") as opened:
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), grid.to_rgb())


def test_save_raises_for_invalid_targets(grid: actgrid.Grid, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"suffix '\.pgn' \(did you mean .*\.png"):
        grid.save(tmp_path / "grid.pgn")
    with pytest.raises(OptionError, match="suffix ''"):
        grid.save(tmp_path / "grid")
    with pytest.raises(OptionError, match="one of fast, small, none, not 'best'"):
        grid.save(tmp_path / "grid.png", compression="best")
    with pytest.raises(OptionError, match="one of fast, small, none, not 'best'"):
        grid.save(tmp_path / "grid.jpg", compression="best")
    with pytest.raises(OutputError, match="No such file or directory") as caught:
        grid.save(tmp_path / "missing" / "grid.png")
    assert isinstance(caught.value, OSError)
    assert list(tmp_path.iterdir()) == []


def test_tile_is_a_view_of_levels(grid: actgrid.Grid) -> None:
    # Channel 6 is in row 1, column 2: 5 + 2 pixels down, 2 * (7 + 2) right, times zoom 3.
    tile = grid.tile(6)
    assert tile.shape == (15, 21)
    np.testing.assert_array_equal(tile, grid.levels[21:36, 54:75])
    assert np.shares_memory(tile, grid.levels)


def test_tile_that_is_not_drawn_raises(grid: actgrid.Grid) -> None:
    with pytest.raises(OptionError, match="channel 11 is not drawn: the grid has 11 tiles"):
        grid.tile(11)
    with pytest.raises(OptionError, match="channel 3 has 1 tiles: there is no part 1"):
        grid.tile(3, 1)


def test_locate_returns_channel_at_pixel(grid: actgrid.Grid) -> None:
    height, width = grid.levels.shape
    located = np.array([[grid.locate(x, y) for x in range(width)] for y in range(height)])
    for channel in grid.channels:
        y, x = np.nonzero(located == channel)
        tile = grid.levels[y.min() : y.max() + 1, x.min() : x.max() + 1]
        np.testing.assert_array_equal(tile, grid.tile(channel))
        assert y.size == tile.size
    # Padding and the unused cell have no channel.
    assert (located == None).sum() == height * width - 11 * 15 * 21  # noqa: E711
    assert grid.locate(width - 1, height - 1) is None


def test_locate_follows_the_order() -> None:
    grid = actgrid.render(np.zeros((2, 2, 5)), order=[4, 2], columns=2)
    assert grid.locate(0, 0) == 4
    assert grid.locate(2, 0) is None
    assert grid.locate(3, 1) == 2


@pytest.mark.parametrize(("x", "y"), [(-1, 0), (0, -1), (10**6, 0), (0, 10**6)])
def test_locate_outside_picture_raises(grid: actgrid.Grid, x: int, y: int) -> None:
    with pytest.raises(OptionError, match="outside the 102 x 57 picture"):
        grid.locate(x, y)


def test_repr_is_one_line(grid: actgrid.Grid) -> None:
    assert repr(grid) == "<Grid 102 x 57, 11 tiles, viridis>"
