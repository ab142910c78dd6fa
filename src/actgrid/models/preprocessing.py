"""Prepare the pixels of images for a model."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import AssumptionWarning, OptionError, suggest
from actgrid.models.architectures import DEMO, find_architecture
from actgrid.models.frameworks import applications, keras, tensorflow
from actgrid.models.inputs import input_specs, input_structure
from actgrid.models.tracing import trace_model, unchanged

__all__ = ["Preprocessing", "find_preprocessing", "preprocessing"]

Pixels = npt.NDArray[np.float32]
Function = Callable[[Any], Any]

# Layers before the first kernel that leave pixels what they are, besides those named Random...
_NEUTRAL_LAYERS = frozenset(
    [
        *("Resizing", "CenterCrop", "Cropping2D", "ZeroPadding2D", "UpSampling2D", "Pipeline"),
        *("Identity", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
        *("Permute", "Reshape", "Flatten", "BatchNormalization", "LayerNormalization"),
    ]
)
_ARITHMETIC = frozenset(["Add", "Subtract", "Multiply", "Divide", "TrueDivide", "DivideNoNan"])
# TensorFlow's operations between the input and the first kernel: those that scale pixels, and those
# that leave them what they are.
_SCALING_OPERATIONS = frozenset(["Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "DivNoNan"])
_NEUTRAL_OPERATIONS = frozenset(
    [
        *("Identity", "Cast", "Pad", "PadV2", "MirrorPad", "Transpose", "Reshape", "ExpandDims"),
        *("Squeeze", "StridedSlice", "Slice", "ReverseV2", "ResizeBilinear", "ResizeBicubic"),
        *("ResizeNearestNeighbor", "ResizeArea", "ScaleAndTranslate", "GatherV2", "ConcatV2"),
        *("ClipByValue", "Maximum", "Minimum", "Split", "SplitV", "Unpack", "Pack"),
    ]
)
# The scaling that applications hold where they are made with `include_preprocessing`.
_HELD = {
    "EfficientNetV2B": "torch",
    "EfficientNetV2": "x / 128 - 1",
    "EfficientNetB": "torch",
    "MobileNetV3": "tf",
    "ConvNeXt": "torch",
}


class Preprocessing(NamedTuple):
    """What is done to pixels 0 to 255 for a model.

    Attributes
    ----------
    name
        What it is called: ``"none"``, ``"unit"``, a name in `keras.applications`, or a formula.
    reason
        How that was decided.
    is_assumed
        Whether the model does not tell what it wants.
    function
        From pixels, (N, H, W, C) float32, an array or a tensor, to what the model takes.
    """

    name: str
    reason: str
    is_assumed: bool
    function: Function

    def describe(self) -> str:
        """Return the name and the reason in one line."""
        return f"{self.name} ({self.reason})"


def preprocessing(preprocess: object, model: Any = None) -> Function:
    """Return the function that the option `preprocess` stands for, see `load_images`.

    Raises
    ------
    OptionError
        If there is none of that name.
    """
    return find_preprocessing(preprocess, model).function


def find_preprocessing(preprocess: object, model: Any = None) -> Preprocessing:
    """Return what the option `preprocess` stands for; see `load_images`.

    Warns
    -----
    AssumptionWarning
        Once for a model, if ``"auto"`` has to assume something.

    Raises
    ------
    OptionError
        If there is none of that name.
    """
    if callable(preprocess):
        name = getattr(preprocess, "__name__", type(preprocess).__name__)
        return Preprocessing(name, "the given function", False, preprocess)
    if preprocess == "auto":
        return _automatic(model)
    known = {"none": _unchanged, "unit": _unit}
    if isinstance(preprocess, str) and preprocess in known:
        return Preprocessing(preprocess, "as given", False, known[preprocess])
    for application in applications():
        if isinstance(preprocess, str) and application.lower() == preprocess.lower():
            return Preprocessing(application, "as given", False, _of_application(application))
    raise OptionError(
        "preprocess must be auto, none, unit, a name in keras.applications, or a function, "
        f"not {preprocess!r}{suggest(str(preprocess), applications())}"
    )


def _unchanged(pixels: Any) -> Any:
    return pixels


def _unit(pixels: Any) -> Any:
    return pixels / np.float32(255)


def _of_application(application: str) -> Function:
    room = keras().applications
    module = getattr(room, application).__module__.rsplit(".", 1)[-1]
    preprocess_input = getattr(room, module).preprocess_input
    return lambda pixels: preprocess_input(pixels, data_format="channels_last")


# What was decided for a model, and how many layers it had then.
_DECIDED: weakref.WeakKeyDictionary[Any, tuple[object, Preprocessing]] = weakref.WeakKeyDictionary()


def _automatic(model: Any) -> Preprocessing:
    if model is None:
        return Preprocessing("unit", "no model was given", False, _unit)
    state = (model.built, len(getattr(model, "layers", [])))
    decided = _DECIDED.get(model)
    if decided is None or decided[0] != state:
        was_assumed = decided is not None and decided[1].is_assumed
        decided = state, _decide(model)
        _DECIDED[model] = decided
        if decided[1].is_assumed and not was_assumed:
            warnings.warn(
                f"the model {model.name!r} does not tell what it wants done to pixels 0 to 255: "
                f"{decided[1].describe()}; to say otherwise, give preprocess='none', the name of "
                "a Keras application, or a function",
                AssumptionWarning,
                stacklevel=2,
            )
    return decided[1]


def _decide(model: Any) -> Preprocessing:
    if _scales_pixels(model):
        return Preprocessing("none", "the model scales its input itself", False, _unchanged)
    architecture = find_architecture(model)
    if architecture is None or architecture.name == DEMO:
        return Preprocessing("unit", "assumed: pixels divided by 255", True, _unit)
    name = architecture.name
    reason = f"the architecture of keras.applications.{name}"
    mode = next((mode for start, mode in _HELD.items() if name.startswith(start)), None)
    if mode is None:
        return Preprocessing(name, reason, False, _of_application(name))
    reason += " without its own scaling"
    if mode == "x / 128 - 1":
        return Preprocessing(mode, reason, False, lambda pixels: pixels / np.float32(128) - 1)
    preprocess_input = keras().applications.imagenet_utils.preprocess_input
    return Preprocessing(
        f"{mode} mode of keras.applications",
        reason,
        False,
        lambda pixels: preprocess_input(pixels, data_format="channels_last", mode=mode),
    )


def _scales_pixels(model: Any) -> bool:
    """Return whether a model scales its input before the first kernel."""
    return bool(_scaling(model))


def _scaling(layer: Any) -> bool | None:
    """Return whether a layer scales pixels; None if it leaves them what they are."""
    k = keras()
    kind = type(layer).__name__
    if isinstance(layer, k.layers.InputLayer) or kind.startswith("Random"):
        return None
    if not isinstance(layer, k.layers.Layer):  # an operation of a Functional model
        return True if kind in _ARITHMETIC else None
    if isinstance(layer, (k.layers.Rescaling, k.layers.Normalization)):
        return True
    if input_structure(layer) is not None or isinstance(layer, k.Sequential):
        for step in getattr(layer, "operations", None) or layer.layers:
            if (scales := _scaling(step)) is not None:
                return scales
        return None
    if kind in _NEUTRAL_LAYERS:
        return None
    if any(len(variable.shape) > 1 for variable in layer.weights) and not _layers_in(layer):
        return False
    return _scales_in_graph(layer)


def _layers_in(layer: Any) -> bool:
    return any(layer._flatten_layers(include_self=False, recursive=False))


def _scales_in_graph(layer: Any) -> bool | None:
    """Return whether a layer of any kind scales its input, by the operations that it runs.

    None if all of these leave pixels what they are, or nothing is known.
    """
    tf = tensorflow()
    specs = _specs_of(layer)
    if specs is None or len(tf.nest.flatten(specs)) != 1:
        return None

    def run(x: Any) -> Any:
        with unchanged():
            if isinstance(layer, keras().Model):
                return trace_model(layer, x).outputs
            return layer(x, training=False) if layer._call_has_training_arg else layer(x)

    try:
        graph = tf.function(run, autograph=False).get_concrete_function(specs).graph
    except Exception:  # of the layer, which may raise anything
        return None
    waiting, seen = [graph.inputs[0]], set()
    while waiting:
        tensor = waiting.pop(0)
        for operation in tensor.consumers():
            if operation.name in seen:
                continue
            seen.add(operation.name)
            if operation.type in _SCALING_OPERATIONS:
                if not _reads_variables(operation):
                    return True
            elif operation.type not in _NEUTRAL_OPERATIONS and operation.type != "Shape":
                return False
            waiting += [] if operation.type == "Shape" else operation.outputs
    return None


def _specs_of(layer: Any) -> Any:
    specs = input_specs(layer)
    if specs is None and getattr(layer, "_inbound_nodes", None):
        tensors = layer._inbound_nodes[0].input_tensors
        if len(tensors) == 1:
            specs = tensorflow().TensorSpec(tensors[0].shape, tensors[0].dtype)
    return specs


def _reads_variables(operation: Any) -> bool:
    """Return whether something that an operation takes comes from the variables of a model."""
    waiting, seen = [tensor.op for tensor in operation.inputs], set()
    while waiting:
        source = waiting.pop()
        if source.type == "ReadVariableOp":
            return True
        if source.name not in seen:
            seen.add(source.name)
            waiting += [tensor.op for tensor in source.inputs]
    return False
