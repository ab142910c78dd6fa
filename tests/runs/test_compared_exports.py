"""Comparisons of a Keras model with its exports, against the values that NumPy finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers
from PIL import Image
from tests.models.exports import export_onnx, export_tflite

import actgrid
from actgrid.errors import LayerError
from actgrid.models.preprocessing import find_pair_preprocessing, find_preprocessing

Array = npt.NDArray[Any]


def make_model() -> Any:
    keras.utils.set_random_seed(4)
    parts = [
        layers.Rescaling(1 / 127.5, -1, name="scaled"),
        layers.Conv2D(6, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.ReLU(name="relu"),
        layers.GlobalAveragePooling2D(name="mean"),
        layers.Dense(4, activation="softmax", name="classes"),
    ]
    return keras.Sequential([keras.Input((12, 12, 3), name="image"), *parts])


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(6):
        pixels = np.random.default_rng(index).integers(0, 256, (12, 12, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def pixels(photos: Path) -> Array:
    images = [np.asarray(Image.open(file)) for file in sorted(photos.iterdir())]
    return np.stack(images).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def int8_file(model: Any, pixels: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tflite(model, tmp_path_factory.mktemp("int8") / "int8.tflite", "int8", pixels)


def compute_with_interpreter(path: Path, pixels: Array, end: str) -> Array:
    """Return the real values of the tensor whose name starts with the scope of a layer."""
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter")
    resolvers = interpreter_module.OpResolverType
    interpreter = interpreter_module.Interpreter(
        str(path),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    (tensor,) = (
        details
        for details in interpreter.get_tensor_details()
        if f"/{end}_1/" in details["name"].partition(";")[0]
        and len(details["shape"]) == 4
        and details["shape"][0] == 1
        and details["shape"][1] > 1
    )
    scale, zero_point = tensor["quantization"]
    values = []
    for image in pixels:
        interpreter.set_tensor(entry["index"], image[None])
        interpreter.invoke()
        values.append(interpreter.get_tensor(tensor["index"])[0].astype(np.float64))
    stacked = np.stack(values)
    return (stacked - zero_point) * scale if scale else stacked


def test_int8_errors_of_each_channel(
    model: Any, int8_file: Path, photos: Path, pixels: Array
) -> None:
    comparison = actgrid.compare_models(model, str(int8_file), photos)
    assert comparison.names[1] == "int8.tflite"
    assert set(comparison.layers) == {"relu", "mean", "classes"}
    truth = keras.Model(model.inputs[0], model.get_layer("relu").output)(pixels).numpy()
    quantized = compute_with_interpreter(int8_file, pixels, "relu")
    difference = np.abs(truth - quantized).mean((0, 1, 2))
    np.testing.assert_allclose(comparison.layers["relu"].difference, difference, rtol=1e-3)
    differences = comparison.to_frame()["difference"].to_numpy()
    assert (np.diff(differences) <= 0).all()
    assert 0 < comparison.to_frame()["difference"].iloc[0] < 0.1


@pytest.mark.parametrize("quantization", ["float", "float16"])
def test_other_tflite_files(model: Any, photos: Path, tmp_path: Path, quantization: Any) -> None:
    path = export_tflite(model, tmp_path / "model.tflite", quantization)
    comparison = actgrid.compare_models(model, path, photos, ["relu", "mean", "classes"])
    largest = max(layer.max_difference.max() for layer in comparison.layers.values())
    if quantization == "float":
        assert largest < 1e-5
    else:
        assert 1e-5 < largest < 1e-2


def test_channels_first_export(model: Any, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    network = actgrid.load_model(export_onnx(model, tmp_path / "model.onnx"))
    formats = {info.path: info.data_format for info in actgrid.list_layers(network)}
    assert formats["relu"] == "channels_first"
    comparison = actgrid.compare_models(model, network, photos)
    assert {"relu", "mean", "classes"} <= set(comparison.layers)
    for layer in comparison.layers.values():
        assert layer.max_difference.max() < 1e-5
    pictures = actgrid.render_comparison(model, network, photos / "0.png", "relu")
    assert pictures["relu"].difference is not None
    assert pictures["relu"].b.tile(0).shape == pictures["relu"].a.tile(0).shape


def test_export_takes_the_preprocessing_of_the_model(
    photos: Path, pixels: Array, tmp_path: Path
) -> None:
    inputs = keras.Input((12, 12, 3), name="image")
    model = keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs))
    scaling = keras.Sequential([keras.Input((12, 12, 3)), layers.Rescaling(2.0), model])
    model.export(tmp_path / "saved", verbose=False)
    network = actgrid.load_model(tmp_path / "saved")
    choices = find_pair_preprocessing("auto", (scaling, network))
    assert [choice.name for choice in choices] == [find_preprocessing("auto", scaling).name] * 2
    assert [choice.name for choice in find_pair_preprocessing("none", (scaling, network))] == [
        "none"
    ] * 2


def test_layers_that_have_no_channels_in_one_model_are_left_out(photos: Path) -> None:
    def shorten(batch: Array) -> dict[str, Array]:
        return {"pixels": batch, "mean": batch.mean((1, 2))}

    def split(batch: Array) -> dict[str, Array]:
        halves = batch.reshape(len(batch), 2, 6, 2, 6, 3)  # as in exports of TimeDistributed
        return {"pixels": halves, "mean": batch.mean((1, 2))}

    comparison = actgrid.compare_models(shorten, split, photos)
    assert list(comparison.layers) == ["mean"]
    with pytest.raises(LayerError, match="have the same path: got none and pixels, mean; pass"):
        actgrid.compare_models(lambda batch: batch.mean((1, 2, 3)), shorten, photos)
