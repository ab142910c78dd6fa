"""Tests of `actgrid.rendering.Picture`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from actgrid.attribution import Maximization
from actgrid.errors import OptionError, OutputError
from actgrid.rendering import Box, Heatmap, Picture, draw_diagram, lay_out_sheet, render

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


class Noise(Picture):
    def to_rgb(self) -> npt.NDArray[np.uint8]:
        return PIXELS


def decode(data: bytes) -> npt.NDArray[Any]:
    image = Image.open(io.BytesIO(data))
    assert image.mode == "RGB"
    return np.asarray(image)


def test_picture_is_abstract() -> None:
    with pytest.raises(TypeError, match="to_rgb"):
        Picture()  # type: ignore[abstract]


def test_image_is_rgb() -> None:
    image = Noise().to_image()
    assert (image.mode, image.size) == ("RGB", (30, 20))
    np.testing.assert_array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize("compression", ["fast", "small", "none"])
def test_png_contains_the_pixels(compression: str) -> None:
    data = Noise().to_png(compression)
    np.testing.assert_array_equal(decode(data), PIXELS)
    assert (len(data) > PIXELS.size) or compression != "none"


def test_notebooks_show_the_png() -> None:
    assert Noise()._repr_png_()[0] == Noise().to_png()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".tiff", ".bmp", ".gif", ".PNG"])
def test_saves_in_the_format_of_the_suffix(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture{suffix}"
    Noise().save(path)
    with Image.open(path) as image:
        assert image.size == (30, 20)
        if suffix.lower() in (".png", ".tiff", ".bmp"):
            np.testing.assert_array_equal(np.asarray(image), PIXELS)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_save_passes_options_to_pillow(tmp_path: Path) -> None:
    Noise().save(tmp_path / "lossless.webp", lossless=True)
    np.testing.assert_array_equal(decode((tmp_path / "lossless.webp").read_bytes()), PIXELS)
    Noise().save(tmp_path / "plain.png", compression="none")
    assert (tmp_path / "plain.png").stat().st_size > PIXELS.size


def test_save_raises_for_invalid_targets(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"suffix '\.pgn' \(did you mean .*\.png"):
        Noise().save(tmp_path / "picture.pgn")
    with pytest.raises(OptionError, match="one of fast, small, none, not 'best'"):
        Noise().save(tmp_path / "picture.png", compression="best")
    with pytest.raises(OutputError, match="No such file or directory"):
        Noise().save(tmp_path / "missing" / "picture.png")
    assert list(tmp_path.iterdir()) == []


def test_all_pictures_share_the_base_class() -> None:
    grid = render(np.arange(48.0).reshape(4, 4, 3))
    sheet = lay_out_sheet(PIXELS[None])
    heatmap = Heatmap(np.arange(16.0).reshape(4, 4), images=PIXELS)
    diagram = draw_diagram([Box("image", "Input", (8, 8, 3))])
    maximization = Maximization(
        np.zeros((1, 4, 4, 3), np.float32),
        np.zeros((1, 4, 4, 3), np.uint8),
        "conv",
        np.array([0]),
        np.zeros(1, np.float32),
        np.zeros(1, np.float32),
    )
    for picture in (grid, sheet, heatmap, diagram, maximization):
        assert isinstance(picture, Picture)
        for name in ("to_image", "to_png", "save", "_repr_png_"):
            assert getattr(type(picture), name) is getattr(Picture, name)
        rgb = picture.to_rgb()
        assert (rgb.dtype.name, rgb.ndim, rgb.shape[2]) == ("uint8", 3, 3)
        np.testing.assert_array_equal(np.asarray(picture.to_image().convert("RGB")), rgb)
        with Image.open(io.BytesIO(picture.to_png())) as image:
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), rgb)
        assert picture._repr_png_() == (picture.to_png(), {"alt": repr(picture)[1:-1]})
