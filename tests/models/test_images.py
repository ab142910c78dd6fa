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
from actgrid.models.image_inputs import image_input
from actgrid.models.image_sources import find_images, images_in_folder, open_images
from actgrid.models.images import load_photos, load_with_pixels
from actgrid.runs.sources import find_items
from actgrid.web.images import ImageStore

Array = npt.NDArray[Any]


def colours(height: int = 4, width: int = 6) -> Array:
    """An RGB picture of which every pixel differs from every other."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 40, x * 40, (y * width + x) * 5], axis=-1).astype(np.uint8)


def taking(*shape: int | None, name: str = "model") -> Any:
    """A model that takes inputs of this shape."""
    return keras.Sequential([keras.Input(shape), layers.Activation("relu")], name=name)


def taking_first(*shape: int | None) -> Any:
    """A model that takes inputs of this shape, with the channels first."""
    flatten = layers.Flatten(data_format="channels_first")
    return keras.Sequential([keras.Input(shape), flatten])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of level 10, 20, 30 and 40, and files of other kinds."""
    root = tmp_path / "photos"
    (root / "sub" / "deeper").mkdir(parents=True)
    for level, name in enumerate(["a.png", "b.JPG", "sub/c.png", "sub/deeper/d.bmp"], 1):
        Image.new("L", (5, 4), level * 10).save(root / name)
    (root / "notes.txt").write_text("no image")
    (root / "sub" / "model.keras").write_bytes(b"no image")
    return root


def levels(batch: Array) -> list[int]:
    return [round(float(image.mean())) for image in batch]


def plain(source: Any, size: Any = None, **options: Any) -> Array:
    return load_images(source, size=size, preprocess="none", **options)


# --- sources


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file(folder: Path, kind: Callable[[Path], Any]) -> None:
    batch = plain(kind(folder / "a.png"))
    assert batch.shape == (1, 4, 5, 3)
    assert batch.dtype == np.float32
    assert levels(batch) == [10]


def test_a_folder_is_read_recursively_in_order(folder: Path) -> None:
    assert levels(plain(folder)) == [10, 20, 30, 40]
    names = [str(path.relative_to(folder)) for path in find_images(folder)]
    assert names == ["a.png", "b.JPG", str(Path("sub/c.png")), str(Path("sub/deeper/d.bmp"))]


def test_models_and_weights_beside_images_are_no_images(folder: Path) -> None:
    # Pillow knows the suffix .h5, but cannot read such a file.
    (folder / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert levels(plain(folder)) == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("pattern", "found"),
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
def test_globs(folder: Path, pattern: str, found: list[int]) -> None:
    assert levels(plain(str(folder / pattern))) == found


def test_folders_that_a_glob_matches_are_no_images(folder: Path) -> None:
    (folder / "notes.txt").unlink()
    (folder / "sub" / "model.keras").unlink()
    assert levels(plain(str(folder / "**"))) == [10, 20, 30, 40]


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 50).save(tmp_path / "a[1].png")
    Image.new("L", (2, 2), 60).save(tmp_path / "a1.png")
    assert levels(plain(tmp_path / "a[1].png")) == [50]


def test_lists_of_all_kinds_keep_their_order(folder: Path) -> None:
    sources = [
        folder / "sub" / "c.png",
        Image.new("RGB", (5, 4), (50, 50, 50)),
        np.full((4, 5, 3), 60, np.uint8),
        str(folder / "?.*"),
        np.full((2, 4, 5, 1), 70.0),
    ]
    assert levels(plain(sources)) == [30, 50, 60, 10, 20, 70, 70]
    assert levels(plain(source for source in sources[:2])) == [30, 50]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int64", "float16", "float32", "float64"])
def test_arrays_of_pixels_keep_their_values(dtype: str) -> None:
    array = colours().astype(dtype)
    np.testing.assert_array_equal(plain(array), colours()[None])


def test_float_pixels_are_not_rounded() -> None:
    array = colours() + np.float32(0.25)
    np.testing.assert_array_equal(plain(array), array[None])


def test_pixels_beyond_the_levels_are_clipped() -> None:
    array = np.array([[-5.0, 0.5], [255.0, 1000.0]])
    np.testing.assert_array_equal(plain(array)[0, ..., 0], [[0, 0.5], [255, 255]])


