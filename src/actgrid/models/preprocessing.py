"""Prepare the pixels of images for a model."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import AssumptionWarning, OptionError, caller_level, suggest
from actgrid.models.architectures import DEMO, find_architecture
from actgrid.models.frameworks import applications, keras, tensorflow
from actgrid.models.inputs import input_specs, input_structure
from actgrid.models.network import is_network
from actgrid.models.tracing import trace_model, unchanged
from actgrid.option_groups import options_of
from actgrid.options import PreparationOptions

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
    expected = options_of(PreparationOptions)["preprocess"].type.expected
    raise OptionError(
        f"preprocess must be {expected}, not {preprocess!r}"
        f"{suggest(str(preprocess), applications())}"
    )


def _unchanged(pixels: Any) -> Any:
    return pixels


def _unit(pixels: Any) -> Any:
    return pixels / np.float32(255)


_ASSUMED = Preprocessing("unit", "assumed: pixels divided by 255", True, _unit)


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
    state = (getattr(model, "built", True), len(getattr(model, "layers", [])))
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
                stacklevel=caller_level(),
            )
    return decided[1]


def _decide(model: Any) -> Preprocessing:
    if is_network(model):
        return _ASSUMED
    scale, offset = _affine(model)
    if (scale, offset) != _NO_SCALING:
        return _of_scaling(scale, offset)
    architecture = find_architecture(model)
    if architecture is None or architecture.name == DEMO:
        return _ASSUMED
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


def _of_scaling(scale: float, offset: float) -> Preprocessing:
    """Return what a model wants that maps an input x to ``scale * x + offset`` itself.

    The middle of the range that it expects is where that is zero. Without an offset, the range is
    the one that the scale brings nearer to 1.
    """
    pixels = Preprocessing("none", "the model scales its input itself", False, _unchanged)
    middle = -offset / scale if scale else np.inf
    if offset and middle > 0:
        is_unit, is_clear = middle <= 1, True
    else:
        is_unit, is_clear = scale > _BETWEEN, not _BETWEEN < scale < 1 / _BETWEEN
    if not is_unit:
        return pixels
    if is_clear:
        return Preprocessing("unit", "the model scales pixels from 0 to 1 itself", False, _unit)
    return Preprocessing(
        "unit", "assumed: pixels divided by 255, which the model scales", True, _unit
    )


# What `_affine` returns for a model that hands its input on as it is.
_NO_SCALING = (1.0, 0.0)
# A scale below it brings 0 to 255 nearer to 1 than it does 0 to 1.
_BETWEEN = 1 / 16


def _affine(model: Any) -> tuple[float, float]:
    """Return scale and offset of what reaches the first kernel of a model, on average.

    The layers before it are run on constant images. A scale of 0 stands for what is not linear.
    """
    tf = tensorflow()
    specs = _specs_of(model)
    flat = [] if specs is None else tf.nest.flatten(specs)
    if len(flat) != 1 or flat[0].shape.rank is None:
        return _NO_SCALING
    shape = [side or _PROBE_SIDE for side in flat[0].shape[1:]]
    values = np.array(_PROBES, np.float32).reshape(-1, *[1] * len(shape))
    with tf.init_scope():
        images = tf.cast(tf.broadcast_to(values, (len(_PROBES), *shape)), flat[0].dtype)
    try:
        with tf.init_scope(), unchanged():  # also where a function is being traced
            reached, _ = _front(model, images)
    except Exception:  # of the layers, which may raise anything
        return _NO_SCALING
    if reached is images:
        return _NO_SCALING
    means = np.asarray(reached, np.float64).reshape(len(_PROBES), -1).mean(1)
    offset, scale = float(means[0]), float(means[1] - means[0])
    is_linear = np.isclose(means[2], scale * _PROBES[2] + offset, rtol=1e-2, atol=1e-3)
    return (scale, offset) if is_linear else (0.0, offset)


# Constant images that a model is probed with, and their sides where these are free.
_PROBES = (0.0, 1.0, 255.0)
_PROBE_SIDE = 32


def _front(layer: Any, images: Any) -> tuple[Any, bool]:
    """Return what a layer makes of constant images before its first kernel, and if it has one.

    What only moves pixels about is left out.
    """
    k = keras()
    kind = type(layer).__name__
    if isinstance(layer, k.layers.InputLayer) or kind.startswith("Random"):
        return images, False
    if not isinstance(layer, k.layers.Layer):  # an operation of a Functional model
        return (_operate(layer, images) if kind in _ARITHMETIC else images), False
    if isinstance(layer, (k.layers.Rescaling, k.layers.Normalization)):
        return layer(images), False
    if input_structure(layer) is not None or isinstance(layer, k.Sequential):
        for step in getattr(layer, "operations", None) or layer.layers:
            images, has_kernel = _front(step, images)
            if has_kernel:
                return images, True
        return images, False
    if kind in _NEUTRAL_LAYERS:
        return images, False
    if any(len(variable.shape) > 1 for variable in layer.weights) and not _layers_in(layer):
        return images, True
    return _front_in_graph(layer, images)


def _operate(operation: Any, images: Any) -> Any:
    """Return the result of an operation of a Functional model, with images for its tensors."""
    arguments = operation._inbound_nodes[-1].arguments
    args, kwargs = arguments.fill_in({id(one): images for one in arguments.keras_tensors})
    return operation(*args, **kwargs)


def _layers_in(layer: Any) -> bool:
    return any(layer._flatten_layers(include_self=False, recursive=False))


def _front_in_graph(layer: Any, images: Any) -> tuple[Any, bool]:
    """Return `_front` of a layer of any kind, by the operations that it runs."""
    tf = tensorflow()
    is_scaled = has_kernel = False

    def run(inputs: Any) -> Any:
        nonlocal is_scaled, has_kernel
        if isinstance(layer, keras().Model):
            trace_model(layer, inputs)
        elif layer._call_has_training_arg:
            layer(inputs, training=False)
        else:
            layer(inputs)
        found, has_kernel = _followed(inputs)
        is_scaled = found is not inputs
        return found

    spec = tf.TensorSpec(images.shape, images.dtype)
    function = tf.function(run, autograph=False).get_concrete_function(spec)
    # What a layer does may take long, so that it is only run if it scales.
    return (function(images) if is_scaled else images), has_kernel


def _followed(inputs: Any) -> tuple[Any, bool]:
    """Return the symbolic tensor that inputs become before a kernel, and if there is one."""
    scaled, waiting, seen = inputs, [inputs], set()
    while waiting:
        tensor = waiting.pop(0)
        for operation in tensor.consumers():
            if operation.name in seen:
                continue
            seen.add(operation.name)
            if operation.type in _SCALING_OPERATIONS:
                if not _reads_variables(operation):
                    scaled = operation.outputs[0]
            elif operation.type not in _NEUTRAL_OPERATIONS and operation.type != "Shape":
                return scaled, True
            waiting += [] if operation.type == "Shape" else operation.outputs
    return scaled, False


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
