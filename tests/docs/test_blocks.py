"""Tests that run the Python code of the README and the pages of the documentation.

The blocks of a page share their variables. A comment before a block, which readers do not see, can
define variables (`<!-- setup: NAME -->`, a function below) or say why the block is not run
(`<!-- not run: REASON -->`).
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image
from skimage import data
from tests.models.exports import export_tflite, write_onnx_classifier

import actgrid

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:^<!-- (?P<directive>setup|not run): (?P<detail>[^>]+) -->\n)?"
    r"^```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def make_classifier() -> dict[str, Any]:
    """Return a small classifier with data to train it, as `model`, `x_train`, `x`, ..."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3), name="photo"),
            layers.Conv2D(4, 3, activation="relu", name="conv1"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(8, activation="softmax", name="predictions"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.random((128, 32, 32, 3)).astype(np.float32), rng.integers(0, 8, 128)
    batches = [(x[:32], y[:32]), (x[32:64], y[32:64])]
    dataset = tf.data.Dataset.from_tensor_slices(((x * 255).astype(np.uint8), y))
    names = {"x_train": x, "y_train": y, "x_test": x[:64], "batches": batches, "dataset": dataset}
    return {"model": model, "x": x[:3], "y": np.eye(8)[y[:3]], **names}


def make_transformers() -> dict[str, Any]:
    """Return a vision transformer with ten digits, and a language model with a vocabulary."""
    keras.utils.set_random_seed(0)
    image = keras.Input((28, 28, 1))
    x = layers.Reshape((49, 32), name="tokens")(layers.Conv2D(32, 4, 4)(image))
    token = layers.Reshape((1, 32))(layers.Dense(32)(layers.Flatten()(image)))
    x = layers.Concatenate(1)([token, x])
    for block in range(2):
        attention = layers.MultiHeadAttention(4, 8, name=f"block{block}_attention")
        x = layers.Add(name=f"block{block}_add")([x, attention(x, x)])
    x = layers.LayerNormalization(name="norm")(x)
    vit = keras.Model(image, layers.Dense(10, "softmax")(x[:, 0]))
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(6, 16, name="embedding")(ids)
    for block in range(2):
        attention = layers.MultiHeadAttention(2, 8, name=f"block{block}_attention")
        x = layers.Add(name=f"block{block}_add")([x, attention(x, x, use_causal_mask=True)])
    x = layers.LayerNormalization(name="norm")(x)
    return {
        "vit": vit,
        "digits": np.random.default_rng(0).random((10, 28, 28, 1)).astype(np.float32),
        "language_model": keras.Model(ids, layers.Dense(6)(x)),
        "vocabulary": ["", "the", "cat", "sat", "down", "dog"],
        "token_ids": np.array([[1, 2, 3, 4]]),
    }


def make_multitask() -> dict[str, Any]:
    """Return a model with the outputs `kind`, `age` and `mask`, and three inputs `x`."""
    image = keras.Input((32, 32, 3))
    conv = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(image)
    pooled = layers.GlobalAveragePooling2D()(conv)
    outputs = {
        "kind": layers.Dense(8, activation="softmax", name="kind")(pooled),
        "age": layers.Dense(4, name="age")(pooled),
        "mask": layers.Conv2D(4, 1, name="mask")(conv),
    }
    x = np.random.default_rng(1).random((3, 32, 32, 3)).astype(np.float32)
    names = ["cat", "dog", *"abcdef"]
    return {"multitask": keras.Model(image, outputs), "x": x, "names": names, "tf": tf}


def make_image_models() -> dict[str, Any]:
    """Return networks whose outputs are images, and two inputs `x`."""
    image = keras.Input((16, 16, 3))
    conv = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    return {
        "segmenter": keras.Model(image, layers.Conv2D(4, 1)(conv)),
        "autoencoder": keras.Model(image, layers.Conv2D(3, 1)(conv)),
        "x": np.random.default_rng(1).random((2, 16, 16, 3)).astype(np.float32),
        "tf": tf,
    }


def make_dense_models() -> dict[str, Any]:
    """Return networks that predict masks, boxes, sequences and images, and their inputs."""
    image, sequence = keras.Input((16, 16, 3)), keras.Input((12, 2))
    conv = layers.Conv2D(8, 3, strides=4, padding="same", activation="relu")(image)
    offsets = layers.Reshape((16, 4))(layers.Conv2D(4, 1, activation="sigmoid")(conv))
    logits = layers.Reshape((16, 2))(layers.Conv2D(2, 1)(conv))
    centers = np.stack(np.meshgrid(range(2, 16, 4), range(2, 16, 4)), -1).reshape(16, 2)
    anchors = np.concatenate([centers, np.full((16, 2), 4)], 1).astype(np.float32)
    # Boxes (left, top, right, bottom) that contain the centers.
    boxes = offsets * np.array([-4, -4, 4, 4], np.float32) + np.tile(centers, 2).astype("f")
    return {
        **make_image_models(),
        "mask": np.eye(32) > 0,
        "detector": keras.Model(image, {"boxes": boxes, "scores": logits}),
        "retinanet": keras.Model(image, {"bbox_regression": offsets, "cls_logits": logits}),
        "anchors": anchors,
        "tagger": keras.Model(sequence, layers.Conv1D(3, 3, padding="same")(sequence)),
        "sequences": np.random.default_rng(2).random((2, 12, 2)).astype(np.float32),
    }


def make_two_inputs() -> dict[str, Any]:
    """Return a model of a photo and an age."""
    photo, age = keras.Input((32, 32, 3), name="photo"), keras.Input((1,), name="age")
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(photo))
    head = layers.Dense(5, name="head")(layers.Concatenate()([pooled, age]))
    return {"model": keras.Model([photo, age], head)}


def make_rgb_and_depth() -> dict[str, Any]:
    """Return the parts of a model of a photo and a depth map, and inputs."""
    rgb, depth = keras.Input((16, 16, 3), name="rgb"), keras.Input((16, 16, 1), name="depth")
    conv = layers.Conv2D(4, 3, name="conv")(layers.Concatenate()([rgb, depth]))
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(conv))
    rng = np.random.default_rng(2)
    photos, depth_maps = rng.random((2, 16, 16, 3)), rng.random((2, 16, 16, 1))
    return {
        "keras": keras,
        "rgb": rgb,
        "depth": depth,
        "outputs": outputs,
        "photos": photos.astype(np.float32),
        "depth_maps": depth_maps.astype(np.float32),
    }