def test_grayscale_arrays() -> None:
    gray = colours()[..., 2]
    for array in (gray, gray[..., None], gray.astype(np.float32)):
        np.testing.assert_array_equal(plain(array), np.repeat(gray[None, ..., None], 3, -1))


def test_a_batch_of_arrays_is_several_images() -> None:
    batch = np.stack([colours(), colours() // 2])
    np.testing.assert_array_equal(plain(batch), batch)


def test_sources_are_not_changed() -> None:
    array = colours().astype(np.float32)
    picture = Image.fromarray(colours())
    load_images([array, picture], preprocess=lambda pixels: np.multiply(pixels, 2, out=pixels))
    np.testing.assert_array_equal(array, colours())
    np.testing.assert_array_equal(np.asarray(picture), colours())


# --- sizes


@pytest.mark.parametrize(
    ("size", "expected"), [((3, 7), (3, 7)), (5, (5, 5)), ([2, 4], (2, 4)), (None, (4, 6))]
)
def test_sizes_are_height_and_width(size: Any, expected: tuple[int, int]) -> None:
    assert plain(colours(), size).shape == (1, *expected, 3)


@pytest.mark.parametrize("size", [np.int64(5), (np.int64(5), np.int32(5)), np.array([5, 5])])
def test_sizes_may_be_numpys_integers(size: Any) -> None:
    assert plain(colours(), size).shape == (1, 5, 5, 3)


def test_the_size_is_the_models_unless_one_is_given() -> None:
    model = taking(7, 9, 3)
    assert plain(colours(), model=model).shape == (1, 7, 9, 3)
    assert plain(colours(), 5, model=model).shape == (1, 5, 5, 3)
    assert image_input(model)[2] == (7, 9)


def test_images_keep_their_size_where_the_models_is_not_fixed() -> None:
    model = taking(None, None, 3)
    assert plain(colours(), model=model).shape == (1, 4, 6, 3)
    assert image_input(model)[2] is None


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((None, 12, 3), (8, 12)), ((None, 3, 3), (2, 3)), ((8, None, 3), (8, 12))],
)
def test_images_keep_their_shape_where_the_model_fixes_one_side(
    shape: tuple[int | None, ...], expected: tuple[int, int]
) -> None:
    model = taking(*shape)
    assert plain(colours(), model=model).shape == (1, *expected, 3)
    (photo,) = load_photos(colours(), model=model)
    assert photo.box == (0, 0, 4, 6)
    assert image_input(model).size is None


def test_a_model_that_says_nothing_of_its_input_takes_rgb_of_any_size() -> None:
    model = keras.Sequential([layers.Conv2D(2, 3)])
    assert plain(colours(), model=model).shape == (1, 4, 6, 3)


def test_images_of_one_size_stay_exact() -> None:
    for fit in ("crop", "pad", "stretch"):
        np.testing.assert_array_equal(plain(colours(), (4, 6), fit=fit), colours()[None])


def test_crop_takes_the_middle() -> None:
    wide = plain(colours(4, 8), 4, fit="crop")
    np.testing.assert_array_equal(wide, colours(4, 8)[None, :, 2:6])
    tall = plain(colours(6, 4), (2, 4), fit="crop")
    np.testing.assert_array_equal(tall, colours(6, 4)[None, 2:4])


def test_crop_is_the_default() -> None:
    np.testing.assert_array_equal(plain(colours(4, 8), 4), plain(colours(4, 8), 4, fit="crop"))


def test_pad_shows_the_whole_image_on_black() -> None:
    wide = plain(colours(2, 6) + 1, 6, fit="pad")
    np.testing.assert_array_equal(wide[0, 2:4], colours(2, 6) + 1)
    assert not wide[0, :2].any()
    assert not wide[0, 4:].any()
    tall = plain((colours(6, 2) + 1).astype(np.float32), 6, fit="pad")
    np.testing.assert_array_equal(tall[0, :, 2:4], colours(6, 2) + 1)
    assert not tall[0, :, :2].any()
    assert not tall[0, :, 4:].any()


