from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from actgrid import load_images
from actgrid.errors import DtypeError, ImageError, OptionError, ShapeError
from actgrid.runs.manifest import Record
from actgrid.runs.processing import FinishedShard, ProcessingOptions, StageMeter
from actgrid.runs.run_spec import ImageLoader, RunSpec
from actgrid.runs.sources import Item, find_items


def make_network(*shape: int | None, first: bool = False) -> Any:
    data_format = "channels_first" if first else "channels_last"
    conv = layers.Conv2D(4, 3, data_format=data_format, name="conv")
    return keras.Sequential([keras.Input(shape), conv])


@pytest.fixture
def photo(tmp_path: Path) -> Item:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return next(find_items(tmp_path / "photo.png").start())


def find_item(array: Any) -> Item:
    return next(find_items([array]).start())


# --- image loader


def test_loader_prepares_images_like_load_images(photo: Item) -> None:
    model = make_network(12, 10, 3)
    each: list[dict[str, Any]] = [{}, {"preprocess": "VGG16"}, {"fit": "pad"}]
    for options in each:
        result = ImageLoader(**options).load(model, photo)
        np.testing.assert_array_equal(result, load_images(photo.source, model=model, **options))
        pixels, x = ImageLoader(**options).load_with_pixels(model, photo)
        np.testing.assert_array_equal(x, result)
        plain = load_images(
            photo.source, preprocess="none", model=model, fit=options.get("fit", "crop")
        )
        np.testing.assert_array_equal(pixels, plain)
    anysize = make_network(None, None, 3)
    assert ImageLoader().load(anysize, photo).shape == (1, 20, 30, 3)
    assert ImageLoader(size=(7, 9)).load(anysize, photo).shape == (1, 7, 9, 3)
    assert ImageLoader().load(make_network(3, 12, 10, first=True), photo).shape == (1, 3, 12, 10)
    pixels, x = ImageLoader().load_with_pixels(make_network(3, 12, 10, first=True), photo)
    assert (pixels.shape, x.shape) == ((1, 12, 10, 3), (1, 3, 12, 10))


def test_prepared_arrays_are_passed_unchanged() -> None:
    array = np.random.default_rng(0).normal(size=(6, 5, 12))
    loader, model = ImageLoader(preprocess="prepared"), make_network(6, 5, 12)
    np.testing.assert_array_equal(loader.load(model, find_item(array)), array[None])
    x = loader.load(model, find_item(tf.constant(array, tf.bfloat16)))
    assert (x.shape, x.dtype.name) == ((1, 6, 5, 12), "bfloat16")
    sequence = np.arange(6).reshape(3, 2)
    assert loader.load(model, find_item(sequence)).tolist() == [sequence.tolist()]


def test_prepared_values_must_be_numeric_arrays(photo: Item) -> None:
    loader, model = ImageLoader(preprocess="prepared"), make_network(6, 5, 3)
    with pytest.raises(DtypeError, match="image 0 is PosixPath"):
        loader.load(model, photo)
    with pytest.raises(DtypeError, match="arrays of numbers"):
        loader.load(model, find_item(np.array([["a"]])))


def test_prepared_arrays_are_displayed_from_minimum_to_maximum() -> None:
    array = np.random.default_rng(0).normal(size=(3, 6, 5))
    model = make_network(3, 6, 5, first=True)
    pixels, x = ImageLoader(preprocess="prepared").load_with_pixels(model, find_item(array))
    np.testing.assert_array_equal(x, array[None])
    assert pixels.shape == (1, 6, 5, 3)
    assert (pixels.min(), pixels.max()) == (0, pytest.approx(255))
    at = np.unravel_index(array.argmax(), array.shape)
    assert pixels[0, at[1], at[2], at[0]] == pixels.max()
    flat, _ = ImageLoader(preprocess="prepared").load_with_pixels(
        make_network(4, 4, 3), find_item(np.ones((4, 4, 3)))
    )
    assert not flat.any()


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((12, 10, 3), {}, (None, 12, 10, 3)),
        ((12, 10, 3), {"preprocess": None}, (None, 12, 10, 3)),
        ((None, None, 3), {}, None),
        ((None, None, 3), {"size": 9}, (None, 9, 9, 3)),
        ((None, None, 3), {"size": (7, 9)}, (None, 7, 9, 3)),
        ((None, None, 3), {"preprocess": "prepared", "size": 9}, None),
        ((None, 10, 3), {}, None),
        ((None, None, 1), {"size": 9}, (None, 9, 9, 1)),
    ],
    ids=str,
)
def test_input_spec_is_known_if_size_is_known(
    shape: tuple[int | None, ...], options: dict[str, Any], expected: tuple[int | None, ...] | None
) -> None:
    spec = ImageLoader(**options).input_spec(make_network(*shape))
    assert (spec if spec is None else tuple(spec.shape)) == expected