def make_datasets() -> dict[str, Any]:
    """Return datasets of dicts, a model of each, and the keras module."""
    parts = make_rgb_and_depth()
    pixels = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), np.uint8)
    entries = {"rgb": parts["photos"], "depth": parts["depth_maps"]}
    return {
        "model": make_classifier()["model"],
        "two_inputs": keras.Model([parts["rgb"], parts["depth"]], parts["outputs"]),
        "tfds_dataset": tf.data.Dataset.from_tensor_slices({"image": pixels, "label": range(4)}),
        "dataset": tf.data.Dataset.from_tensor_slices(entries),
    }


def make_inputs_of_operations() -> dict[str, Any]:
    """Return the input of a functional model, and images for it."""
    images = np.random.default_rng(4).random((1, 32, 32, 3)).astype(np.float32)
    return {"keras": keras, "layers": layers, "inputs": keras.Input((32, 32, 3)), "images": images}


def make_demo() -> dict[str, Any]:
    """Return the embedded network and two photos as a batch."""
    model = actgrid.load_model("demo")
    batch = actgrid.load_images(["cat.jpg", "dog.jpg"], model=model)
    return {"model": model, "batch": batch, "photos": [actgrid.demo.photo()] * 2}


def make_two_models() -> dict[str, Any]:
    """Save a small classifier before and after a change; return both models and data."""
    values = make_classifier()
    model, other = values["model"], keras.models.clone_model(values["model"])
    other.set_weights([weight * 0.9 for weight in model.get_weights()])
    for name, saved in (("before", model), ("after", other)):
        saved.save(f"{name}.keras")
    return {**values, "other": other}


def make_exports() -> dict[str, Any]:
    """Save small classifiers as TFLite and ONNX files, and one as a Keras file."""
    model = make_classifier()["model"]
    model.save("model.keras")
    export_tflite(model, Path("model.tflite"), "float")
    write_onnx_classifier(Path("model.onnx"))
    return {"model": model}


def make_exported_files() -> dict[str, Any]:
    """Save the files of `make_exports`; return a function of a batch, and images."""
    make_exports()
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    return {"predict": lambda batch: batch.mean((1, 2)), "images": images}


def make_concept_images() -> dict[str, Any]:
    """Return images of a class and of three concepts, and random images."""
    rng = np.random.default_rng(0)
    names = ("cats", "fur", "stripes", "dots", "random_images")
    return {name: rng.uniform(0, 255, (8, 224, 224, 3)).astype(np.float32) for name in names}