def test_stretch_shows_the_whole_image() -> None:
    halves = np.zeros((4, 8), np.uint8)
    halves[:, 4:] = 200
    batch = plain(halves, (8, 4), fit="stretch")
    assert batch.shape == (1, 8, 4, 3)
    assert (batch[0, :, 0] < 20).all()
    assert (batch[0, :, -1] > 180).all()
    np.testing.assert_array_equal(batch[0, 0], batch[0, -1])


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_flat_image_stays_flat_at_any_size(fit: str, dtype: str) -> None:
    batch = plain(np.full((5, 5, 3), 77, dtype), 13, fit=fit)
    np.testing.assert_allclose(batch, 77, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_resizing_does_not_leave_the_levels(dtype: str) -> None:
    edges = np.zeros((8, 8), dtype)
    edges[2:6, 2:6] = 255  # bicubic resampling overshoots here
    batch = plain(edges, 21)
    assert batch.min() == 0
    assert batch.max() == 255


def test_a_very_long_image_can_be_cropped() -> None:
    assert plain(colours(1, 100), (50, 1)).shape == (1, 50, 1, 3)


# --- kinds of images


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", ".webp"])
def test_exif_orientation_is_honoured(tmp_path: Path, suffix: str) -> None:
    array = np.zeros((16, 32, 3), np.uint8)
    array[:8, :16] = (255, 0, 0)  # red at the top left, as it was stored
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: it is then at the top right
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(array).save(path, exif=exif, quality=95)
    batch = plain(path)
    assert batch.shape == (1, 32, 16, 3)
    assert batch[0, 4, 12, 0] > 200
    assert batch[0, 4, 4, 0] < 50
    assert batch[0, 28, 12, 0] < 50
    with Image.open(path) as picture:
        np.testing.assert_array_equal(plain(picture), batch)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_grayscale_files(tmp_path: Path) -> None:
    gray = colours()[..., 2]
    path = saved(Image.fromarray(gray), tmp_path / "gray.png")
    np.testing.assert_array_equal(plain(path), np.repeat(gray[None, ..., None], 3, -1))


def test_palette_files(tmp_path: Path) -> None:
    image = Image.fromarray(colours()).quantize(24)
    path = saved(image, tmp_path / "palette.png")
    np.testing.assert_array_equal(plain(path)[0], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255])])
def test_palette_files_with_transparency(tmp_path: Path, transparency: int | bytes) -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    path = saved(image, tmp_path / "palette.png", transparency=transparency)
    red, green, blue = [255, 0, 0], [0, 255, 0], [0, 0, 255]
    np.testing.assert_array_equal(plain(path)[0], [[red, green], [blue, green]])
    alpha = plain(path, model=taking(2, 2, 4))[0, ..., 3]
    expected = [0, 255, 255] if transparency == 0 else [0, 128, 255]
    np.testing.assert_array_equal(alpha, np.array(expected)[[[0, 1], [2, 1]]])


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_files_with_an_alpha_channel(tmp_path: Path, mode: str) -> None:
    array = np.full((2, 2, len(mode)), 90, np.uint8)
    array[..., -1] = 200
    path = saved(Image.fromarray(array), tmp_path / "alpha.png")
    np.testing.assert_array_equal(plain(path), np.full((1, 2, 2, 3), 90))


def test_16_bit_files_are_scaled_exactly(tmp_path: Path) -> None:
    array = np.array([[0, 257, 1000], [32768, 65535, 255]], np.uint16)
    path = saved(Image.fromarray(array), tmp_path / "deep.png")
    with Image.open(path) as image:
        assert image.mode.startswith("I")
    batch = plain(path)
    assert batch.shape == (1, 2, 3, 3)
    np.testing.assert_array_equal(batch[0, ..., 0], array.astype(np.float32) / 257)
    assert batch[0, 0, 1, 0] == 1
    assert batch[0, 1, 1, 0] == 255


def test_float_files(tmp_path: Path) -> None:
    array = np.array([[0, 0.5], [100.25, 255]], np.float32)
    path = saved(Image.fromarray(array), tmp_path / "float.tiff")
    np.testing.assert_array_equal(plain(path)[0, ..., 1], array)


def test_1_bit_files(tmp_path: Path) -> None:
    path = saved(Image.fromarray(np.array([[True, False]])), tmp_path / "bits.png")
    np.testing.assert_array_equal(plain(path)[0], [[[255] * 3, [0] * 3]])


