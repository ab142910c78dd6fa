"""Export Keras models to the formats of production, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tensorflow as tf

__all__ = ["Quantization", "export_tflite"]

# float: no quantization. float16, dynamic: float16 and int8 weights. int8, int16: weights of int8,
# activations of int8 and int16. full_int8: int8 inputs and outputs, too.
Quantization = Literal["float", "float16", "dynamic", "int8", "full_int8", "int16"]


def export_tflite(
    model: Any, path: Path, quantization: Quantization, samples: npt.NDArray[Any] | None = None
) -> Path:
    """Write a TFLite file of a Keras model.

    Parameters
    ----------
    samples
        Inputs that represent those of the model, to choose the scales of int8 and int16 values.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
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
    path.write_bytes(converter.convert())
    return path
