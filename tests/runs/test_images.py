"""Tests of `actgrid.render_images` and `actgrid.measure_images`."""

from __future__ import annotations

import inspect
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from PIL import Image

import actgrid
from actgrid.errors import (
    CapabilityError,
    ImageError,
    LayerError,
    MissingFileError,
    OptionError,
    RunError,
)
from actgrid.models import InputInfo, LayerInfo
from actgrid.runs import Run, Summary
from actgrid.runs.engines import run_locally


class UntracedNetwork:
    """Network outside TensorFlow with one layer."""

    name = "untraced"
    inputs = (InputInfo("image", (None, 12, 12, 3)),)
    outputs = ("rows",)

    def list_layers(self, x: Any = None) -> list[LayerInfo]:
        return [LayerInfo("rows", "Rows", (None, 6, 12, 3), "float32", "channels_last", 0, 0)]

    def run(self, x: Any, paths: Any) -> Any:
        return {"rows": x[:, ::2]}

    def fingerprint(self) -> str:
        return "untraced"


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(1)
    parts = [
        layers.Conv2D(5, 3, activation="relu", name="conv"),
        layers.MaxPooling2D(name="pool"),
        layers.Flatten(name="flat"),
    ]
    return keras.Sequential([keras.Input((12, 12, 3)), *parts], name="small")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for index in range(5):
        pixels = np.random.default_rng(index).integers(0, 256, (15, 20, 3))
        (folder / "cat").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "cat" / f"{index}.png")
    return folder


def list_names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


# --- render_images


def test_pictures_are_those_of_render_model(tmp_path: Path, model: Any, photos: Path) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {
        "normalize": "minmax",
        "zoom": 2,
        "cmap": "magma",
        "order": [3, 1],
        "columns": 1,
    }
    summary = actgrid.render_images(model, photos, "conv", output=out, fit="pad", **options)
    assert isinstance(summary, Summary)
    assert (summary.images, summary.failed, summary.output) == (5, 0, str(out))
    assert summary.seconds > 0
    assert summary.statistics is None
    assert list_names(out) == sorted(
        ["manifest.jsonl", "run.json"]
        + [f"cat/{index}/{name}" for index in range(5) for name in ("00_conv.png", "stats.json")]
    )
    for index in range(5):
        x = actgrid.load_images(photos / "cat" / f"{index}.png", model=model, fit="pad")
        grid = actgrid.render_model(model, x, "conv", **options)["conv"]
        with Image.open(out / "cat" / f"{index}" / "00_conv.png") as picture:
            difference = np.abs(np.asarray(picture).astype(int) - grid.levels)
            # A batch of eight may round differently from a single image.
            assert difference.max() <= 1
            assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("sink", ["folders", "tar"])
def test_statistics_of_each_image_are_optional(
    tmp_path: Path, model: Any, photos: Path, sink: str
) -> None:
    options: dict[str, Any] = {"output": tmp_path / "out", "sink": sink, "stats_files": False}
    actgrid.render_images(model, photos, "conv", **options)
    files = [f"cat/{index}/00_conv.png" for index in range(5)]
    assert list_names(tmp_path / "out") == sorted(
        ["manifest.jsonl", "run.json"] + (["shard-000000.tar"] if sink == "tar" else files)
    )
    lines = map(json.loads, (tmp_path / "out" / "manifest.jsonl").read_bytes().splitlines())
    expected = {
        "folders": files,
        "tar": [f"shard-000000.tar/cat/{index}.00_conv.png" for index in range(5)],
    }[sink]
    assert [line["files"] for line in lines] == [[file] for file in expected]
    with pytest.raises(RunError, match=r"options\.stats_files was false"):
        actgrid.render_images(
            model, photos, "conv", **{**options, "stats_files": True}, resume=True
        )


def test_model_specification_is_accepted(tmp_path: Path, model: Any, photos: Path) -> None:
    model.save(tmp_path / "small.keras")
    of_file, of_model = tmp_path / "file", tmp_path / "model"
    actgrid.render_images(str(tmp_path / "small.keras"), photos, output=of_file, batch_size=2)
    actgrid.render_images(model, [photos / "cat"], output=str(of_model), batch_size=2)
    assert (of_file / "cat/1/01_pool.png").read_bytes() == (of_model / "1/01_pool.png").read_bytes()
    about = [json.loads((place / "run.json").read_bytes()) for place in (of_file, of_model)]
    assert about[0]["model"] == about[1]["model"]


def test_render_images_with_statistics(tmp_path: Path, model: Any, photos: Path) -> None:
    summary = actgrid.render_images(model, photos, output=tmp_path / "out", statistics=True, top=2)
    assert summary.statistics is not None
    assert (summary.statistics.images, summary.statistics.top) == (5, 2)
    assert set(list_names(tmp_path / "out")) >= {
        *("stats.npz", "summary.json", "report.html", "top/00_conv.png", "top/01_pool.png"),
        "cat/4/01_pool.png",
    }