def test_cmyk_files(tmp_path: Path) -> None:
    path = saved(Image.new("CMYK", (8, 8), (0, 0, 0, 0)), tmp_path / "print.jpg")
    assert plain(path).min() > 250


def test_an_animation_is_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (level, 0, 0)) for level in (40, 80)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    batch = plain(tmp_path / "moving.gif")
    assert batch.shape == (1, 4, 4, 3)
    assert (batch[..., 0] == 40).all()


# --- what the model takes


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_grayscale_model(dtype: str) -> None:
    model = taking(4, 6, 1)
    array = colours()
    luma = array @ np.array([0.299, 0.587, 0.114])
    batch = plain(array.astype(dtype), model=model)
    assert batch.shape == (1, 4, 6, 1)
    np.testing.assert_allclose(batch[0, ..., 0], luma, atol=1)
    gray = plain(array[..., 0].astype(dtype), model=model)
    np.testing.assert_array_equal(gray[0, ..., 0], array[..., 0])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_model_of_four_channels(dtype: str) -> None:
    model = taking(4, 6, 4)
    opaque = plain(colours().astype(dtype), model=model)
    np.testing.assert_array_equal(opaque[0, ..., :3], colours())
    assert (opaque[..., 3] == 255).all()
    rgba = np.dstack([colours(), colours()[..., 2]]).astype(dtype)
    np.testing.assert_array_equal(plain(rgba, model=model), rgba[None])
    gray = plain(colours()[..., 2].astype(dtype), model=model)
    np.testing.assert_array_equal(gray[0, ..., 1], colours()[..., 2])
    assert (gray[..., 3] == 255).all()


def test_a_channels_first_model() -> None:
    batch = plain(colours(), model=taking_first(3, 4, 6))
    np.testing.assert_array_equal(batch, colours().transpose(2, 0, 1)[None])
    assert load_images(colours(), model=taking_first(1, 8, 9)).shape == (1, 1, 8, 9)


def test_a_channels_first_model_gets_preprocessing_along_the_channels() -> None:
    batch = load_images(colours(), preprocess="VGG16", model=taking_first(3, 4, 6))
    truth = load_images(colours(), preprocess="VGG16", model=taking(4, 6, 3))
    np.testing.assert_array_equal(batch, truth.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(8, 8, 2), (8, 8, 7), (10,), (5, 10), (4, 8, 8, 3)])
def test_a_model_that_takes_no_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="the model takes"):
        plain(colours(), model=taking(*shape))


def test_a_model_of_several_inputs_is_refused() -> None:
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    with pytest.raises(ShapeError, match="the model takes"):
        plain(colours(), model=keras.Model([a, b], layers.Add()([a, b])))


# --- preprocessing


UNIT = colours()[None] / np.float32(255)


def application_pixels(module: Any) -> Array:
    prepared: Array = module.preprocess_input(colours()[None].astype(np.float32))
    return prepared


def test_without_a_model_pixels_become_0_to_1() -> None:
    np.testing.assert_array_equal(load_images(colours()), UNIT)


def test_a_model_of_ones_own_gets_0_to_1() -> None:
    np.testing.assert_array_equal(load_images(colours(), model=taking(4, 6, 3)), UNIT)
    empty = keras.Sequential(name="empty")
    np.testing.assert_array_equal(load_images(colours(), model=empty), UNIT)


@pytest.fixture(scope="module")
def mobilenet() -> Any:
    return keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), include_top=False, alpha=0.35
    )


def test_an_application_gets_its_own_preprocessing(mobilenet: Any) -> None:
    array = colours(32, 32)
    truth = keras.applications.mobilenet_v2.preprocess_input(array[None].astype(np.float32))
    np.testing.assert_array_equal(load_images(array, model=mobilenet), truth)
    assert truth.min() == -1  # unlike that of a model of one's own


def test_a_model_that_begins_with_an_application_gets_its_preprocessing(mobilenet: Any) -> None:
    array = colours(32, 32)
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
def test_a_model_that_prepares_its_input_gets_pixels(first: Any) -> None:
    model = keras.Sequential([keras.Input((4, 6, 3)), first, layers.Conv2D(2, 3)])
    np.testing.assert_array_equal(load_images(colours(), model=model), colours()[None])
    inputs = keras.Input((4, 6, 3))
    functional = keras.Model(inputs, layers.Conv2D(2, 3)(first(inputs)))
    np.testing.assert_array_equal(load_images(colours(), model=functional), colours()[None])
    nested = keras.Sequential([keras.Input((4, 6, 3)), functional])
    np.testing.assert_array_equal(load_images(colours(), model=nested), colours()[None])


