"""The pictures that maps are drawn over."""

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
    as_pictures,
    backdrop_of_photos,
    given_backdrop,
)
from actgrid.errors import DtypeError, MissingFileError, ShapeError
from actgrid.models.images import Photo

Array = npt.NDArray[Any]

LEVELS = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)


def pictures(pixels: Any) -> Array:
    found = as_pictures(np.asarray(pixels))
    assert found is not None
    assert found.dtype == np.uint8
    return found


# --- inputs, whose range tells the units


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int32"])
def test_pixels_from_0_to_255_stay_levels(dtype: str) -> None:
    np.testing.assert_array_equal(pictures(LEVELS.astype(dtype)), LEVELS)


def test_dark_levels_stay_dark() -> None:
    dark = (LEVELS % 20).astype(np.float32)
    dark[0, 0, 0] = 19
    np.testing.assert_array_equal(pictures(dark), dark)
    np.testing.assert_array_equal(pictures((LEVELS % 2).astype(np.uint8)), LEVELS % 2)


def test_shares_of_1_become_levels() -> None:
    np.testing.assert_array_equal(pictures(LEVELS / np.float32(255)), LEVELS)
    half = np.full((1, 4, 4, 1), 0.5, np.float32)
    np.testing.assert_array_equal(pictures(half), np.full((1, 4, 4, 3), 128))


@given(overshoot=st.floats(1.0000001, 1.09), undershoot=st.floats(-0.04, 0.0))
def test_shares_a_little_above_1_are_not_drawn_black(overshoot: float, undershoot: float) -> None:
    shares = LEVELS / np.float32(255)
    shares[0, 0, 0] = overshoot
    shares[1, 0, 0] = undershoot
    expected = LEVELS.copy()
    expected[0, 0, 0], expected[1, 0, 0] = 255, 0
    np.testing.assert_array_equal(pictures(shares), expected)


def test_a_few_outliers_do_not_decide() -> None:
    shares = np.tile(LEVELS / np.float32(255), (1, 20, 20, 1))
    shares[0, 0, 0] = 9.5
    expected = np.tile(LEVELS, (1, 20, 20, 1))
    expected[0, 0, 0] = 255
    np.testing.assert_array_equal(pictures(shares), expected)
    shares[0, 0, 0] = 200.0
    np.testing.assert_array_equal(pictures(shares), expected)


@pytest.mark.parametrize("most", [1.2, 1.5, 2.0, 3.0])
def test_values_clearly_above_1_are_stretched_and_not_cut_off(most: float) -> None:
    found = pictures(np.tile(LEVELS * np.float32(most / 255), (1, 20, 20, 1)))
    assert (found == 255).mean() < 0.02
    assert np.abs(found[0].astype(int) - np.tile(LEVELS, (1, 20, 20, 1))[0]).max() <= 4


def test_the_whole_batch_decides_so_that_a_black_image_stays_black() -> None:
    pixels = LEVELS.astype(np.float32)
    pixels[0] = 0
    np.testing.assert_array_equal(pictures(pixels)[0], 0)
    np.testing.assert_array_equal(pictures(pixels)[1], LEVELS[1])


@pytest.mark.parametrize(("scale", "shift"), [(127.5, 1.0), (58.4, 2.1), (1e4, 0.0), (40.0, 0.0)])
def test_other_units_are_stretched_image_by_image(scale: float, shift: float) -> None:
    large = np.tile(LEVELS, (1, 10, 10, 1)).astype(np.float32)
    found = pictures(large / scale - shift if scale < 1e4 else large * 1e4)
    low, high = large[0].min(), large[0].max()
    expected = (large[0] - low) * 255 / (high - low)
    # The extremes that are left out are a thousandth of the pixels at either end.
    assert np.abs(found[0] - expected).max() <= 4


def test_constant_inputs_are_drawn_flat() -> None:
    assert len(np.unique(pictures(np.full((1, 4, 4, 3), -3.0, np.float32)))) == 1


def test_inputs_of_other_channels_cannot_be_seen() -> None:
    assert as_pictures(np.zeros((1, 4, 4, 2))) is None
    np.testing.assert_array_equal(pictures(np.concatenate([LEVELS, LEVELS[..., :1]], -1)), LEVELS)


