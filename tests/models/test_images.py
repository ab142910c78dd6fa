"""Tests of loading images: sources, sizes, image modes, preprocessing and errors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from PIL import Image

import actgrid
from actgrid import ActgridError, explain, load_images
from actgrid.errors import ImageError, MissingFileError, ModelError, OptionError, ShapeError
from actgrid.models.image_inputs import find_image_input
from actgrid.models.image_sources import find_images, iterate_folder_images, open_images
from actgrid.models.images import load_photos, load_with_pixels
from actgrid.runs.sources import find_items
from actgrid.web.images import ImageStore

Array = npt.NDArray[Any]


def make_picture(height: int = 4, width: int = 6) -> Array:
    """Return an RGB picture whose pixels all differ."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 40, x * 40, (y * width + x) * 5], axis=-1).astype(np.uint8)


def make_model(*shape: int | None, name: str = "model") -> Any:
    """Return a model with inputs of this shape."""
    return keras.Sequential([keras.Input(shape), layers.Activation("relu")], name=name)


def make_channels_first_model(*shape: int | None) -> Any:
    """Return a channels-first model with inputs of this shape."""
    flatten = layers.Flatten(data_format="channels_first")
    return keras.Sequential([keras.Input(shape), flatten])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images of level 10, 20, 30 and 40, and other files."""
    root = tmp_path / "photos"
    (root / "sub" / "deeper").mkdir(parents=True)
    for level, name in enumerate(["a.png", "b.JPG", "sub/c.png", "sub/deeper/d.bmp"], 1):
        Image.new("L", (5, 4), level * 10).save(root / name)
    (root / "notes.txt").write_text("no image")
    (root / "sub" / "model.keras").write_bytes(b"no image")
    return root


def round_means(batch: Array) -> list[int]:
    return [round(float(image.mean())) for image in batch]


def load_unprepared(source: Any, size: Any = None, **options: Any) -> Array:
    return load_images(source, size=size, preprocess="none", **options)


# --- sources


@pytest.mark.parametrize("kind", [str, Path])
def test_file(folder: Path, kind: Callable[[Path], Any]) -> None:
    batch = load_unprepared(kind(folder / "a.png"))
    assert batch.shape == (1, 4, 5, 3)
    assert batch.dtype == np.float32
    assert round_means(batch) == [10]


def test_folder_is_read_recursively_in_order(folder: Path) -> None:
    assert round_means(load_unprepared(folder)) == [10, 20, 30, 40]
    names = [str(path.relative_to(folder)) for path in find_images(folder)]
    assert names == ["a.png", "b.JPG", str(Path("sub/c.png")), str(Path("sub/deeper/d.bmp"))]


def test_other_files_in_folder_are_ignored(folder: Path) -> None:
    # Pillow registers the suffix .h5, but cannot read these files.
    (folder / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert round_means(load_unprepared(folder)) == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", [10]),
        ("?.*", [10, 20]),
        ("[ab].*", [10, 20]),
        ("**/*.png", [10, 30]),
        ("**/*.bmp", [40]),
        ("*/*.png", [30]),
        ("sub/**/?.*", [30, 40]),
    ],
)
def test_globs(folder: Path, pattern: str, expected: list[int]) -> None:
    assert round_means(load_unprepared(str(folder / pattern))) == expected


def test_folders_matched_by_glob_are_ignored(folder: Path) -> None:
    (folder / "notes.txt").unlink()
    (folder / "sub" / "model.keras").unlink()
    assert round_means(load_unprepared(str(folder / "**"))) == [10, 20, 30, 40]


def test_file_name_with_glob_characters(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 50).save(tmp_path / "a[1].png")
    Image.new("L", (2, 2), 60).save(tmp_path / "a1.png")
    assert round_means(load_unprepared(tmp_path / "a[1].png")) == [50]


def test_mixed_list_keeps_order(folder: Path) -> None:
    sources = [
        folder / "sub" / "c.png",
        Image.new("RGB", (5, 4), (50, 50, 50)),
        np.full((4, 5, 3), 60, np.uint8),
        str(folder / "?.*"),
        np.full((2, 4, 5, 1), 70.0),
    ]
    assert round_means(load_unprepared(sources)) == [30, 50, 60, 10, 20, 70, 70]
    assert round_means(load_unprepared(source for source in sources[:2])) == [30, 50]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float16", "float32", "float64"])
def test_arrays_keep_values(dtype: str) -> None:
    array = make_picture().astype(dtype)
    np.testing.assert_array_equal(load_unprepared(array), make_picture()[None])


def test_float_pixels_are_not_rounded() -> None:
    array = make_picture() + np.float32(0.25)
    np.testing.assert_array_equal(load_unprepared(array), array[None])


def test_out_of_range_pixels_are_clipped() -> None:
    array = np.array([[-5.0, 0.5], [255.0, 1000.0]])
    np.testing.assert_array_equal(load_unprepared(array)[0, ..., 0], [[0, 0.5], [255, 255]])


def test_grayscale_arrays() -> None:
    gray = make_picture()[..., 2]
    for array in (gray, gray[..., None], gray.astype(np.float32)):
        np.testing.assert_array_equal(
            load_unprepared(array), np.repeat(gray[None, ..., None], 3, -1)
        )


def test_4d_array_is_several_images() -> None:
    batch = np.stack([make_picture(), make_picture() // 2])
    np.testing.assert_array_equal(load_unprepared(batch), batch)


def test_sources_are_not_modified() -> None:
    array = make_picture().astype(np.float32)
    picture = Image.fromarray(make_picture())
    load_images([array, picture], preprocess=lambda pixels: np.multiply(pixels, 2, out=pixels))
    np.testing.assert_array_equal(array, make_picture())
    np.testing.assert_array_equal(np.asarray(picture), make_picture())


# --- sizes


@pytest.mark.parametrize(
    ("size", "expected"), [((3, 7), (3, 7)), (5, (5, 5)), ([2, 4], (2, 4)), (None, (4, 6))]
)
def test_sizes_are_height_and_width(size: Any, expected: tuple[int, int]) -> None:
    assert load_unprepared(make_picture(), size).shape == (1, *expected, 3)


@pytest.mark.parametrize("size", [np.int64(5), (np.int64(5), np.int32(5)), np.array([5, 5])])
def test_sizes_may_be_numpy_integers(size: Any) -> None:
    assert load_unprepared(make_picture(), size).shape == (1, 5, 5, 3)


def test_size_defaults_to_model_input() -> None:
    model = make_model(7, 9, 3)
    assert load_unprepared(make_picture(), model=model).shape == (1, 7, 9, 3)
    assert load_unprepared(make_picture(), 5, model=model).shape == (1, 5, 5, 3)
    assert find_image_input(model)[2] == (7, 9)


def test_images_keep_size_for_models_without_fixed_size() -> None:
    model = make_model(None, None, 3)
    assert load_unprepared(make_picture(), model=model).shape == (1, 4, 6, 3)
    assert find_image_input(model)[2] is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((None, 12, 3), (8, 12)), ((None, 3, 3), (2, 3)), ((8, None, 3), (8, 12))],
)
def test_images_keep_aspect_ratio_if_one_side_is_fixed(
    shape: tuple[int | None, ...], expected: tuple[int, int]
) -> None:
    model = make_model(*shape)
    assert load_unprepared(make_picture(), model=model).shape == (1, *expected, 3)
    (photo,) = load_photos(make_picture(), model=model)
    assert photo.box == (0, 0, 4, 6)
    assert find_image_input(model).size is None


def test_model_with_unknown_input_takes_rgb_of_any_size() -> None:
    model = keras.Sequential([layers.Conv2D(2, 3)])
    assert load_unprepared(make_picture(), model=model).shape == (1, 4, 6, 3)


def test_images_of_target_size_are_exact() -> None:
    for fit in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(
            load_unprepared(make_picture(), (4, 6), fit=fit), make_picture()[None]
        )


def test_crop_takes_the_center() -> None:
    wide_image = load_unprepared(make_picture(4, 8), 4, fit="crop")
    np.testing.assert_array_equal(wide_image, make_picture(4, 8)[None, :, 2:6])
    tall_image = load_unprepared(make_picture(6, 4), (2, 4), fit="crop")
    np.testing.assert_array_equal(tall_image, make_picture(6, 4)[None, 2:4])


def test_crop_is_the_default() -> None:
    np.testing.assert_array_equal(
        load_unprepared(make_picture(4, 8), 4), load_unprepared(make_picture(4, 8), 4, fit="crop")
    )


def test_pad_adds_black_borders() -> None:
    wide_image = load_unprepared(make_picture(2, 6) + 1, 6, fit="pad")
    np.testing.assert_array_equal(wide_image[0, 2:4], make_picture(2, 6) + 1)
    assert not wide_image[0, :2].any()
    assert not wide_image[0, 4:].any()
    tall_image = load_unprepared((make_picture(6, 2) + 1).astype(np.float32), 6, fit="pad")
    np.testing.assert_array_equal(tall_image[0, :, 2:4], make_picture(6, 2) + 1)
    assert not tall_image[0, :, :2].any()
    assert not tall_image[0, :, 4:].any()


def test_stretch_resizes_whole_image() -> None:
    halves = np.zeros((4, 8), np.uint8)
    halves[:, 4:] = 200
    batch = load_unprepared(halves, (8, 4), fit="stretch")
    assert batch.shape == (1, 8, 4, 3)
    assert (batch[0, :, 0] < 20).all()
    assert (batch[0, :, -1] > 180).all()
    np.testing.assert_array_equal(batch[0, 0], batch[0, -1])


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_constant_image_stays_constant_when_resized(fit: str, dtype: str) -> None:
    batch = load_unprepared(np.full((5, 5, 3), 77, dtype), 13, fit=fit)
    np.testing.assert_allclose(batch, 77, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_resized_pixels_stay_in_range(dtype: str) -> None:
    edges = np.zeros((8, 8), dtype)
    edges[2:6, 2:6] = 255  # bicubic resampling overshoots here
    batch = load_unprepared(edges, 21)
    assert batch.min() == 0
    assert batch.max() == 255


def test_crop_of_extreme_aspect_ratio() -> None:
    assert load_unprepared(make_picture(1, 100), (50, 1)).shape == (1, 50, 1, 3)


# --- kinds of images


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    array = np.zeros((16, 32, 3), np.uint8)
    array[:8, :16] = (255, 0, 0)  # red at the top left, as stored
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise: red is then at the top right
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(array).save(path, exif=exif, quality=95)
    batch = load_unprepared(path)
    assert batch.shape == (1, 32, 16, 3)
    assert batch[0, 4, 12, 0] > 200
    assert batch[0, 4, 4, 0] < 50
    assert batch[0, 28, 12, 0] < 50
    with Image.open(path) as picture:
        np.testing.assert_array_equal(load_unprepared(picture), batch)


def save_image(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_grayscale_files(tmp_path: Path) -> None:
    gray = make_picture()[..., 2]
    path = save_image(Image.fromarray(gray), tmp_path / "gray.png")
    np.testing.assert_array_equal(load_unprepared(path), np.repeat(gray[None, ..., None], 3, -1))


def test_palette_files(tmp_path: Path) -> None:
    image = Image.fromarray(make_picture()).quantize(24)
    path = save_image(image, tmp_path / "palette.png")
    np.testing.assert_array_equal(load_unprepared(path)[0], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_palette_files_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = save_image(image, tmp_path / "palette.png", transparency=transparency)
    red, green, blue = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    np.testing.assert_array_equal(load_unprepared(path)[0], [[red, green], [blue, green]])
    alpha = load_unprepared(path, model=make_model(2, 2, 4))[0, ..., 3]
    expected = [0, 255, 255] if transparency == 0 else [0, 128, 255]
    np.testing.assert_array_equal(alpha, np.array(expected)[[[0, 1], [2, 1]]])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_files_with_an_alpha_channel(tmp_path: Path, mode: str) -> None:
    array = np.full((2, 2, len(mode)), 90, np.uint8)
    array[..., -1] = 200
    path = save_image(Image.fromarray(array), tmp_path / "alpha.png")
    np.testing.assert_array_equal(load_unprepared(path), np.full((1, 2, 2, 3), 90))


def test_16_bit_files_are_scaled_exactly(tmp_path: Path) -> None:
    array = np.array([[0, 257, 1000], [32768, 65535, 255]], np.uint16)
    path = save_image(Image.fromarray(array), tmp_path / "deep.png")
    with Image.open(path) as image:
        assert image.mode.startswith("I")
    batch = load_unprepared(path)
    assert batch.shape == (1, 2, 3, 3)
    np.testing.assert_array_equal(batch[0, ..., 0], array.astype(np.float32) / 257)
    assert batch[0, 0, 1, 0] == 1
    assert batch[0, 1, 1, 0] == 255


def test_float_files(tmp_path: Path) -> None:
    array = np.array([[0, 0.5], [100.25, 255]], np.float32)
    path = save_image(Image.fromarray(array), tmp_path / "float.tiff")
    np.testing.assert_array_equal(load_unprepared(path)[0, ..., 1], array)


def test_1_bit_files(tmp_path: Path) -> None:
    path = save_image(Image.fromarray(np.array([[True, False]])), tmp_path / "bits.png")
    np.testing.assert_array_equal(load_unprepared(path)[0], [[[255] * 3, [0] * 3]])


def test_cmyk_files(tmp_path: Path) -> None:
    path = save_image(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), tmp_path / "print.jpg")
    assert load_unprepared(path).min() > 250


def test_animation_uses_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (40, 80)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    batch = load_unprepared(tmp_path / "moving.gif")
    assert batch.shape == (1, 4, 4, 3)
    assert (batch[..., 0] == 40).all()


# --- input of the model


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_grayscale_model(dtype: str) -> None:
    model = make_model(4, 6, 1)
    array = make_picture()
    luma = array @ np.array([0.299, 0.587, 0.114])
    batch = load_unprepared(array.astype(dtype), model=model)
    assert batch.shape == (1, 4, 6, 1)
    np.testing.assert_allclose(batch[0, ..., 0], luma, atol=1)
    gray = load_unprepared(array[..., 0].astype(dtype), model=model)
    np.testing.assert_array_equal(gray[0, ..., 0], array[..., 0])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_model_with_four_channels(dtype: str) -> None:
    model = make_model(4, 6, 4)
    opaque = load_unprepared(make_picture().astype(dtype), model=model)
    np.testing.assert_array_equal(opaque[0, ..., :3], make_picture())
    assert (opaque[..., 3] == 255).all()
    rgba = np.dstack([make_picture(), make_picture()[..., 2]]).astype(dtype)
    np.testing.assert_array_equal(load_unprepared(rgba, model=model), rgba[None])
    gray = load_unprepared(make_picture()[..., 2].astype(dtype), model=model)
    np.testing.assert_array_equal(gray[0, ..., 1], make_picture()[..., 2])
    assert (gray[..., 3] == 255).all()


def test_channels_first_model() -> None:
    batch = load_unprepared(make_picture(), model=make_channels_first_model(3, 4, 6))
    np.testing.assert_array_equal(batch, make_picture().transpose(2, 0, 1)[None])
    assert load_images(make_picture(), model=make_channels_first_model(1, 8, 9)).shape == (
        1,
        1,
        8,
        9,
    )


def test_channels_first_model_with_application_preprocessing() -> None:
    batch = load_images(
        make_picture(), preprocess="VGG16", model=make_channels_first_model(3, 4, 6)
    )
    truth = load_images(make_picture(), preprocess="VGG16", model=make_model(4, 6, 3))
    np.testing.assert_array_equal(batch, truth.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(8, 8, 2), (8, 8, 7), (10,), (5, 10), (4, 8, 8, 3)])
def test_model_without_image_input_raises(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="the model takes"):
        load_unprepared(make_picture(), model=make_model(*shape))


def test_model_with_several_inputs_raises() -> None:
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    with pytest.raises(ShapeError, match="the model takes"):
        load_unprepared(make_picture(), model=keras.Model([a, b], layers.Add()([a, b])))


# --- preprocessing


UNIT_PIXELS = make_picture()[None] / np.float32(255)


def preprocess_picture(module: Any) -> Array:
    prepared: Array = module.preprocess_input(make_picture()[None].astype(np.float32))
    return prepared


def test_no_model_scales_pixels_to_unit_range() -> None:
    np.testing.assert_array_equal(load_images(make_picture()), UNIT_PIXELS)


def test_custom_model_scales_pixels_to_unit_range() -> None:
    np.testing.assert_array_equal(
        load_images(make_picture(), model=make_model(4, 6, 3)), UNIT_PIXELS
    )
    empty = keras.Sequential(name="empty")
    np.testing.assert_array_equal(load_images(make_picture(), model=empty), UNIT_PIXELS)


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), include_top=False, alpha=0.35
    )


def test_application_gets_its_preprocessing(mobilenet: Any) -> None:
    array = make_picture(32, 32)
    truth = keras.applications.mobilenet_v2.preprocess_input(array[None].astype(np.float32))
    np.testing.assert_array_equal(load_images(array, model=mobilenet), truth)
    assert truth.min() == -1  # unlike the unit range of a custom model


def test_model_that_starts_with_application_gets_its_preprocessing(mobilenet: Any) -> None:
    array = make_picture(32, 32)
    truth = load_images(array, model=mobilenet)
    head = layers.GlobalAveragePooling2D()
    stacked = keras.Sequential([keras.Input((32, 32, 3)), mobilenet, head], name="mine")
    np.testing.assert_array_equal(load_images(array, model=stacked), truth)
    inputs = keras.Input((32, 32, 3))
    connected = keras.Model(inputs, head(mobilenet(inputs)), name="mine_too")
    np.testing.assert_array_equal(load_images(array, model=connected), truth)
    deeper = keras.Sequential([keras.Input((32, 32, 3)), connected], name="deeper")
    np.testing.assert_array_equal(load_images(array, model=deeper), truth)


@pytest.mark.parametrize(
    "first",
    [
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Normalization(mean=[1, 2, 3], variance=[2, 2, 2]),
    ],
    ids=["Rescaling", "Normalization"],
)
def test_model_with_scaling_layer_gets_pixels(first: Any) -> None:
    model = keras.Sequential([keras.Input((4, 6, 3)), first, layers.Conv2D(2, 3)])
    np.testing.assert_array_equal(load_images(make_picture(), model=model), make_picture()[None])
    inputs = keras.Input((4, 6, 3))
    functional = keras.Model(inputs, layers.Conv2D(2, 3)(first(inputs)))
    np.testing.assert_array_equal(
        load_images(make_picture(), model=functional), make_picture()[None]
    )
    nested = keras.Sequential([keras.Input((4, 6, 3)), functional])
    np.testing.assert_array_equal(load_images(make_picture(), model=nested), make_picture()[None])


def test_application_after_rescaling_layer_gets_pixels(mobilenet: Any) -> None:
    rescaling = layers.Rescaling(1 / 127.5, offset=-1)
    model = keras.Sequential([keras.Input((32, 32, 3)), rescaling, mobilenet], name="mine")
    array = make_picture(32, 32)
    np.testing.assert_array_equal(load_images(array, model=model), array[None])


@pytest.mark.parametrize("name", ["VGG16", "vgg16", "Vgg16"])
def test_preprocessing_by_application_name(name: str) -> None:
    truth = preprocess_picture(keras.applications.vgg16)
    np.testing.assert_array_equal(load_images(make_picture(), preprocess=name), truth)


def test_preprocess_option_overrides_model(mobilenet: Any) -> None:
    batch = load_images(make_picture(32, 32), preprocess="none", model=mobilenet)
    np.testing.assert_array_equal(batch, make_picture(32, 32)[None])
    unit = load_images(make_picture(32, 32), preprocess="unit", model=mobilenet)
    np.testing.assert_array_equal(unit, make_picture(32, 32)[None] / np.float32(255))
    assert unit.dtype == np.float32


def test_preprocess_function_receives_whole_batch() -> None:
    batches: list[Array] = []

    def prepare(pixels: Array) -> Any:
        batches.append(pixels)
        return (pixels + 1).tolist()  # any array-like result is accepted

    batch = load_images([make_picture(), make_picture()], preprocess=prepare)
    assert batches[0].shape == (2, 4, 6, 3)
    assert batches[0].dtype == np.float32
    np.testing.assert_array_equal(batch[1], make_picture() + 1.0)


def test_unknown_preprocessing_raises_with_suggestions() -> None:
    with pytest.raises(OptionError, match=r"not 'vgg61' \(did you mean .*VGG16") as caught:
        load_images(make_picture(), preprocess="vgg61")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(OptionError, match="not 3"):
        load_images(make_picture(), preprocess=3)  # type: ignore[arg-type]


# --- errors


def test_missing_file_raises_file_not_found_error(tmp_path: Path) -> None:
    for source in (tmp_path / "nothing.png", str(tmp_path / "*.png"), [tmp_path / "nothing.png"]):
        with pytest.raises(MissingFileError, match=r"there is no image .*\.png") as caught:
            load_images(source)
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, ActgridError)


def test_folder_without_images_raises(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MissingFileError, match="holds no images") as caught:
        load_images(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_invalid_image_raises_os_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load_images(path)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, ActgridError)
    assert str(path) in str(caught.value)


def test_unknown_image_format_raises(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(ImageError, match="is not an image that Pillow can read"):
        load_images(tmp_path / "words.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".webp", ".gif"])
@pytest.mark.parametrize("kept_fraction", [0.4, 0.8])
def test_truncated_image_raises(tmp_path: Path, suffix: str, kept_fraction: float) -> None:
    path = tmp_path / f"half{suffix}"
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept_fraction)])
    with pytest.raises(ImageError) as caught:
        load_images(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("max_pixels", [70, 20], ids=["warning", "error"])
def test_decompression_bomb_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_pixels: int
) -> None:
    path = save_image(Image.new("L", (10, 10)), tmp_path / "bomb.png")
    # Pillow warns beyond this many pixels, and raises beyond twice as many.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", max_pixels)
    with pytest.raises(
        ImageError, match=rf"too large to be safe: expected at most {max_pixels} pixels"
    ):
        load_images(path)


@pytest.mark.parametrize(
    "shape", [(0, 8, 3), (8, 0), (0, 0, 3), (8,), (), (8, 8, 2), (8, 8, 5), (1, 1, 8, 8, 3)]
)
def test_array_of_wrong_shape_raises(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"an image must be \(H, W\)") as caught:
        load_images(np.zeros(shape, np.uint8))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("array", [np.zeros((4, 4), complex), np.full((4, 4), "a")])
def test_array_of_wrong_dtype_raises(array: Array) -> None:
    with pytest.raises(OptionError, match="must have numeric pixels from 0 to 255"):
        load_images(array)


def test_images_of_different_sizes_need_a_size() -> None:
    images = [make_picture(4, 6), make_picture(5, 5)]
    with pytest.raises(ShapeError, match=r"4 x 6, 5 x 5.*set size"):
        load_images(images)
    assert load_unprepared(images, 3).shape == (2, 3, 3, 3)


@pytest.mark.parametrize(
    "size",
    [0, -1, (0, 5), (5,), (5, 5, 3), "large", 2.5, (5, 2.5), (5, None), ("5", "5")],
)
def test_invalid_size_raises(size: Any) -> None:
    with pytest.raises(OptionError, match="size must be"):
        load_images(make_picture(), size=size)


@pytest.mark.parametrize("fit", ["middle", "", None])
def test_invalid_fit_raises(fit: Any) -> None:
    with pytest.raises(OptionError, match="fit must be one of crop, pad, stretch"):
        load_images(make_picture(), fit=fit)


@pytest.mark.parametrize("source", [None, 5, [None], 1.5])
def test_invalid_source_raises(source: Any) -> None:
    with pytest.raises(OptionError, match="images must be files, folders"):
        load_images(source)


@pytest.mark.parametrize("source", [[], (), np.zeros((0, 4, 4, 3))])
def test_empty_sources_raise(source: Any) -> None:
    with pytest.raises(OptionError, match="no images were given"):
        load_images(source)


def make_model_with_layers(*steps: Any, name: str | None = None) -> Any:
    return keras.Sequential(
        [keras.Input((16, 16, 3)), *steps, keras.layers.Conv2D(2, 3)], name=name
    )


@pytest.mark.parametrize(
    "model",
    [
        make_model_with_layers(keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)),
        make_model_with_layers(
            keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)]),
            keras.layers.Rescaling(1 / 255),
        ),
        make_model_with_layers(keras.layers.Resizing(16, 16), keras.layers.Rescaling(1 / 255)),
        make_model_with_layers(
            keras.layers.Rescaling(1 / 127.5, offset=-1), name="mobilenetv2_flowers"
        ),
    ],
    ids=["augmentation", "nested augmentation", "resizing", "named like an application"],
)
def test_models_with_scaling_layers_get_pixels(model: Any) -> None:
    picture = np.full((16, 16, 3), 200, np.uint8)
    assert load_images(picture, model=model).max() == 200


def test_arithmetic_before_application_replaces_preprocessing() -> None:
    inputs = keras.Input((32, 32, 3))
    backbone = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), weights=None, include_top=False
    )
    scaled = keras.Model(inputs, backbone(inputs / 127.5 - 1))
    bare = keras.Model(inputs, backbone(keras.layers.RandomFlip()(inputs)))
    picture = np.full((32, 32, 3), 255, np.uint8)
    assert load_images(picture, model=scaled).max() == 255
    assert load_images(picture, model=bare).max() == 1


def test_mode_i_with_8_or_16_bits() -> None:
    for max_value, expected in ((255, 255), (65535, 255)):
        picture = Image.fromarray(np.array([[0, max_value]], np.int32))
        assert load_images(picture, preprocess="none")[0, 0, :, 0].tolist() == [0, expected]


def test_premultiplied_alpha() -> None:
    picture = Image.new("RGBA", (3, 2), (200, 100, 50, 255)).convert("RGBa")
    assert load_images(picture, preprocess="none")[0, 0, 0].tolist() == [200, 100, 50]


def test_tensors_are_accepted() -> None:
    import tensorflow as tf

    tensor = tf.constant(np.full((2, 4, 5, 3), 9, np.uint8))
    assert load_images(tensor, preprocess="none").shape == (2, 4, 5, 3)


def test_load_with_pixels_returns_pixels_and_batch() -> None:
    round_means = np.random.default_rng(1).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)
    # The preprocessing works in place, as Keras functions do, and channels come first.
    model = make_channels_first_model(3, 6, 5)
    pixels, batch = load_with_pixels(round_means, preprocess="ResNet50", model=model)
    np.testing.assert_array_equal(pixels, round_means)
    np.testing.assert_array_equal(
        batch, load_images(round_means, preprocess="ResNet50", model=model)
    )
    mean = np.array([103.939, 116.779, 123.68], np.float32)
    np.testing.assert_allclose(np.moveaxis(batch, 1, -1), round_means[..., ::-1] - mean, rtol=1e-4)


def test_folder_images_are_sorted_by_path(tmp_path: Path) -> None:
    names = ["a.png", "a/1.png", "a/b/1.png", "a b/1.png", "a-b.png", "B/1.png", "é.png", "a/0.PNG"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a/notes.md").touch()
    (tmp_path / "a/all").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a/itself.png").symlink_to(tmp_path / "a/itself.png")
    (tmp_path / "a/2.png").symlink_to(tmp_path / "a.png")
    for hidden in (".DS_Store", "._a.png", ".thumbnails/1.png", "a/.1.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).touch()
    # Broken links are yielded, so that the caller reports them; special files are not.
    (tmp_path / "a/nowhere.png").symlink_to("nothing.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "a/pipe.png").symlink_to(tmp_path / "pipe.png")
    links = ["a/2.png", "a/itself.png", "a/nowhere.png"]
    paths = sorted(tmp_path / name for name in [*names, *links])
    assert find_images(tmp_path) == paths
    assert [tmp_path / name for name in iterate_folder_images(tmp_path)] == paths


# --- sizes of models without symbolic inputs


class ConvolutionalModel(keras.Model):  # type: ignore[misc]
    """A subclassed model for images of any size, or with `dense` of one size."""

    def __init__(self, dense: bool = False) -> None:
        super().__init__()
        self.convolution = layers.Conv2D(2, 3)
        self.ending = layers.Flatten() if dense else layers.GlobalAveragePooling2D()
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(self.ending(self.convolution(x)))


def test_first_call_of_convolutional_model_fixes_no_size() -> None:
    model = ConvolutionalModel()
    model(np.zeros((1, 9, 11, 3), np.float32))
    assert find_image_input(model).size is None
    assert load_unprepared(make_picture(), model=model).shape == (1, 4, 6, 3)
    assert load_unprepared(make_picture(), 5, model=model).shape == (1, 5, 5, 3)
    # The weights of the model have not changed.
    assert [tuple(weight.shape) for weight in model.weights] == [(3, 3, 3, 2), (2,), (2, 2), (2,)]


def test_flatten_and_dense_fix_size_of_first_call() -> None:
    model = ConvolutionalModel(dense=True)
    model(np.zeros((1, 9, 11, 3), np.float32))
    assert find_image_input(model).size == (9, 11)
    assert load_unprepared(make_picture(), model=model).shape == (1, 9, 11, 3)


def test_size_of_failed_call_is_not_stored() -> None:
    class Own(ConvolutionalModel):
        def build(self, input_shape: Any) -> None:
            self.convolution.build((None, 24, 24, 3))
            self.dense.build((None, 22 * 22 * 2))

    model = Own(dense=True)
    with pytest.raises(ModelError):
        explain(model, load_unprepared(make_picture()), "saliency")
    assert find_image_input(model).size is None
    explain(model, load_unprepared(make_picture(), 24), "saliency", 0)
    assert find_image_input(model).size == (24, 24)
    assert load_unprepared(make_picture(), model=model).shape == (1, 24, 24, 3)


# --- photos in their own size


@pytest.mark.parametrize(
    ("size", "fit", "box"),
    [
        (10, "crop", (0, 10, 20, 30)),
        (10, "pad", (-10, 0, 30, 40)),
        (10, "stretch", (0, 0, 20, 40)),
        ((30, 10), "crop", (0, 16, 20, 23)),
        ((10, 40), "pad", (0, -20, 20, 60)),
        (None, "crop", (0, 0, 20, 40)),
    ],
)
def test_photo_box_is_the_part_for_the_model(
    size: Any, fit: str, box: tuple[int, int, int, int]
) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    (photo,) = load_photos(array, size=size, fit=fit)
    np.testing.assert_array_equal(photo.pixels, array)
    assert photo.box == box


def test_photo_box_contains_loaded_pixels() -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    (photo,) = load_photos(Image.fromarray(array), model=make_model(20, 20, 3))
    top, left, bottom, right = photo.box
    loaded = load_unprepared(array, model=make_model(20, 20, 3))[0]
    np.testing.assert_array_equal(photo.pixels[top:bottom, left:right], loaded)


def test_photos_of_grayscale_model_keep_colours(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    path = save_image(Image.fromarray(array), tmp_path / "photo.png")
    opened = open_images([path, array])
    assert isinstance(opened[0], Image.Image)
    for photo in load_photos(opened, model=make_model(8, 8, 1)):
        np.testing.assert_array_equal(photo.pixels, array)


def test_demo_is_the_embedded_photo_not_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    Image.fromarray(make_picture()).save(tmp_path / "demo" / "own.png")
    photo = np.asarray(actgrid.demo.photo(), np.float32)[None]
    np.testing.assert_array_equal(load_images("demo", preprocess="none"), photo)
    np.testing.assert_array_equal(load_images(["demo"], preprocess="none"), photo)
    own = make_picture()[None].astype(np.float32)
    for path in ("./demo", Path("demo"), "demo/own.png", "dem*/own.png"):
        np.testing.assert_array_equal(load_images(path, preprocess="none"), own)
    (item,) = find_items("demo").start()
    assert (item.key, item.source) == ("cat", find_images("demo")[0])
    assert find_items("demo").are_named_files
    assert [image.name for image in ImageStore("demo").list_images(0, 9)] == ["cat.jpg"]
    assert [image.name for image in ImageStore(["./demo", "demo"]).list_images(0, 9)] == [
        "own.png",
        "cat.jpg",
    ]