def test_an_application_after_a_rescaling_layer_gets_pixels(mobilenet: Any) -> None:
    rescaling = layers.Rescaling(1 / 127.5, offset=-1)
    model = keras.Sequential([keras.Input((32, 32, 3)), rescaling, mobilenet], name="mine")
    array = colours(32, 32)
    np.testing.assert_array_equal(load_images(array, model=model), array[None])


@pytest.mark.parametrize("name", ["VGG16", "vgg16", "Vgg16"])
def test_preprocessing_by_the_name_of_an_application(name: str) -> None:
    truth = application_pixels(keras.applications.vgg16)
    np.testing.assert_array_equal(load_images(colours(), preprocess=name), truth)


def test_a_given_preprocessing_comes_before_the_models(mobilenet: Any) -> None:
    batch = load_images(colours(32, 32), preprocess="none", model=mobilenet)
    np.testing.assert_array_equal(batch, colours(32, 32)[None])
    unit = load_images(colours(32, 32), preprocess="unit", model=mobilenet)
    np.testing.assert_array_equal(unit, colours(32, 32)[None] / np.float32(255))
    assert unit.dtype == np.float32


def test_a_function_gets_the_whole_batch() -> None:
    seen: list[Array] = []

    def prepare(pixels: Array) -> Any:
        seen.append(pixels)
        return (pixels + 1).tolist()  # anything that NumPy takes

    batch = load_images([colours(), colours()], preprocess=prepare)
    assert seen[0].shape == (2, 4, 6, 3)
    assert seen[0].dtype == np.float32
    np.testing.assert_array_equal(batch[1], colours() + 1.0)


def test_an_unknown_preprocessing_is_refused_with_close_names() -> None:
    with pytest.raises(OptionError, match=r"not 'vgg61' \(did you mean .*VGG16") as caught:
        load_images(colours(), preprocess="vgg61")
    assert isinstance(caught.value, ValueError)
    with pytest.raises(OptionError, match="not 3"):
        load_images(colours(), preprocess=3)  # type: ignore[arg-type]


# --- errors


def test_a_missing_file_is_a_file_not_found_error(tmp_path: Path) -> None:
    for source in (tmp_path / "nothing.png", str(tmp_path / "*.png"), [tmp_path / "nothing.png"]):
        with pytest.raises(MissingFileError, match=r"there is no image .*\.png") as caught:
            load_images(source)
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, ActgridError)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(MissingFileError, match="holds no images") as caught:
        load_images(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_an_os_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        load_images(path)
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, ActgridError)
    assert str(path) in str(caught.value)