def make_other_inputs() -> dict[str, Any]:
    """Return models that take sequences, volumes, tables, texts and two inputs, with samples."""

    def connect(*shape: int | None, body: list[Any], dtype: str = "float32") -> Any:
        return keras.Sequential([keras.Input(shape, dtype=dtype), *body])

    rng = np.random.default_rng(6)
    vocabulary = ["", "[UNK]", "the", "film", "was", "a", "masterpiece", "dull"]
    vectorization = layers.TextVectorization(vocabulary=vocabulary[2:], output_sequence_length=6)
    embedding = [layers.Embedding(8, 4), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    photo, age = keras.Input((8, 8, 3), name="photo"), keras.Input((2,), name="age")
    features = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(photo))
    return {
        "signal_model": connect(
            400, 2, body=[layers.Conv1D(4, 9), layers.GlobalMaxPooling1D(), layers.Dense(2)]
        ),
        "signals": rng.normal(size=(2, 400, 2)).astype(np.float32),
        "long_activation": rng.normal(size=(1, 12_000, 32)).astype(np.float32),
        "volume_model": connect(
            8, 9, 10, 1, body=[layers.Conv3D(4, 3), layers.GlobalMaxPooling3D(), layers.Dense(2)]
        ),
        "volumes": rng.random((1, 8, 9, 10, 1)).astype(np.float32),
        "table_model": connect(3, body=[layers.Dense(2)]),
        "rows": rng.random((2, 3)).astype(np.float32),
        "text_model": connect(1, dtype="string", body=[vectorization, *embedding]),
        "token_model": connect(6, dtype="int32", body=embedding),
        "vectorization": vectorization,
        "vocabulary": vocabulary,
        "indices": np.array([[2, 3, 4, 5, 6, 0]]),
        "two_inputs": keras.Model(
            [photo, age], layers.Dense(2)(layers.Concatenate()([features, age]))
        ),
        "x": [rng.random((1, 8, 8, 3)).astype(np.float32), np.ones((1, 2), np.float32)],
    }


def make_gan() -> dict[str, Any]:
    """Return an untrained network with a generator, and a callback for the generator."""
    from actgrid.callbacks import ActivationGrids

    class Gan(keras.Model):  # type: ignore[misc]
        generator = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3, name="conv")])

        def train_step(self, batch: Any) -> dict[str, Any]:
            return {"mean": tf.reduce_mean(self.generator(batch))}

    gan = Gan()
    gan.compile("sgd")
    images = np.random.default_rng(5).random((8, 8, 8, 3)).astype(np.float32)
    grids = ActivationGrids(np.zeros((1, 8, 8, 3), np.float32), "conv*", folder="gan")
    return {"gan": gan, "images": images, "grids": grids, "keras": keras}


SETUPS: dict[str, Callable[[], dict[str, Any]]] = {
    function.__name__.removeprefix("make_"): function
    for function in (
        make_classifier,
        make_concept_images,
        make_datasets,
        make_demo,
        make_exported_files,
        make_exports,
        make_dense_models,
        make_gan,
        make_image_models,
        make_inputs_of_operations,
        make_multitask,
        make_other_inputs,
        make_rgb_and_depth,
        make_transformers,
        make_two_inputs,
        make_two_models,
    )
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with the files that the pages name."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "downloads").mkdir()
    actgrid.demo.photo().save(tmp_path / "cat.jpg")
    Image.fromarray(data.rocket()).save(tmp_path / "rocket.jpg")
    for name in ("dog.jpg", "photos/rocket.jpg"):
        shutil.copy(tmp_path / "rocket.jpg", tmp_path / name)
    shutil.copy(tmp_path / "cat.jpg", tmp_path / "photos")
    make_classifier()["model"].save(tmp_path / "downloads" / "model.keras")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def find_blocks(page: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(page.read_text("utf-8")))


def test_every_block_is_found() -> None:
    blocks = {page: find_blocks(page) for page in PAGES}
    for page, found in blocks.items():
        assert len(found) == page.read_text("utf-8").count("```python\n"), page
    skipped = [block for found in blocks.values() for block in found if block[1] == "not run"]
    assert len(skipped) <= 3


@pytest.mark.filterwarnings("ignore::actgrid.attribution.ZeroAttributionWarning")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if find_blocks(page)], ids=lambda p: p.stem
)
def test_blocks_of_page_run(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The pages do not depend on the number of steps, which take most of the time.
    monkeypatch.setattr(actgrid, "maximize", functools.partial(actgrid.maximize, steps=8))
    variables: dict[str, Any] = {"actgrid": actgrid}
    for block in find_blocks(page):
        if block["directive"] == "not run":
            continue
        if block["directive"] == "setup":
            variables |= SETUPS[block["detail"]]()
        line = page.read_text("utf-8")[: block.start("code")].count("\n")
        code = compile("\n" * line + block["code"], str(page), "exec")
        exec(code, variables)
    for value in list(variables.values()):
        if isinstance(value, actgrid.web.View):
            value.close()
