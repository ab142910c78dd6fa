"""Benchmarks of exported models: all layers of a SavedModel, a TFLite and an ONNX file."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import tensorflow as tf

import actgrid
from actgrid.bench import Run
from benchmarks.explain import get_images, get_network
from benchmarks.suite import Group, Target

__all__ = ["EXPORTS"]

_BATCH = 8


@cache
def _make_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def _get_folder() -> Path:
    return Path(_make_folder().name)


@cache
def _export_saved_model() -> Path:
    folder = _get_folder() / "saved_model"
    get_network().export(folder, verbose=False)
    return folder


@cache
def _export_tflite() -> Path:
    path = _get_folder() / "model.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(get_network()).convert())
    return path


@cache
def _export_onnx() -> Path:
    path = _get_folder() / "model.onnx"
    get_network().export(path, format="onnx", verbose=False)
    return path


def _extract_all(model: object) -> Run:
    extractor = actgrid.Extractor(model, "*")  # type: ignore[arg-type]

    def run() -> None:
        extractor(get_images()[:_BATCH])

    run()
    return run


def extract_keras() -> Run:
    """Prepare the extraction of all layers of the Keras network."""
    return _extract_all(get_network())


def extract_saved_model() -> Run:
    """Prepare the extraction of all layers of the SavedModel."""
    return _extract_all(_export_saved_model())


def extract_tflite() -> Run:
    """Prepare the extraction of all layers of the TFLite file."""
    return _extract_all(_export_tflite())


def run_tflite() -> Run:
    """Prepare a run of the TFLite file with the XNNPACK delegate."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(_export_tflite()), num_threads=2)
    (entry,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(entry["index"], (_BATCH, *entry["shape"][1:]))
    interpreter.allocate_tensors()

    def run() -> None:
        interpreter.set_tensor(entry["index"], get_images()[:_BATCH])
        interpreter.invoke()

    run()
    return run


def extract_onnx() -> Run:
    """Prepare the extraction of all layers of the ONNX file."""
    return _extract_all(_export_onnx())


def run_onnx() -> Run:
    """Prepare a run of the ONNX file in ONNX Runtime."""
    from onnxruntime import InferenceSession

    session = InferenceSession(_export_onnx(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()

    def run() -> None:
        session.run(None, {entry.name: get_images()[:_BATCH]})

    run()
    return run


EXPORTS = Group(
    f"all layers of exported models, a batch of {_BATCH}, EfficientNet-Lite0",
    {
        "Keras, all layers": extract_keras,
        "SavedModel, all layers": extract_saved_model,
        "TFLite, all layers": extract_tflite,
        "TFLite, output only": run_tflite,
        "ONNX, all layers": extract_onnx,
        "ONNX, output only": run_onnx,
    },
    (
        Target(
            "SavedModel over Keras",
            "SavedModel, all layers",
            "Keras, all layers",
            1.5,
            1.1,
        ),
        Target("TFLite over its output", "TFLite, all layers", "TFLite, output only", 20, 8),
        Target("ONNX over its output", "ONNX, all layers", "ONNX, output only", 20, 8),
    ),
    max_rounds=5,
)