def test_failed_images_are_counted_or_raise(tmp_path: Path, model: Any, photos: Path) -> None:
    (photos / "cat" / "2.png").write_bytes(b"no image")
    summary = actgrid.render_images(model, photos, output=tmp_path / "skip")
    assert (summary.images, summary.failed) == (5, 1)
    with pytest.raises(ImageError, match=r"2\.png"):
        actgrid.render_images(model, photos, output=tmp_path / "raise", on_error="raise")
    # A stopped run is not replaced without an option, and can be resumed.
    with pytest.raises(RunError, match="unfinished run"):
        actgrid.render_images(model, photos, output=tmp_path / "raise")
    assert actgrid.render_images(model, photos, output=tmp_path / "raise", resume=True).failed == 1
    with pytest.raises(RunError, match=r"options\.sink was"):
        actgrid.render_images(model, photos, output=tmp_path / "raise", resume=True, sink="tar")
    summary = actgrid.render_images(
        model, photos, output=tmp_path / "raise", sink="tar", overwrite=True
    )
    assert list_names(tmp_path / "raise")[-1] == "shard-000000.tar"
    assert summary.images == 5


def test_inputs_may_be_a_dataset(tmp_path: Path, model: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3)).astype(np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((pixels, list("abcde"))).batch(2)
    actgrid.render_images(model, dataset, output=tmp_path, size=12, preprocess=lambda x: x / 9)
    records = map(json.loads, (tmp_path / "manifest.jsonl").read_bytes().splitlines())
    assert [record["label"] for record in records] == list("abcde")
    activation = actgrid.Extractor(model, "conv")(pixels[3:4] / np.float32(9))["conv"]
    stats = json.loads((tmp_path / "000003" / "stats.json").read_bytes())["layers"][0]
    np.testing.assert_allclose(stats["max"], activation.max((0, 1, 2)), 1e-4)


def test_channels_of_each_image_are_sorted_by_relevance(tmp_path: Path, photos: Path) -> None:
    keras.utils.set_random_seed(2)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(6, 3, activation="tanh", name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )
    options: Any = {"order": "relevance", "target": "dog", "labels": ["cat", "dog", "bird"]}
    for batch_size in (1, 2):
        out = tmp_path / str(batch_size)
        actgrid.render_images(model, photos, "conv", output=out, batch_size=batch_size, **options)
        weights = model.layers[-1].kernel.numpy()[:, 1]
        orders = []
        for photo in sorted((photos / "cat").iterdir()):
            x = actgrid.load_images(photo, model=model)
            means = model.get_layer("conv")(x).numpy().mean((0, 1, 2))
            folder = out / "cat" / photo.stem
            (layer,) = json.loads((folder / "stats.json").read_bytes())["layers"]
            np.testing.assert_allclose(layer["relevance"], means * weights, rtol=1e-4, atol=1e-7)
            orders.append(np.argsort(-means * weights).tolist())
            grid = actgrid.render_model(model, x, "conv", order=orders[-1])["conv"]
            with Image.open(folder / layer["file"]) as picture:
                np.testing.assert_array_equal(np.asarray(picture), grid.levels)
        assert orders[0] != sorted(orders[0])


def test_errors_are_raised_before_anything_is_written(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    wrong: list[tuple[type[Exception], dict[str, Any]]] = [
        (OptionError, {"colour": "red"}),
        (OptionError, {"cmap": "virids"}),
        (OptionError, {"compression": "zip"}),
        (OptionError, {"format": "exe"}),
        (OptionError, {"target": 0}),
        (OptionError, {"labels": ["cat"], "order": "mean"}),
        (CapabilityError, {"model": UntracedNetwork(), "order": "relevance"}),
        (OptionError, {"sink": "zip"}),
        (OptionError, {"statistics": True, "top": 0}),
        (OptionError, {"preprocess": "vgg61"}),
        (LayerError, {"layers": "cnov"}),
        (MissingFileError, {"images": tmp_path / "none"}),
        (OptionError, {"images": 7}),
        (OptionError, {"resume": True, "overwrite": True}),
    ]
    for kind, changed in wrong:
        given = {"model": model, "images": photos, "output": tmp_path / "out", **changed}
        with pytest.raises(kind):
            actgrid.render_images(**given)
        assert not (tmp_path / "out").exists() or not list_names(tmp_path / "out"), changed


# --- measure_images


def test_statistics_are_those_of_all_images(model: Any, photos: Path) -> None:
    stats = actgrid.measure_images(model, photos, ["conv", "flat"], top=3, batch_size=2)
    files = sorted((photos / "cat").iterdir())
    activations = actgrid.Extractor(model, ["conv", "flat"])(
        actgrid.load_images(files, model=model)
    )
    assert list(stats.layers) == ["conv", "flat"]
    assert (stats.images, stats.top) == (5, 3)
    for path, layer in stats.layers.items():
        values = activations[path].astype(np.float64)
        axes = tuple(range(values.ndim - 1))
        np.testing.assert_allclose(layer.mean, values.mean(axes), 1e-5, 1e-7)
        np.testing.assert_allclose(layer.std, values.std(axes), 1e-4, 1e-6)
        np.testing.assert_allclose(layer.max, values.max(axes), 1e-5)
        np.testing.assert_array_equal(layer.activating_images, (values > 0).any(axes[1:]).sum(0))
    best = activations["conv"].max((1, 2)).argmax(0)
    tops = [stats.layers["conv"].get_top_images(channel)[0] for channel in range(5)]
    assert [top.index for top in tops] == best.tolist()
    assert tops[0].name == str(files[best[0]])


def test_measure_images_without_output_writes_nothing(
    model: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.chdir(place)
    before = list_names(photos)
    assert actgrid.measure_images(model, photos).images == 5
    (photos / "cat" / "2.png").write_bytes(b"no image")
    with pytest.raises(ImageError):
        actgrid.measure_images(model, photos, on_error="raise")
    assert list(place.iterdir()) == []
    assert list_names(photos) == before


def test_measure_images_with_output_writes_results(
    tmp_path: Path, model: Any, photos: Path
) -> None:
    out = tmp_path / "out"
    stats = actgrid.measure_images(model, photos, output=out, top=2, top_channels=1)
    assert list_names(out) == [
        *("manifest.jsonl", "report.html", "run.json", "stats.npz", "summary.json"),
        *("top/00_conv.png", "top/01_pool.png"),
    ]
    saved_stats = actgrid.DatasetStats.load(out / "stats.npz")
    assert (
        saved_stats.summary() == stats.summary() == json.loads((out / "summary.json").read_bytes())
    )
    with Image.open(out / "top" / "00_conv.png") as sheet:
        height = sheet.height
    again = actgrid.measure_images(
        model, photos, output=out, top=2, top_channels="all", resume=True
    )
    assert again.summary() == stats.summary()
    with Image.open(out / "top" / "00_conv.png") as sheet:
        assert sheet.height > height


@pytest.mark.parametrize("channels", [0, -1, None, "none"])
def test_top_channels_is_checked_before_measuring(
    tmp_path: Path, model: Any, photos: Path, channels: Any
) -> None:
    with pytest.raises(OptionError, match="top_channels must be"):
        actgrid.measure_images(model, photos, output=tmp_path / "out", top_channels=channels)
    assert not (tmp_path / "out").exists()


# --- engines


def test_custom_engine_is_called(tmp_path: Path, model: Any, photos: Path) -> None:
    seen: list[Any] = []

    def engine(spec: Any, extractor: Any, items: Any, **options: Any) -> Iterator[Any]:
        seen.append((spec, list(extractor.layers), items.total, options["first"]))
        yield from run_locally(spec, extractor, items, **options)

    summary = actgrid.render_images(model, photos, "pool", output=tmp_path / "out", engine=engine)
    stats = actgrid.measure_images(model, photos, output=tmp_path / "stats", engine=engine)
    assert (summary.images, stats.images) == (5, 5)
    spec, paths, total, first = seen[0]
    assert (paths, total, first) == (["pool"], 5, 0)
    assert (spec.output, spec.sink, spec.options.batch_size) == (
        str(tmp_path / "out"),
        "folders",
        8,
    )
    assert seen[1][0].options.drawing is None


def test_run_stopped_by_engine_can_be_resumed(tmp_path: Path, model: Any, photos: Path) -> None:
    def engine(*arguments: Any, **options: Any) -> Iterator[Any]:
        for number, event in enumerate(run_locally(*arguments, **options)):
            if number == 2:
                raise ConnectionError("a worker is gone")
            yield event

    with pytest.raises(ConnectionError):
        actgrid.render_images(model, photos, output=tmp_path, engine=engine, batch_size=1)
    run = Run(model, photos, output=tmp_path, drawing={}, batch_size=1, resume=True)
    assert (run.recorded, run.total) == (2, 5)
    assert [record.index for record in run] == [2, 3, 4]


def test_functions_accept_options_of_run() -> None:
    run, render, measure = (
        set(inspect.signature(function).parameters)
        for function in (Run, actgrid.render_images, actgrid.measure_images)
    )
    shared = run - {"self", "drawing", "loading"}
    assert shared <= render
    assert shared - {"sink", "stats_files"} <= measure
