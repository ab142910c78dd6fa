"""Export Keras models to the formats of production, for tests."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

__all__ = ["Quantization", "export_onnx", "export_tflite", "quantize_onnx", "write_onnx_classifier"]

# float: no quantization. float16, dynamic: float16 and int8 weights. int8, int16: weights of int8,
# activations of int8 and int16. full_int8: int8 inputs and outputs, too.
Quantization = Literal["float", "float16", "dynamic", "int8", "full_int8", "int16"]


def export_tflite(
    model: Any, path: Path, quantization: Quantization, samples: npt.NDArray[Any] | None = None
) -> Path:
    """Write a TFLite file of a Keras model, or of the SavedModel in a folder.

    Parameters
    ----------
    samples
        Inputs that represent those of the model, to choose the scales of int8 and int16 values.
    """
    is_saved = isinstance(model, Path)
    converters = tf.lite.TFLiteConverter
    converter = (
        converters.from_saved_model(str(model)) if is_saved else converters.from_keras_model(model)
    )
    if quantization != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization in ("int8", "full_int8", "int16"):
        assert samples is not None

        def list_samples() -> Iterator[list[npt.NDArray[Any]]]:
            for number in range(len(samples)):
                yield [samples[number : number + 1].astype(np.float32)]

        converter.representative_dataset = list_samples
        sets = tf.lite.OpsSet
        converter.target_spec.supported_ops = [
            sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            if quantization == "int16"
            else sets.TFLITE_BUILTINS_INT8
        ]
    if quantization == "full_int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8
    with warnings.catch_warnings():
        # "Statistics for quantized inputs were expected": the samples are these statistics.
        warnings.simplefilter("ignore", UserWarning)
        path.write_bytes(converter.convert())
    return path


def export_onnx(model: Any, path: Path) -> Path:
    """Write an ONNX file of a Keras model. Skip the test if tf2onnx is not installed."""
    pytest.importorskip("tf2onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf2onnx uses names that NumPy and protobuf will remove
        model([np.zeros((1, *x.shape[1:]), np.float32) for x in model.inputs])  # Keras needs a call
        model.export(path, format="onnx", verbose=False)
    return path


def quantize_onnx(
    path: Path, folded_path: Path, quantized_path: Path, samples: npt.NDArray[Any]
) -> None:
    """Quantize an ONNX model with one input to int8 values.

    Parameters
    ----------
    folded_path
        File to write: the model with fused operations, as `onnxruntime` recommends.
    quantized_path
        File to write: the model with operations `QuantizeLinear` and `DequantizeLinear`.
    samples
        Inputs that represent those of the model, to choose the scales.
    """
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static

    (model_input,) = onnxruntime.InferenceSession(path).get_inputs()

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = iter(samples)

        def get_next(self) -> dict[str, npt.NDArray[Any]] | None:
            sample = next(self._samples, None)
            return None if sample is None else {model_input.name: sample[None]}

    quant_pre_process(path, folded_path, skip_symbolic_shape=True)
    quantize_static(folded_path, quantized_path, Samples(), per_channel=True)


def write_onnx_classifier(path: Path) -> None:
    """Write an ONNX file of a classifier of photos, with the names of an export of PyTorch."""
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "conv.weight": rng.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "head.weight": rng.normal(size=(8, 5)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight"], ["/conv/Conv_output_0"], "/conv/Conv"),
        helper.make_node("Relu", ["/conv/Conv_output_0"], ["/relu/Relu_output_0"], "/relu/Relu"),
        helper.make_node(
            "GlobalAveragePool", ["/relu/Relu_output_0"], ["/pool/Pool_output_0"], "/pool/Pool"
        ),
        helper.make_node("Flatten", ["/pool/Pool_output_0"], ["/Flatten_output_0"], "/Flatten"),
        helper.make_node(
            "MatMul", ["/Flatten_output_0", "head.weight"], ["scores"], "/head/MatMul"
        ),
    ]
    shape = ["batch", 3, 32, 32]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
