"""Tests of runs over datasets whose elements are dicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

from actgrid import measure_images, render_images
from actgrid.errors import DtypeError, OptionError, RunError, ShapeError
from actgrid.runs.run_spec import ImageLoader
from actgrid.runs.sources import find_items

Array = npt.NDArray[Any]

COUNT = 5
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 9, 3)).astype(np.uint8)
DEPTH = np.random.default_rng(1).random((COUNT, 8, 9), np.float32)
CLASSES = np.arange(COUNT) % 2


def make_one_input_model() -> Any:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 9, 3), name="photo")
    return keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(layers.Rescaling(1.0)(inputs)))


def make_two_input_model() -> Any:
    keras.utils.set_random_seed(0)
    photo, depth = keras.Input((8, 9, 3), name="photo"), keras.Input((8, 9, 1), name="depth")
    merged = layers.Concatenate(name="merged")([photo, layers.Rescaling(2.0)(depth)])
    return keras.Model({"photo": photo, "depth": depth}, merged)


def make_dataset(*element: Any, batch: int | None = None) -> Any:
    result = tf.data.Dataset.from_tensor_slices(element if len(element) > 1 else element[0])
    return result if batch is None else result.batch(batch)


FEATURES = {"image": PIXELS, "label": CLASSES, "name": np.array([b"x"] * COUNT)}


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda batch: make_dataset(FEATURES, batch=batch),
        lambda batch: make_dataset({"image": PIXELS}, CLASSES, batch=batch),
        lambda batch: make_dataset({"photo": PIXELS, "thumbnail": PIXELS[:, :4, :4]}, batch=batch),
        lambda batch: make_dataset({"anything": PIXELS}, CLASSES, np.ones(COUNT), batch=batch),
        lambda batch: FEATURES,
        lambda batch: [{"image": image} for image in PIXELS],
        lambda batch: ({"image": Image.fromarray(image)} for image in PIXELS),
        lambda batch: [({"photo": image}, 1) for image in PIXELS],
    ],
)
def test_image_of_a_dict_is_measured(make: Any, batch: int | None) -> None:
    model = make_one_input_model()
    stats = measure_images(model, make(batch), "conv", preprocess="none")
    values = np.asarray(model(PIXELS.astype(np.float32)))
    assert stats.images == COUNT
    np.testing.assert_allclose(stats.layers["conv"].mean, values.mean((0, 1, 2)), rtol=1e-5)


def test_labels_of_dicts_and_pairs() -> None:
    for inputs in (make_dataset(FEATURES), make_dataset({"image": PIXELS}, CLASSES)):
        assert [item.label for item in find_items(inputs).start()] == list("01010")


@pytest.mark.parametrize(
    "make",
    [
        lambda inputs: make_dataset(inputs),
        lambda inputs: make_dataset(inputs, batch=2),
        lambda inputs: make_dataset(inputs, CLASSES, batch=3),
        lambda inputs: inputs,
        lambda inputs: [{name: array[i] for name, array in inputs.items()} for i in range(COUNT)],
    ],
)
def test_several_inputs_are_passed_by_name(make: Any, tmp_path: Path) -> None:
    model = make_two_input_model()
    inputs = {"depth": DEPTH, "photo": PIXELS.astype(np.float32), "other": CLASSES}
    stats = measure_images(
        model, make(inputs), "merged", preprocess="prepared", batch_size=2, output=tmp_path / "out"
    )
    merged = np.concatenate([PIXELS, 2 * DEPTH[..., None]], -1)
    np.testing.assert_allclose(stats.layers["merged"].mean, merged.mean((0, 1, 2)), rtol=1e-6)
    assert (tmp_path / "out" / "report.html").exists()


def test_several_inputs_are_drawn(tmp_path: Path) -> None:
    inputs = {"depth": DEPTH[:2], "photo": PIXELS[:2].astype(np.float32)}
    summary = render_images(
        make_two_input_model(),
        inputs,
        "merged",
        output=tmp_path,
        preprocess="prepared",
        normalize="range(0, 255)",
    )
    assert (summary.images, summary.failed) == (2, 0)
    with Image.open(tmp_path / "000001" / "00_merged.png") as image:
        levels = np.asarray(image)
    # Four tiles of 8 x 9: the layout nearest to square has two rows.
    np.testing.assert_array_equal(levels[:8, :9], PIXELS[1, ..., 0])
    records = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(record)["status"] for record in records] == ["done", "done"]


def test_dataset_of_unknown_rank_with_dicts() -> None:
    def lose_shape(element: Any) -> Any:
        image = tf.numpy_function(lambda array: array, [element], tf.uint8)
        return {"image": image}

    for images in (tf.data.Dataset.from_tensor_slices(PIXELS), make_dataset(PIXELS, batch=2)):
        items = list(find_items(images.map(lose_shape)).start())
        np.testing.assert_array_equal([item.image() for item in items], PIXELS)


def test_ambiguous_dict_is_reported() -> None:
    two = {"left": PIXELS[0], "right": PIXELS[1]}
    (item,) = find_items([two]).start()
    with pytest.raises(DtypeError, match="a dict of 'left', 'right', of which 2 can be the image"):
        item.image()
    np.testing.assert_array_equal(item.image(["right"]), PIXELS[1])
    (none,) = find_items([{"text": "x"}]).start()
    with pytest.raises(DtypeError, match="of which 0 can be the image"):
        none.image()
    with pytest.raises(ShapeError, match="equal lengths, not 'a': 2, 'b': 3"):
        find_items({"a": PIXELS[:2], "b": PIXELS[:3]})
    with pytest.raises(OptionError, match=r"must contain arrays, not int \('b'\)"):
        find_items({"a": PIXELS, "b": 3})
    with pytest.raises(OptionError, match="no images were given"):
        find_items({})


def test_statistics_of_nothing_are_an_error() -> None:
    two = {"left": PIXELS, "right": PIXELS}
    with pytest.raises(
        RunError, match=r"none of 5 images could be used; the first error: .*'image'"
    ):
        measure_images(make_one_input_model(), make_dataset(two))
    with pytest.raises(RunError, match=r"the first error: .*also takes the inputs 'photo'"):
        measure_images(make_two_input_model(), {"depth": DEPTH}, preprocess="prepared")


def test_files_are_rejected_for_several_inputs(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(PIXELS[0]).save(file)
    for preprocess in ("auto", "prepared"):
        with pytest.raises(ShapeError, match=r"the model (has|takes)"):
            measure_images(make_two_input_model(), file, preprocess=preprocess)
    ImageLoader(preprocess="prepared").check(make_two_input_model())
