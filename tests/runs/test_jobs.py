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
from actgrid.runs.jobs import Job, Loading
from actgrid.runs.manifest import Record
from actgrid.runs.sources import Item, find_items
from actgrid.runs.work import Meter, Shard, Work


def network(*shape: int | None, first: bool = False) -> Any:
    data_format = "channels_first" if first else "channels_last"
    conv = layers.Conv2D(4, 3, data_format=data_format, name="conv")
    return keras.Sequential([keras.Input(shape), conv])


@pytest.fixture
def photo(tmp_path: Path) -> Item:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return next(find_items(tmp_path / "photo.png").start())


def given(array: Any) -> Item:
    return next(find_items([array]).start())


# --- loading


def test_images_are_prepared_as_for_load_images(photo: Item) -> None:
    model = network(12, 10, 3)
    each: list[dict[str, Any]] = [{}, {"preprocess": "VGG16"}, {"fit": "pad"}]
    for options in each:
        found = Loading(**options).load(model, photo)
        np.testing.assert_array_equal(found, load_images(photo.source, model=model, **options))
        pixels, x = Loading(**options).load_with_pixels(model, photo)
        np.testing.assert_array_equal(x, found)
        plain = load_images(
            photo.source, preprocess="none", model=model, fit=options.get("fit", "crop")
        )
        np.testing.assert_array_equal(pixels, plain)
    anysize = network(None, None, 3)
    assert Loading().load(anysize, photo).shape == (1, 20, 30, 3)
    assert Loading(size=(7, 9)).load(anysize, photo).shape == (1, 7, 9, 3)
    assert Loading().load(network(3, 12, 10, first=True), photo).shape == (1, 3, 12, 10)
    pixels, x = Loading().load_with_pixels(network(3, 12, 10, first=True), photo)
    assert (pixels.shape, x.shape) == ((1, 12, 10, 3), (1, 3, 12, 10))


def test_without_preparation_arrays_are_taken_as_they_are() -> None:
    array = np.random.default_rng(0).normal(size=(6, 5, 12))
    loading, model = Loading(preprocess="prepared"), network(6, 5, 12)
    np.testing.assert_array_equal(loading.load(model, given(array)), array[None])
    x = loading.load(model, given(tf.constant(array, tf.bfloat16)))
    assert (x.shape, x.dtype.name) == ((1, 6, 5, 12), "bfloat16")
    sequence = np.arange(6).reshape(3, 2)
    assert loading.load(model, given(sequence)).tolist() == [sequence.tolist()]


def test_what_is_no_array_of_numbers_is_told(photo: Item) -> None:
    loading, model = Loading(preprocess="prepared"), network(6, 5, 3)
    with pytest.raises(DtypeError, match="image 0 is PosixPath"):
        loading.load(model, photo)
    with pytest.raises(DtypeError, match="arrays of numbers"):
        loading.load(model, given(np.array([["a"]])))


def test_arrays_of_any_values_are_shown_from_black_to_white() -> None:
    array = np.random.default_rng(0).normal(size=(3, 6, 5))
    model = network(3, 6, 5, first=True)
    pixels, x = Loading(preprocess="prepared").load_with_pixels(model, given(array))
    np.testing.assert_array_equal(x, array[None])
    assert pixels.shape == (1, 6, 5, 3)
    assert (pixels.min(), pixels.max()) == (0, pytest.approx(255))
    at = np.unravel_index(array.argmax(), array.shape)
    assert pixels[0, at[1], at[2], at[0]] == pixels.max()
    flat, _ = Loading(preprocess="prepared").load_with_pixels(
        network(4, 4, 3), given(np.ones((4, 4, 3)))
    )
    assert not flat.any()