# --- pixels that are given


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_given_pixels_are_from_0_to_255(dtype: str) -> None:
    dim = (LEVELS // 10).astype(dtype)
    found = given_backdrop(dim, 2)
    np.testing.assert_array_equal(found.images, dim)
    assert found.boxes is None
    np.testing.assert_array_equal(given_backdrop(LEVELS[0], 1).images, LEVELS[:1])
    np.testing.assert_array_equal(
        given_backdrop(LEVELS[..., 0], 2).images, np.repeat(LEVELS[..., :1], 3, -1)
    )


def test_given_pixels_from_0_to_1_are_not_drawn_black() -> None:
    shares = LEVELS / np.float32(255)
    np.testing.assert_array_equal(given_backdrop(shares, 2).images, LEVELS)


def test_given_pixels_may_be_files_and_pictures(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(LEVELS[0]).save(path)
    np.testing.assert_array_equal(given_backdrop(path, 1).images, LEVELS[:1])
    both = given_backdrop([str(path), Image.fromarray(LEVELS[1])], 2)
    np.testing.assert_array_equal(both.images, LEVELS)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="2 pictures for 3 images"):
        given_backdrop(LEVELS, 3)
    with pytest.raises(ShapeError, match=r"pixels must be \(N, height, width, 1 or 3\)"):
        given_backdrop(np.zeros((2, 5, 5, 7)), 2)
    with pytest.raises(DtypeError, match="pixels must be numbers"):
        given_backdrop(np.array([["a"]]), 1)
    with pytest.raises(MissingFileError):
        given_backdrop(tmp_path / "none.png", 1)


# --- photos


def photo(height: int, width: int, box: tuple[int, int, int, int]) -> Photo:
    rows = np.arange(height)[:, None, None] % 250
    return Photo(np.broadcast_to(rows, (height, width, 3)).astype(np.uint8), box)


def test_photos_of_one_size_stay_as_they_are() -> None:
    photos = [photo(20, 30, (0, 5, 20, 25)), photo(20, 30, (0, 0, 20, 30))]
    found = backdrop_of_photos(photos)
    assert found.boxes is not None
    assert backdrop_of_photos(photos[1:]).boxes is None
    np.testing.assert_array_equal(found.images, [one.pixels for one in photos])
    np.testing.assert_array_equal(found.boxes, [one.box for one in photos])


def test_photos_of_several_sizes_are_cut_to_what_the_model_is_given() -> None:
    found = backdrop_of_photos([photo(20, 30, (0, 5, 20, 25)), photo(40, 40, (10, 10, 30, 30))])
    assert found.boxes is None
    assert found.images.shape == (2, 20, 20, 3)
    np.testing.assert_array_equal(found.images[0, :, 0, 0], np.arange(20))
    np.testing.assert_array_equal(found.images[1, :, 0, 0], np.arange(10, 30))
    large = backdrop_of_photos([photo(20, 30, (0, 5, 20, 25)), photo(2048, 9, (0, 0, 2048, 9))])
    assert large.images.shape == (2, 1024, 4, 3)


def test_a_reduced_backdrop_keeps_its_boxes_in_place() -> None:
    backdrop = Backdrop(np.zeros((1, 100, 200, 3), np.uint8), np.array([[-10, 20, 110, 180]]))
    found = backdrop.reduced(50)
    assert found.images.shape == (1, 25, 50, 3)
    assert found.boxes is not None
    np.testing.assert_array_equal(found.boxes, [[-2, 5, 28, 45]])
    assert backdrop.reduced(200) is backdrop


# --- what explain draws over


def network(channels: int = 1) -> Any:
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


def test_a_map_of_a_file_lies_over_the_photo_in_its_own_size(file: Path) -> None:
    heatmap = explain(network(), file)
    assert heatmap.images is not None
    assert heatmap.boxes is not None
    with Image.open(file) as image:
        np.testing.assert_array_equal(heatmap.images[0], np.asarray(image))
    # The middle, 30 x 30, is what the model is given.
    np.testing.assert_array_equal(heatmap.boxes, [[0, 9, 30, 39]])
    drawn = heatmap.overlay(alpha=0).pictures[0]
    np.testing.assert_array_equal(drawn, heatmap.images[0])
    assert not heatmap.levels()[0, :, :9].any()
    assert heatmap.levels()[0, :, 9:39].any()


def test_pixels_say_what_a_map_of_arrays_lies_over(file: Path) -> None:
    model, x = network(), np.full((1, 16, 16, 1), 3.0, np.float32)
    given = explain(model, x, pixels=file)
    assert given.images is not None
    assert given.images.shape == (1, 30, 48, 3)
    assert given.boxes is None
    np.testing.assert_array_equal(given.values, explain(model, x).values)
    sheet = compare_methods(model, x, ["gradcam"], pixels=file)
    assert sheet.pictures.shape[1:] == (30, 48, 3)


def test_an_array_of_a_gray_model_is_drawn_in_its_range() -> None:
    x = np.random.default_rng(2).random((1, 16, 16, 1), np.float32)
    x[0, 0, 0] = 1.02
    found = explain(network(), x).images
    assert found is not None
    expected = np.floor(np.clip(x[0, ..., 0], 0, 1) * 255 + 0.5)
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1)
