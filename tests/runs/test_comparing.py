"""Tests of runs that compare two models: files, resuming, preprocessing, inputs."""

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

import actgrid
from actgrid.errors import OptionError, RunError
from actgrid.runs.comparing import ComparisonRun
from actgrid.statistics.model_pair import ModelPair

Array = npt.NDArray[Any]


def make_model(seed: int, size: int = 12, scaling: float = 1 / 255) -> Any:
    keras.utils.set_random_seed(seed)
    parts = [
        layers.Rescaling(scaling, name="scaled"),
        layers.Conv2D(5, 3, activation="relu", name="conv"),
        layers.GlobalAveragePooling2D(name="mean"),
    ]
    return keras.Sequential([keras.Input((size, size, 3)), *parts], name=f"model{seed}")


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any]:
    return make_model(1), make_model(2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(10):
        pixels = np.random.default_rng(index).integers(0, 256, (12, 12, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return folder


def list_names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def load_pixels(photos: Path) -> Array:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(photos.iterdir())])


def test_output_files(models: tuple[Any, Any], photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    comparison = actgrid.compare_models(*models, photos, output=out)
    assert list_names(out) == [
        *("comparison.npz", "manifest.jsonl", "report.html", "run.json", "stats.npz"),
        *("summary.json", "top/00_conv.png", "top/01_mean.png"),  # the layers that differ
    ]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == 10
    assert [layer["layer"] for layer in summary["layers"]] == ["scaled", "conv", "mean"]
    loaded = actgrid.ModelComparison.load(out)
    assert loaded.to_frame().equals(comparison.to_frame())
    page = (out / "report.html").read_text()
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    assert data["models"] == ["model1", "model2"]
    conv = next(layer for layer in data["layers"] if layer["layer"] == "conv")
    assert conv["picture"].startswith("data:image/png;base64,")
    worst = conv["channels"][0]
    layer = comparison.layers["conv"]
    assert worst[0] == layer.difference.argmax()
    assert worst[5] == layer.get_top_images(worst[0])[0].name
    # Values are those of the same pixels as arrays.
    arrays = actgrid.compare_models(*models, load_pixels(photos))
    dataset = tf.data.Dataset.from_tensor_slices(load_pixels(photos)).batch(4)
    for other in (arrays, actgrid.compare_models(*models, dataset)):
        np.testing.assert_allclose(other.layers["conv"].difference, layer.difference, rtol=1e-6)


def test_a_stopped_run_is_resumed(models: tuple[Any, Any], photos: Path, tmp_path: Path) -> None:
    expected_comparison = actgrid.compare_models(
        *models, photos, output=tmp_path / "whole", shard_size=4
    )
    out = tmp_path / "out"
    pair = ModelPair(*models)
    with ComparisonRun(pair, photos, output=out, shard_size=4) as run:
        for number, _ in enumerate(run, 1):
            if number == 6:
                break
    with pytest.raises(RunError, match="contains an unfinished run of 6 images"):
        actgrid.compare_models(*models, photos, output=out, shard_size=4)
    with pytest.raises(RunError):
        actgrid.compare_models(
            models[0], make_model(3), photos, output=out, shard_size=4, resume=True
        )
    resumed = actgrid.compare_models(*models, photos, output=out, shard_size=4, resume=True)
    assert resumed.images == 10
    assert resumed.to_frame().equals(expected_comparison.to_frame())
    assert list_names(out) == list_names(tmp_path / "whole")
    for name in ("comparison.npz", "summary.json", "report.html"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = actgrid.compare_models(*models, photos, output=out, shard_size=4, resume=True)
    assert again.to_frame().equals(expected_comparison.to_frame())
    with pytest.raises(RunError, match="finished run"):
        actgrid.compare_models(*models, photos, output=out, shard_size=4)
    replaced = actgrid.compare_models(
        *models, photos, "conv", output=out, shard_size=4, overwrite=True
    )
    assert list(replaced.layers) == ["conv"]
    assert len(list((out / "top").iterdir())) == 1


def test_each_model_has_its_own_preprocessing_and_size(photos: Path) -> None:
    small, large = make_model(1), make_model(2, size=24, scaling=1.0)
    comparison = actgrid.compare_models(small, large, photos, ["conv", "mean"])
    conv, mean = comparison.layers["conv"], comparison.layers["mean"]
    assert np.isnan(conv.difference).all()  # 10 x 10 and 22 x 22 positions
    pixels = load_pixels(photos)
    inputs = actgrid.load_images([Image.fromarray(image) for image in pixels], model=large)
    np.testing.assert_allclose(
        conv.b.mean,
        np.asarray(large.get_layer("conv")(large.layers[0](inputs))).mean((0, 1, 2)),
        rtol=1e-4,
    )
    values = np.asarray(small(pixels.astype(np.float32))), np.asarray(large(inputs))
    np.testing.assert_allclose(mean.difference, np.abs(values[0] - values[1]).mean(0), rtol=1e-4)


def test_bad_images_are_skipped_or_raised(
    models: tuple[Any, Any], photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, file in enumerate(sorted(photos.iterdir())[:5]):
        (folder / file.name).write_bytes(b"" if index == 2 else file.read_bytes())
    comparison = actgrid.compare_models(*models, folder)
    assert comparison.images == 4
    with pytest.raises(actgrid.ActgridError):
        actgrid.compare_models(*models, folder, on_error="raise")
    with pytest.raises(RunError, match="none of 1 images could be used; the first error"):
        actgrid.compare_models(*models, [np.zeros((3, 3, 3, 3))])
    with pytest.raises(OptionError, match="resume and overwrite require output"):
        actgrid.compare_models(*models, folder, resume=True)


def test_arrays_and_dicts() -> None:
    def make(factor: float) -> Any:
        inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((4,), name="right")}
        total = layers.Add(name="total")([inputs["left"], inputs["right"] * factor])
        return keras.Model(inputs, total)

    rng = np.random.default_rng(0)
    x = {name: rng.random((9, 4)).astype(np.float32) for name in ("left", "right")}
    comparison = actgrid.compare_models(make(1), make(3), x, "total")
    np.testing.assert_allclose(
        comparison.layers["total"].difference, 2 * x["right"].mean(0), rtol=1e-5
    )
    pictures = actgrid.render_comparison(make(1), make(3), x, "total", sample=4)
    picture = pictures["total"]
    assert picture.high == pytest.approx((x["left"] + 3 * x["right"])[4].max())

    relu, half = (
        keras.Sequential([keras.Input((4,)), layers.ReLU(threshold=limit, name="relu")])
        for limit in (0, 0.5)
    )
    values = x["left"]
    expected = np.where(values > 0.5, 0, values).mean(0)
    for images in (values, values.astype(np.float64), tf.constant(values)):
        result = actgrid.compare_models(relu, half, images)
        np.testing.assert_allclose(result.layers["relu"].difference, expected, rtol=1e-5)
        assert result.images == 9


def test_checkpoints_and_files(models: tuple[Any, Any], photos: Path, tmp_path: Path) -> None:
    for name, model in zip(("before", "after"), models, strict=True):
        model.save(tmp_path / f"{name}.keras")
    comparison = actgrid.compare_models(
        tmp_path / "before.keras", str(tmp_path / "after.keras"), photos, "conv"
    )
    assert comparison.names == ("before.keras", "after.keras")
    expected = actgrid.compare_models(*models, photos, "conv")
    assert comparison.to_frame().equals(expected.to_frame())


def test_int8_and_saved_models(photos: Path, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    parts = [
        layers.Flatten(name="flat"),
        layers.Dense(6, name="hidden"),
        layers.Dense(3, name="out"),
    ]
    model = keras.Sequential([keras.Input((12, 12, 3)), *parts])
    quantized = keras.models.clone_model(model)
    quantized.set_weights(model.get_weights())
    for name in ("hidden", "out"):
        quantized.get_layer(name).quantize("int8")
    x = load_pixels(photos).astype(np.float32) / 255
    comparison = actgrid.compare_models(model, quantized, x)
    expected = np.abs(np.asarray(model(x)) - np.asarray(quantized(x))).mean(0)
    np.testing.assert_allclose(comparison.layers["out"].difference, expected, rtol=1e-2)
    assert comparison.layers["flat"].difference.max() == 0
    assert 0 < comparison.layers["hidden"].relative_difference.max() < 0.1
    model.export(tmp_path / "saved", verbose=False)
    exported = actgrid.compare_models(model, tmp_path / "saved", x)
    assert list(exported.layers) == ["flat", "hidden", "out"]
    assert max(layer.difference.max() for layer in exported.layers.values()) < 1e-5


def test_pruned_and_patched_models(models: tuple[Any, Any], photos: Path) -> None:
    model, _ = models
    patched = actgrid.patch(model, {"conv": {2: 0}})
    layer = actgrid.compare_models(model, patched, photos).layers["conv"]
    assert layer.died.tolist() == [False, False, True, False, False]
    assert layer.difference[[0, 1, 3, 4]].tolist() == [0] * 4
    np.testing.assert_allclose(layer.difference[2], layer.a.mean[2], rtol=1e-6)