def test_what_pillow_does_not_know_is_called_no_image(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(ImageError, match="is not an image that Pillow can read"):
        load_images(tmp_path / "words.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tiff", ".webp", ".gif"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"half{suffix}"
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError) as caught:
        load_images(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("most", [70, 20], ids=["warning", "error"])
def test_a_decompression_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    path = saved(Image.new("L", (10, 10)), tmp_path / "bomb.png")
    # Pillow warns beyond this many pixels, and raises beyond twice as many.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(ImageError, match=rf"too large to be safe: more than {most} pixels"):
        load_images(path)


@pytest.mark.parametrize(
    "shape", [(0, 8, 3), (8, 0), (0, 0, 3), (8,), (), (8, 8, 2), (8, 8, 5), (1, 1, 8, 8, 3)]
)
def test_arrays_that_are_no_images_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"an image must be \(H, W\)") as caught:
        load_images(np.zeros(shape, np.uint8))
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("array", [np.zeros((4, 4), complex), np.full((4, 4), "a")])
def test_arrays_that_are_no_pixels_are_refused(array: Array) -> None:
    with pytest.raises(OptionError, match="must be of pixels 0 to 255"):
        load_images(array)


def test_images_of_different_sizes_need_a_size() -> None:
    images = [colours(4, 6), colours(5, 5)]
    with pytest.raises(ShapeError, match=r"4 x 6, 5 x 5.*give a size"):
        load_images(images)
    assert plain(images, 3).shape == (2, 3, 3, 3)


@pytest.mark.parametrize(
    "size",
    [0, -1, (0, 5), (5,), (5, 5, 3), "large", 2.5, (5, 2.5), (5, None), ("5", "5")],
)
def test_a_bad_size_is_refused(size: Any) -> None:
    with pytest.raises(OptionError, match="size must be"):
        load_images(colours(), size=size)


@pytest.mark.parametrize("fit", ["middle", "", None])
def test_a_bad_fit_is_refused(fit: Any) -> None:
    with pytest.raises(OptionError, match="fit must be one of crop, pad, stretch"):
        load_images(colours(), fit=fit)


@pytest.mark.parametrize("source", [None, 5, [None], 1.5])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(OptionError, match="images are files, folders"):
        load_images(source)


@pytest.mark.parametrize("source", [[], (), np.zeros((0, 4, 4, 3))])
def test_no_images_are_refused(source: Any) -> None:
    with pytest.raises(OptionError, match="no images were given"):
        load_images(source)


def first_steps(*steps: Any, name: str | None = None) -> Any:
    return keras.Sequential(
        [keras.Input((16, 16, 3)), *steps, keras.layers.Conv2D(2, 3)], name=name
    )


@pytest.mark.parametrize(
    "model",
    [
        first_steps(keras.layers.RandomFlip(), keras.layers.Rescaling(1 / 255)),
        first_steps(
            keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomRotation(0.1)]),
            keras.layers.Rescaling(1 / 255),
        ),
        first_steps(keras.layers.Resizing(16, 16), keras.layers.Rescaling(1 / 255)),
        first_steps(keras.layers.Rescaling(1 / 127.5, offset=-1), name="mobilenetv2_flowers"),
    ],
    ids=["augmentation", "nested augmentation", "resizing", "named like an application"],
)
def test_a_model_that_scales_its_input_is_left_to_it(model: Any) -> None:
    picture = np.full((16, 16, 3), 200, np.uint8)
    assert load_images(picture, model=model).max() == 200


def test_arithmetic_before_an_application_is_its_preprocessing() -> None:
    inputs = keras.Input((32, 32, 3))
    backbone = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), weights=None, include_top=False
    )
    scaled = keras.Model(inputs, backbone(inputs / 127.5 - 1))
    bare = keras.Model(inputs, backbone(keras.layers.RandomFlip()(inputs)))
    picture = np.full((32, 32, 3), 255, np.uint8)
    assert load_images(picture, model=scaled).max() == 255
    assert load_images(picture, model=bare).max() == 1


def test_mode_i_may_hold_8_or_16_bits() -> None:
    for most, expected in ((255, 255), (65535, 255)):
        picture = Image.fromarray(np.array([[0, most]], np.int32))
        assert load_images(picture, preprocess="none")[0, 0, :, 0].tolist() == [0, expected]


def test_pictures_premultiplied_by_alpha_are_read() -> None:
    picture = Image.new("RGBA", (3, 2), (200, 100, 50, 255)).convert("RGBa")
    assert load_images(picture, preprocess="none")[0, 0, 0].tolist() == [200, 100, 50]


def test_tensors_are_images_too() -> None:
    import tensorflow as tf

    tensor = tf.constant(np.full((2, 4, 5, 3), 9, np.uint8))
    assert load_images(tensor, preprocess="none").shape == (2, 4, 5, 3)


def test_pixels_come_with_what_is_prepared_of_them() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)
    # In place, as Keras' own functions do, and for channels first.
    model = taking_first(3, 6, 5)
    pixels, batch = load_with_pixels(levels, preprocess="ResNet50", model=model)
    np.testing.assert_array_equal(pixels, levels)
    np.testing.assert_array_equal(batch, load_images(levels, preprocess="ResNet50", model=model))
    mean = np.array([103.939, 116.779, 123.68], np.float32)
    np.testing.assert_allclose(np.moveaxis(batch, 1, -1), levels[..., ::-1] - mean, rtol=1e-4)