@pytest.mark.parametrize(
    ("shape", "options", "wanted"),
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
def test_the_input_is_known_where_its_size_is(
    shape: tuple[int | None, ...], options: dict[str, Any], wanted: tuple[int | None, ...] | None
) -> None:
    spec = Loading(**options).spec(network(*shape))
    assert (spec if spec is None else tuple(spec.shape)) == wanted


def test_the_input_of_a_channels_first_model_is_known() -> None:
    spec = Loading(size=(7, 9)).spec(network(3, None, None, first=True))
    assert spec == tf.TensorSpec((None, 3, 7, 9), tf.float32)
    half = keras.Sequential([keras.Input((4, 4, 3), dtype="float16"), layers.ReLU()])
    # Images are prepared as float32, whatever the model makes of them.
    assert Loading().spec(half).dtype == tf.float32
    assert Loading(preprocess="prepared").spec(half).dtype == tf.float16


def test_the_input_of_a_model_that_was_never_called_is_not_known() -> None:
    class Subclassed(keras.Model):  # type: ignore[misc]
        def call(self, x: Any) -> Any:
            return x

    assert Loading(size=9).spec(Subclassed()) is None
    Loading().check(Subclassed())


def test_what_is_wrong_for_every_image_is_told_before_the_first() -> None:
    image, vector = network(8, 8, 3), keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    a, b = keras.Input((4, 4, 3)), keras.Input((4, 4, 3))
    several = keras.Model([a, b], layers.Add()([a, b]))
    wrong: list[tuple[type[Exception], Any, dict[str, Any]]] = [
        (OptionError, image, {"fit": "squeeze"}),
        (OptionError, image, {"size": 0}),
        (OptionError, image, {"size": "big"}),
        (OptionError, image, {"preprocess": "vgg61"}),
        (ShapeError, vector, {}),
        (ShapeError, network(8, 8, 12), {}),
        (ShapeError, several, {}),
    ]
    for kind, model, options in wrong:
        with pytest.raises(kind):
            Loading(**options).check(model)
    with pytest.raises(ShapeError, match="several inputs"):
        Loading(preprocess="prepared").check(several, are_files=True)
    Loading(preprocess="prepared").check(several)
    Loading(preprocess="prepared").check(vector)
    Loading(preprocess="prepared").check(network(8, 8, 12))


# --- jobs


def job(output: Path, **options: Any) -> Job:
    work = Work({"format": "png"}, top=1, batch_size=2, shard_size=4, skip_errors=True)
    return Job(["conv"], work, str(output), **options)


def test_a_job_is_sent_to_another_process_as_it_is(tmp_path: Path) -> None:
    sent = job(tmp_path, loading=Loading((8, 9), "unit", "pad"), sink="tar")
    assert pickle.loads(pickle.dumps(sent)) == sent
    assert hash(sent.loading) == hash(Loading((8, 9), "unit", "pad"))


def test_an_extractor_knows_its_layers_where_the_size_is_known(tmp_path: Path) -> None:
    found = job(tmp_path).extractor(network(12, 10, 3))
    assert list(found.layers) == ["conv"]
    assert job(tmp_path).extractor(network(None, None, 3)).layers == {}
    with pytest.raises(ShapeError, match="takes an input of"):
        job(tmp_path, loading=Loading(9)).extractor(network(12, 10, 3))


@pytest.mark.parametrize("sink", ["folders", "tar"])
def test_a_job_does_the_work(tmp_path: Path, photo: Item, sink: str) -> None:
    model = network(12, 10, 3)
    one, meter = job(tmp_path / "out", sink=sink), Meter()
    events = list(one.run(one.extractor(model), [photo], meter=meter))
    assert [type(event) for event in events] == [Record, Shard]
    assert meter.images == 1
    names = sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file())
    wanted = ["shard-000000.tar"] if sink == "tar" else ["00_conv.png", "stats.json"]
    assert names == wanted


def test_a_job_that_is_not_finished_leaves_no_half_of_a_tar(tmp_path: Path, photo: Item) -> None:
    one = job(tmp_path / "out", sink="tar")

    def broken() -> Any:
        yield photo
        raise ImageError("the inputs broke off")

    with pytest.raises(ImageError, match="broke off"):
        list(one.run(one.extractor(network(12, 10, 3)), broken()))
    assert list((tmp_path / "out").iterdir()) == []