def test_input_spec_of_channels_first_model() -> None:
    spec = ImageLoader(size=(7, 9)).input_spec(make_network(3, None, None, first=True))
    assert spec == tf.TensorSpec((None, 3, 7, 9), tf.float32)
    half = keras.Sequential([keras.Input((4, 4, 3), dtype="float16"), layers.ReLU()])
    # Images are prepared as float32 for any input dtype.
    assert ImageLoader().input_spec(half).dtype == tf.float32
    assert ImageLoader(preprocess="prepared").input_spec(half).dtype == tf.float16


def test_input_spec_of_unbuilt_model_is_none() -> None:
    class Subclassed(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    assert ImageLoader(size=9).input_spec(Subclassed()) is None
    ImageLoader().check(Subclassed())


def test_check_reports_errors_of_all_images_in_advance() -> None:
    image, vector = make_network(8, 8, 3), keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    a, b = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    several = keras.Model([a, b], layers.Add()([a, b]))
    wrong: list[tuple[type[Exception], Any, dict[str, Any]]] = [
        (OptionError, image, {"fit": "squeeze"}),
        (OptionError, image, {"size": 0}),
        (OptionError, image, {"size": "big"}),
        (OptionError, image, {"preprocess": "vgg61"}),
        (ShapeError, vector, {}),
        (ShapeError, make_network(8, 8, 12), {}),
        (ShapeError, several, {}),
    ]
    for kind, model, options in wrong:
        with pytest.raises(kind):
            ImageLoader(**options).check(model)
    with pytest.raises(ShapeError, match="several inputs"):
        ImageLoader(preprocess="prepared").check(several, are_files=True)
    ImageLoader(preprocess="prepared").check(several)
    ImageLoader(preprocess="prepared").check(vector)
    ImageLoader(preprocess="prepared").check(make_network(8, 8, 12))


# --- run specification


def make_spec(output: Path, **options: Any) -> RunSpec:
    work = ProcessingOptions({"format": "png"}, top=1, batch_size=2, shard_size=4, skip_errors=True)
    return RunSpec(["conv"], work, str(output), **options)


def test_run_spec_can_be_pickled(tmp_path: Path) -> None:
    sent = make_spec(tmp_path, loader=ImageLoader((8, 9), "unit", "pad"), sink="tar")
    assert pickle.loads(pickle.dumps(sent)) == sent
    assert hash(sent.loader) == hash(ImageLoader((8, 9), "unit", "pad"))


def test_extractor_is_traced_if_size_is_known(tmp_path: Path) -> None:
    result = make_spec(tmp_path).make_extractor(make_network(12, 10, 3))
    assert list(result.layers) == ["conv"]
    assert make_spec(tmp_path).make_extractor(make_network(None, None, 3)).layers == {}
    with pytest.raises(ShapeError, match="takes an input of"):
        make_spec(tmp_path, loader=ImageLoader(9)).make_extractor(make_network(12, 10, 3))


@pytest.mark.parametrize("sink", ["folders", "tar"])
def test_run_spec_processes_images(tmp_path: Path, photo: Item, sink: str) -> None:
    model = make_network(12, 10, 3)
    spec, meter = make_spec(tmp_path / "out", sink=sink), StageMeter()
    events = list(spec.process(spec.make_extractor(model), [photo], meter=meter))
    assert [type(event) for event in events] == [Record, FinishedShard]
    assert meter.images == 1
    names = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    expected = ["shard-000000.tar"] if sink == "tar" else ["00_conv.png", "stats.json"]
    assert names == expected


def test_unfinished_processing_leaves_no_partial_tar(tmp_path: Path, photo: Item) -> None:
    spec = make_spec(tmp_path / "out", sink="tar")

    def yield_broken() -> Any:
        yield photo
        raise ImageError("the inputs broke off")

    with pytest.raises(ImageError, match="broke off"):
        list(spec.process(spec.make_extractor(make_network(12, 10, 3)), yield_broken()))
    assert list((tmp_path / "out").iterdir()) == []