def test_a_folder_is_walked_in_the_order_of_its_paths(tmp_path: Path) -> None:
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
    # Of links that lead nowhere the caller is to hear; of other files in the place of one not.
    (tmp_path / "a/nowhere.png").symlink_to("nothing.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "a/pipe.png").symlink_to(tmp_path / "pipe.png")
    links = ["a/2.png", "a/itself.png", "a/nowhere.png"]
    paths = sorted(tmp_path / name for name in [*names, *links])
    assert find_images(tmp_path) == paths
    assert [tmp_path / name for name in images_in_folder(tmp_path)] == paths


# --- sizes of models without symbolic inputs


class Convolutional(keras.Model):  # type: ignore[misc]
    """A subclassed network that takes images of any size, or with `dense` of one size."""

    def __init__(self, dense: bool = False) -> None:
        super().__init__()
        self.convolution = layers.Conv2D(2, 3)
        self.ending = layers.Flatten() if dense else layers.GlobalAveragePooling2D()
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(self.ending(self.convolution(x)))


def test_what_a_convolutional_network_was_called_with_first_fixes_no_size() -> None:
    model = Convolutional()
    model(np.zeros((1, 9, 11, 3), np.float32))
    assert image_input(model).size is None
    assert plain(colours(), model=model).shape == (1, 4, 6, 3)
    assert plain(colours(), 5, model=model).shape == (1, 5, 5, 3)
    # Nothing of the model is another one for having been asked.
    assert [tuple(one.shape) for one in model.weights] == [(3, 3, 3, 2), (2,), (2, 2), (2,)]


def test_a_dense_layer_after_flatten_fixes_the_size_that_it_was_called_with() -> None:
    model = Convolutional(dense=True)
    model(np.zeros((1, 9, 11, 3), np.float32))
    assert image_input(model).size == (9, 11)
    assert plain(colours(), model=model).shape == (1, 9, 11, 3)


def test_a_size_that_the_model_cannot_take_is_not_remembered() -> None:
    class Own(Convolutional):
        def build(self, input_shape: Any) -> None:
            self.convolution.build((None, 24, 24, 3))
            self.dense.build((None, 22 * 22 * 2))

    model = Own(dense=True)
    with pytest.raises(ModelError):
        explain(model, plain(colours()), "saliency")
    assert image_input(model).size is None
    explain(model, plain(colours(), 24), "saliency", 0)
    assert image_input(model).size == (24, 24)
    assert plain(colours(), model=model).shape == (1, 24, 24, 3)


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
def test_a_photo_has_the_part_that_the_model_is_given(
    size: Any, fit: str, box: tuple[int, int, int, int]
) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    (photo,) = load_photos(array, size=size, fit=fit)
    np.testing.assert_array_equal(photo.pixels, array)
    assert photo.box == box


def test_the_part_of_a_photo_is_what_is_loaded_of_it() -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    (photo,) = load_photos(Image.fromarray(array), model=taking(20, 20, 3))
    top, left, bottom, right = photo.box
    loaded = plain(array, model=taking(20, 20, 3))[0]
    np.testing.assert_array_equal(photo.pixels[top:bottom, left:right], loaded)


def test_photos_of_a_gray_model_keep_their_colours(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)
    path = saved(Image.fromarray(array), tmp_path / "photo.png")
    opened = open_images([path, array])
    assert isinstance(opened[0], Image.Image)
    for photo in load_photos(opened, model=taking(8, 8, 1)):
        np.testing.assert_array_equal(photo.pixels, array)


def test_demo_is_the_embedded_photo_before_any_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    Image.fromarray(colours()).save(tmp_path / "demo" / "own.png")
    photo = np.asarray(actgrid.demo.photo(), np.float32)[None]
    np.testing.assert_array_equal(load_images("demo", preprocess="none"), photo)
    np.testing.assert_array_equal(load_images(["demo"], preprocess="none"), photo)
    own = colours()[None].astype(np.float32)
    for path in ("./demo", Path("demo"), "demo/own.png", "dem*/own.png"):
        np.testing.assert_array_equal(load_images(path, preprocess="none"), own)
    (item,) = find_items("demo").start()
    assert (item.key, item.source) == ("cat", find_images("demo")[0])
    assert find_items("demo").are_named_files
    assert [image.name for image in ImageStore("demo").listed(0, 9)] == ["cat.jpg"]
    assert [image.name for image in ImageStore(["./demo", "demo"]).listed(0, 9)] == [
        "own.png",
        "cat.jpg",
    ]
