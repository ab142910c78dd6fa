"""Backdrops of attribution maps: pictures from inputs, pixels and photos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers
from PIL import Image

from actgrid import compare_methods, explain
from actgrid.attribution.backdrops import (
    Backdrop,
    make_backdrop,
    make_photo_backdrop,
)
from actgrid.errors import DtypeError, MissingFileError, ShapeError
from actgrid.models.images import Photo
from actgrid.rendering.input_pictures import to_pictures

Array = npt.NDArray[Any]

LEVELS = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)


def convert(pixels: Any) -> Array:
    """Return pixels as pictures, which must exist."""
    pictures = to_pictures(np.asarray(pixels))
    assert pictures is not None
    assert pictures.dtype == np.uint8
    return pictures


# --- model inputs, whose range decides the units


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int32"])
def test_to_pictures_keeps_pixels_from_0_to_255(dtype: str) -> None:
    np.testing.assert_array_equal(convert(LEVELS.astype(dtype)), LEVELS)


def test_to_pictures_keeps_dark_pixels() -> None:
    dark = (LEVELS % 20).astype(np.float32)
    dark[0, 0, 0] = 19
    np.testing.assert_array_equal(convert(dark), dark)
    np.testing.assert_array_equal(convert((LEVELS % 2).astype(np.uint8)), LEVELS % 2)


def test_to_pictures_scales_pixels_from_0_to_1() -> None:
    np.testing.assert_array_equal(convert(LEVELS / np.float32(255)), LEVELS)
    half = np.full((1, 4, 4, 1), 0.5, np.float32)
    np.testing.assert_array_equal(convert(half), np.full((1, 4, 4, 3), 128))


@given(overshoot=st.floats(1.0000001, 1.09), undershoot=st.floats(-0.04, 0.0))
def test_to_pictures_tolerates_values_slightly_above_1(overshoot: float, undershoot: float) -> None:
    fractions = LEVELS / np.float32(255)
    fractions[0, 0, 0] = overshoot
    fractions[1, 0, 0] = undershoot
    expected = LEVELS.copy()
    expected[0, 0, 0], expected[1, 0, 0] = 255, 0
    np.testing.assert_array_equal(convert(fractions), expected)


def test_to_pictures_ignores_outliers() -> None:
    fractions = np.tile(LEVELS / np.float32(255), (1, 20, 20, 1))
    fractions[0, 0, 0] = 9.5
    expected = np.tile(LEVELS, (1, 20, 20, 1))
    expected[0, 0, 0] = 255
    np.testing.assert_array_equal(convert(fractions), expected)
    fractions[0, 0, 0] = 200.0
    np.testing.assert_array_equal(convert(fractions), expected)


@pytest.mark.parametrize("maximum", [1.2, 1.5, 2.0, 3.0])
def test_to_pictures_stretches_values_above_1(maximum: float) -> None:
    pictures = convert(np.tile(LEVELS * np.float32(maximum / 255), (1, 20, 20, 1)))
    assert (pictures == 255).mean() < 0.02
    assert np.abs(pictures[0].astype(int) - np.tile(LEVELS, (1, 20, 20, 1))[0]).max() <= 4


def test_to_pictures_decides_units_by_the_batch() -> None:
    pixels = LEVELS.astype(np.float32)
    pixels[0] = 0
    np.testing.assert_array_equal(convert(pixels)[0], 0)
    np.testing.assert_array_equal(convert(pixels)[1], LEVELS[1])


@pytest.mark.parametrize(("scale", "shift"), [(127.5, 1.0), (58.4, 2.1), (1e4, 0.0), (40.0, 0.0)])
def test_to_pictures_stretches_other_units_by_image(scale: float, shift: float) -> None:
    large = np.tile(LEVELS, (1, 10, 10, 1)).astype(np.float32)
    pictures = convert(large / scale - shift if scale < 1e4 else large * 1e4)
    low, high = large[0].min(), large[0].max()
    expected = (large[0] - low) * 255 / (high - low)
    # A thousandth of the pixels at either end is clipped.
    assert np.abs(pictures[0] - expected).max() <= 4


def test_to_pictures_of_constant_image_is_constant() -> None:
    assert len(np.unique(convert(np.full((1, 4, 4, 3), -3.0, np.float32)))) == 1


def test_to_pictures_returns_none_for_other_channel_counts() -> None:
    assert to_pictures(np.zeros((1, 4, 4, 2))) is None
    np.testing.assert_array_equal(convert(np.concatenate([LEVELS, LEVELS[..., :1]], -1)), LEVELS)


# --- the option pixels


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_make_backdrop_keeps_pixels_from_0_to_255(dtype: str) -> None:
    dim = (LEVELS // 10).astype(dtype)
    backdrop = make_backdrop(dim, 2)
    np.testing.assert_array_equal(backdrop.images, dim)
    assert backdrop.boxes is None
    np.testing.assert_array_equal(make_backdrop(LEVELS[0], 1).images, LEVELS[:1])
    np.testing.assert_array_equal(
        make_backdrop(LEVELS[..., 0], 2).images, np.repeat(LEVELS[..., :1], 3, -1)
    )


def test_make_backdrop_scales_pixels_from_0_to_1() -> None:
    fractions = LEVELS / np.float32(255)
    np.testing.assert_array_equal(make_backdrop(fractions, 2).images, LEVELS)


def test_make_backdrop_accepts_files_and_pillow_images(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(LEVELS[0]).save(path)
    np.testing.assert_array_equal(make_backdrop(path, 1).images, LEVELS[:1])
    backdrop = make_backdrop([str(path), Image.fromarray(LEVELS[1])], 2)
    np.testing.assert_array_equal(backdrop.images, LEVELS)


def test_make_backdrop_rejects_invalid_pixels(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="2 pictures for 3 images"):
        make_backdrop(LEVELS, 3)
    with pytest.raises(ShapeError, match=r"must have the shape \(N, height, width, 1 or 3\)"):
        make_backdrop(np.zeros((2, 5, 5, 7)), 2)
    with pytest.raises(DtypeError, match="pixels must be numbers"):
        make_backdrop(np.array([["a"]]), 1)
    with pytest.raises(MissingFileError):
        make_backdrop(tmp_path / "none.png", 1)


# --- photos


def make_photo(height: int, width: int, box: tuple[int, int, int, int]) -> Photo:
    rows = np.arange(height)[:, None, None] % 250
    return Photo(np.broadcast_to(rows, (height, width, 3)).astype(np.uint8), box)


def test_photos_of_one_size_are_unchanged() -> None:
    photos = [make_photo(20, 30, (0, 5, 20, 25)), make_photo(20, 30, (0, 0, 20, 30))]
    backdrop = make_photo_backdrop(photos)
    assert backdrop.boxes is not None
    assert make_photo_backdrop(photos[1:]).boxes is None
    np.testing.assert_array_equal(backdrop.images, [photo.pixels for photo in photos])
    np.testing.assert_array_equal(backdrop.boxes, [photo.box for photo in photos])


def test_photos_of_several_sizes_are_cropped_to_the_model_input() -> None:
    backdrop = make_photo_backdrop(
        [make_photo(20, 30, (0, 5, 20, 25)), make_photo(40, 40, (10, 10, 30, 30))]
    )
    assert backdrop.boxes is None
    assert backdrop.images.shape == (2, 20, 20, 3)
    np.testing.assert_array_equal(backdrop.images[0, :, 0, 0], np.arange(20))
    np.testing.assert_array_equal(backdrop.images[1, :, 0, 0], np.arange(10, 30))
    large = make_photo_backdrop(
        [make_photo(20, 30, (0, 5, 20, 25)), make_photo(2048, 9, (0, 0, 2048, 9))]
    )
    assert large.images.shape == (2, 1024, 4, 3)


def test_shrink_scales_boxes() -> None:
    backdrop = Backdrop(np.zeros((1, 100, 200, 3), np.uint8), np.array([[-10, 20, 110, 180]]))
    small = backdrop.shrink(50)
    assert small.images.shape == (1, 25, 50, 3)
    assert small.boxes is not None
    np.testing.assert_array_equal(small.boxes, [[-2, 5, 28, 45]])
    assert backdrop.shrink(200) is backdrop


# --- backdrops of explain


def make_network(channels: int = 1) -> Any:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((16, 16, channels)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(3, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(1).integers(0, 256, (30, 48, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_map_of_file_is_drawn_over_full_photo(file: Path) -> None:
    heatmap = explain(make_network(), file)
    assert heatmap.images is not None
    assert heatmap.boxes is not None
    with Image.open(file) as image:
        np.testing.assert_array_equal(heatmap.images[0], np.asarray(image))
    # The model is given the 30 x 30 pixels in the centre.
    np.testing.assert_array_equal(heatmap.boxes, [[0, 9, 30, 39]])
    overlay = heatmap.overlay(alpha=0).pictures[0]
    np.testing.assert_array_equal(overlay, heatmap.images[0])
    assert not heatmap.levels()[0, :, :9].any()
    assert heatmap.levels()[0, :, 9:39].any()


def test_pixels_option_sets_the_backdrop(file: Path) -> None:
    model, x = make_network(), np.full((1, 16, 16, 1), 3.0, np.float32)
    heatmap = explain(model, x, pixels=file)
    assert heatmap.images is not None
    assert heatmap.images.shape == (1, 30, 48, 3)
    assert heatmap.boxes is None
    np.testing.assert_array_equal(heatmap.values, explain(model, x).values)
    sheet = compare_methods(model, x, ["gradcam"], pixels=file)
    assert sheet.pictures.shape[1:] == (30, 48, 3)


def test_gray_input_is_drawn_in_its_range() -> None:
    x = np.random.default_rng(2).random((1, 16, 16, 1), np.float32)
    x[0, 0, 0] = 1.02
    images = explain(make_network(), x).images
    assert images is not None
    expected = np.floor(np.clip(x[0, ..., 0], 0, 1) * 255 + 0.5)
    np.testing.assert_allclose(images[0, ..., 0], expected, atol=1)
