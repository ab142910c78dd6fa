"""Choose and apply the preprocessing of image pixels for a model."""

from __future__ import annotations

import warnings
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import AssumptionWarning, OptionError, get_caller_level, suggest
from actgrid.models.architectures import DEMO, find_architecture
from actgrid.models.frameworks import keras, list_applications, tensorflow
from actgrid.models.inputs import get_input_structure, read_input_specs
from actgrid.models.network import Network, has_edges, is_network
from actgrid.models.networks import run_network
from actgrid.models.tracing import keep_state, trace_model
from actgrid.option_groups import get_options
from actgrid.options import PreparationOptions

__all__ = [
    "Preprocessing",
    "find_pair_preprocessing",
    "find_preprocessing",
    "get_preprocess_function",
]

Pixels = npt.NDArray[np.float32]
Function = Callable[[Any], Any]

# Layers before the first kernel that do not scale pixels, besides those named Random...
_NEUTRAL_LAYERS = frozenset(
    [
        *("Resizing", "CenterCrop", "Cropping2D", "ZeroPadding2D", "UpSampling2D", "Pipeline"),
        *("Identity", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"),
        *("Permute", "Reshape", "Flatten", "BatchNormalization", "LayerNormalization"),
    ]
)
_ARITHMETIC = frozenset(["Add", "Subtract", "Multiply", "Divide", "TrueDivide", "DivideNoNan"])
# TensorFlow operations between the input and the first kernel: those that scale pixels, and those
# that do not.
_SCALING_OPERATIONS = frozenset(["Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "DivNoNan"])
_NEUTRAL_OPERATIONS = frozenset(
    [
        *("Identity", "Cast", "Pad", "PadV2", "MirrorPad", "Transpose", "Reshape", "ExpandDims"),
        *("Squeeze", "StridedSlice", "Slice", "ReverseV2", "ResizeBilinear", "ResizeBicubic"),
        *("ResizeNearestNeighbor", "ResizeArea", "ScaleAndTranslate", "GatherV2", "ConcatV2"),
        *("ClipByValue", "Maximum", "Minimum", "Split", "SplitV", "Unpack", "Pack"),
    ]
)
# The names that ONNX and TFLite give to further such operations, in lower case.
_NEUTRAL_EXPORTED_OPERATIONS = frozenset(
    [
        *("clip", "concat", "concatenation", "dequantize", "dequantizelinear", "gather", "max"),
        *("min", "quantize", "quantizelinear", "resize", "resizenearestneighbor", "unsqueeze"),
    ]
)
# The scaling inside applications created with `include_preprocessing=True`, by name prefix.
_BUILT_IN_SCALING = {
    "EfficientNetV2B": "torch",
    "EfficientNetV2": "x / 128 - 1",
    "EfficientNetB": "torch",
    "MobileNetV3": "tf",
    "ConvNeXt": "torch",
}


class Preprocessing(NamedTuple):
    """Record of the preprocessing of pixels for a model, and why it was chosen.

    Attributes
    ----------
    name
        ``"none"``, ``"unit"``, a name in `keras.applications`, or a formula.
    reason
        Why this preprocessing was chosen.
    is_assumed
        Whether the preprocessing is an assumption because the model does not show what it needs.
    function
        Function from pixels, (N, H, W, C) float32, array or tensor, to the input of the model.
    """

    name: str
    reason: str
    is_assumed: bool
    function: Function

    def describe(self) -> str:
        """Return the name of the preprocessing and the reason for it in one line."""
        return f"{self.name} ({self.reason})"


def get_preprocess_function(preprocess: object, model: Any = None) -> Function:
    """Return the function that converts pixels for a value of option `preprocess`.

    The values of the option are those of `load_images`.

    Returns
    -------
    callable
        Function of pixels from 0 to 255 that returns the input of the model.

    Raises
    ------
    OptionError
        If the value is unknown.
    """
    return find_preprocessing(preprocess, model).function


def find_preprocessing(preprocess: object, model: Any = None) -> Preprocessing:
    """Choose the preprocessing of pixels for a value of the option `preprocess`.

    Returns
    -------
    Preprocessing
        Name, reason and function of the preprocessing.

    Warns
    -----
    AssumptionWarning
        Once for each model for which ``"auto"`` has to make an assumption.

    Raises
    ------
    OptionError
        If the value is unknown.
    """
    if callable(preprocess):
        name = getattr(preprocess, "__name__", type(preprocess).__name__)
        return Preprocessing(name, "the given function", False, preprocess)
    if preprocess == "auto":
        return _choose_automatically(model)
    functions = {"none": _keep_pixels, "unit": _scale_to_unit}
    if isinstance(preprocess, str) and preprocess in functions:
        return Preprocessing(preprocess, "as given", False, functions[preprocess])
    for application in list_applications():
        if isinstance(preprocess, str) and application.lower() == preprocess.lower():
            return Preprocessing(
                application, "as given", False, _get_application_function(application)
            )
    expected = get_options(PreparationOptions)["preprocess"].type.expected
    raise OptionError(
        f"preprocess must be {expected}, not {preprocess!r}"
        f"{suggest(str(preprocess), list_applications())}"
    )


def _keep_pixels(pixels: Any) -> Any:
    return pixels


def _scale_to_unit(pixels: Any) -> Any:
    return pixels / np.float32(255)


_ASSUMED = Preprocessing("unit", "assumed: pixels divided by 255", True, _scale_to_unit)


def _get_application_function(application: str) -> Function:
    package = keras().applications
    module = getattr(package, application).__module__.rsplit(".", 1)[-1]
    preprocess_input = getattr(package, module).preprocess_input
    return lambda pixels: preprocess_input(pixels, data_format="channels_last")


# By model: whether it was built, its number of layers, and the preprocessing chosen then.
_CHOICES: weakref.WeakKeyDictionary[Any, tuple[object, Preprocessing]] = weakref.WeakKeyDictionary()
# Models for which an AssumptionWarning was given.
_WARNED_MODELS: weakref.WeakSet[Any] = weakref.WeakSet()


def find_pair_preprocessing(preprocess: object, models: tuple[Any, Any]) -> list[Preprocessing]:
    """Choose the preprocessing of pixels for each of two models that take the same images.

    If ``"auto"`` would have to make an assumption for one of the models, and this model is an
    export, it has the preprocessing of the other model.

    Returns
    -------
    list of Preprocessing
        The preprocessing for each model.

    Warns
    -----
    AssumptionWarning
        As for `find_preprocessing`.

    Raises
    ------
    OptionError
        If the value is unknown.
    """
    if isinstance(preprocess, str) and preprocess == "auto":
        choices = [_find_choice(model) for model in models]
        known = [choice for choice in choices if not choice.is_assumed]
        is_export = any(
            choice.is_assumed and is_network(model)
            for model, choice in zip(models, choices, strict=True)
        )
        if len(known) == 1 and is_export:
            return known * 2
    return [find_preprocessing(preprocess, model) for model in models]


def _choose_automatically(model: Any) -> Preprocessing:
    if model is None:
        return Preprocessing("unit", "no model was given", False, _scale_to_unit)
    choice = _find_choice(model)
    if choice.is_assumed and model not in _WARNED_MODELS:
        _WARNED_MODELS.add(model)
        warnings.warn(
            f"the preprocessing of pixels 0 to 255 is not known for the model {model.name!r}: "
            f"{choice.describe()}; to choose another one, set preprocess='none', the name of a "
            "Keras application, or a function",
            AssumptionWarning,
            stacklevel=get_caller_level(),
        )
    return choice


def _find_choice(model: Any) -> Preprocessing:
    """Return the preprocessing for a model, which is chosen anew if layers were added."""
    state = (getattr(model, "built", True), len(getattr(model, "layers", [])))
    choice = _CHOICES.get(model)
    if choice is None or choice[0] != state:
        choice = state, _choose_by_layers(model)
        _CHOICES[model] = choice
    return choice[1]


def _choose_by_layers(model: Any) -> Preprocessing:
    if is_network(model) and len(model.inputs) == 1:
        choice = _choose_by_range(model.inputs[0].value_range)
        if choice is not None:
            return choice
    scale, offset = _measure_scaling(model)
    if (scale, offset) != _NO_SCALING:
        return _choose_by_scaling(scale, offset)
    architecture = find_architecture(model)
    if architecture is None or architecture.name == DEMO:
        return _ASSUMED
    name = architecture.name
    reason = f"the architecture of keras.applications.{name}"
    mode = next((mode for start, mode in _BUILT_IN_SCALING.items() if name.startswith(start)), None)
    if mode is None:
        return Preprocessing(name, reason, False, _get_application_function(name))
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


def _choose_by_range(value_range: tuple[float, float] | None) -> Preprocessing | None:
    """Return the preprocessing for a model whose input has a range of values.

    The range is that of quantized values, which was measured on samples and need not be exact.

    Returns
    -------
    Preprocessing or None
        None: the range is not known, or is none of the usual ranges of pixels.
    """
    if value_range is None:
        return None
    low, high = value_range
    reason = f"the input of the model takes values from {low:.3g} to {high:.3g}"
    if 0.5 < high <= 1.5 and -1.5 <= low < -0.5:
        return Preprocessing(
            "x / 127.5 - 1", reason, False, lambda pixels: pixels / np.float32(127.5) - 1
        )
    if abs(low) > high / 20:
        return None
    if high <= 1.5:
        return Preprocessing("unit", reason, False, _scale_to_unit)
    return Preprocessing("none", reason, False, _keep_pixels) if 64 <= high <= 256 else None


def _choose_by_scaling(scale: float, offset: float) -> Preprocessing:
    """Return the preprocessing for a model whose first layers scale its input.

    The first layers compute ``scale * x + offset``. The expected range of x is centred where this
    is zero. Without an offset, it is the range, 0 to 1 or 0 to 255, that the scale brings nearer to
    1.

    Returns
    -------
    Preprocessing
        Conversion of pixels to the expected range.
    """
    no_scaling = Preprocessing("none", "the model scales its input itself", False, _keep_pixels)
    middle = -offset / scale if scale else np.inf
    if offset and middle > 0:
        is_unit, is_clear = middle <= 1, True
    else:
        is_unit = scale > _SCALE_THRESHOLD
        is_clear = not _SCALE_THRESHOLD < scale < 1 / _SCALE_THRESHOLD
    if not is_unit:
        return no_scaling
    if is_clear:
        return Preprocessing(
            "unit", "the model scales pixels from 0 to 1 itself", False, _scale_to_unit
        )
    return Preprocessing(
        "unit", "assumed: pixels divided by 255, which the model scales", True, _scale_to_unit
    )


# Result of `_measure_scaling` for a model that does not scale its input.
_NO_SCALING = (1.0, 0.0)
# A smaller scale brings the range 0 to 255 nearer to 1 than the range 0 to 1.
_SCALE_THRESHOLD = 1 / 16


def _measure_scaling(model: Any) -> tuple[float, float]:
    """Measure how the layers before the first kernel scale the input of a model.

    These layers are run on constant images.

    Returns
    -------
    tuple of float
        Mean scale and mean offset. A scale of 0 means that the layers are not linear, or cannot be
        run.
    """
    tf = tensorflow()
    specs = _find_specs(model)
    specs_list = [] if specs is None else tf.nest.flatten(specs)
    if len(specs_list) != 1 or specs_list[0].shape.rank is None:
        return _NO_SCALING
    shape = [side or _PROBE_SIDE for side in specs_list[0].shape[1:]]
    values = np.array(_PROBES, np.float32).reshape(-1, *[1] * len(shape))
    with tf.init_scope():
        images = tf.cast(tf.broadcast_to(values, (len(_PROBES), *shape)), specs_list[0].dtype)
    try:
        with tf.init_scope(), keep_state():  # also works while a function is being traced
            if is_network(model):
                scaled = _run_scaling_layers(model, images)
            else:
                scaled, _ = _run_to_first_kernel(model, images)
    except Exception:  # layers may raise any exception
        return _NO_SCALING
    if scaled is images:
        return _NO_SCALING
    means = np.asarray(scaled, np.float64).reshape(len(_PROBES), -1).mean(1)
    offset, scale = float(means[0]), float(means[1] - means[0])
    is_linear = np.isclose(means[2], scale * _PROBES[2] + offset, rtol=1e-2, atol=1e-3)
    return (scale, offset) if is_linear else (0.0, offset)


def _run_scaling_layers(network: Network, images: Any) -> Any:
    """Run a network on images as far as its last layer that only scales the input.

    The images are returned unchanged if the network does not list the connections of its layers,
    or has no such layer.
    """
    path = _find_scaling_layer(network)
    if path is None:
        return images
    runs = [run_network(network, image[None], [path])[path] for image in np.asarray(images)]
    return np.concatenate(runs)


def _find_scaling_layer(network: Network) -> str | None:
    """Return the path of the last layer before the first kernel that only scales the input."""
    if not has_edges(network):
        return None
    edges = network.list_edges()
    sources = Counter(target for _, target in edges)
    types = {info.path: info.type.replace("_", "").lower() for info in network.list_layers()}
    scaling = {name.lower() for name in _SCALING_OPERATIONS}
    neutral = {name.lower() for name in _NEUTRAL_OPERATIONS} | _NEUTRAL_EXPORTED_OPERATIONS
    path, pending = None, [network.inputs[0].name]
    while pending:
        source = pending.pop(0)
        for target in (target for start, target in edges if start == source):
            if types[target] in scaling and sources[target] == 1:
                path = target
            elif types[target] not in neutral:
                return path
            pending.append(target)
    return path


# Values of the constant images that a model is probed with, and the length of free sides.
_PROBES = (0.0, 1.0, 255.0)
_PROBE_SIDE = 32


def _run_to_first_kernel(layer: Any, images: Any) -> tuple[Any, bool]:
    """Run a layer on images as far as its first kernel.

    Layers that only move pixels are skipped.

    Returns
    -------
    tuple
        Images before the first kernel, and whether the layer has a kernel.
    """
    k = keras()
    class_name = type(layer).__name__
    if isinstance(layer, k.layers.InputLayer) or class_name.startswith("Random"):
        return images, False
    if not isinstance(layer, k.layers.Layer):  # an operation of a functional model
        return (_run_operation(layer, images) if class_name in _ARITHMETIC else images), False
    if isinstance(layer, (k.layers.Rescaling, k.layers.Normalization)):
        return layer(images), False
    if get_input_structure(layer) is not None or isinstance(layer, k.Sequential):
        for sublayer in getattr(layer, "operations", None) or layer.layers:
            images, has_kernel = _run_to_first_kernel(sublayer, images)
            if has_kernel:
                return images, True
        return images, False
    if class_name in _NEUTRAL_LAYERS:
        return images, False
    if any(len(variable.shape) > 1 for variable in layer.weights) and not _has_sublayers(layer):
        return images, True
    return _trace_to_first_kernel(layer, images)


def _run_operation(operation: Any, images: Any) -> Any:
    """Run an operation of a functional model on images instead of its own inputs.

    Each symbolic tensor among the arguments of the operation is replaced by the images.
    """
    arguments = operation._inbound_nodes[-1].arguments
    args, kwargs = arguments.fill_in({id(tensor): images for tensor in arguments.keras_tensors})
    return operation(*args, **kwargs)


def _has_sublayers(layer: Any) -> bool:
    return any(layer._flatten_layers(include_self=False, recursive=False))


def _trace_to_first_kernel(layer: Any, images: Any) -> tuple[Any, bool]:
    """Run the TensorFlow operations of a layer on images as far as its first kernel.

    Returns
    -------
    tuple
        Images before the first kernel, and whether the layer has a kernel.
    """
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
        scaled, has_kernel = _follow_scaling(inputs)
        is_scaled = scaled is not inputs
        return scaled

    spec = tf.TensorSpec(images.shape, images.dtype)
    function = tf.function(run, autograph=False).get_concrete_function(spec)
    # Running the layer may take long and is needed only if it scales.
    return (function(images) if is_scaled else images), has_kernel


def _follow_scaling(inputs: Any) -> tuple[Any, bool]:
    """Follow a TensorFlow graph from its input up to the first layer with weights.

    Parameters
    ----------
    inputs
        Input tensor of the graph.

    Returns
    -------
    tuple
        The result of the last operation that scales the input (the input itself, if there is
        none), and whether the graph has a layer with weights.
    """
    scaled, pending, visited = inputs, [inputs], set()
    while pending:
        tensor = pending.pop(0)
        for operation in tensor.consumers():
            if operation.name in visited:
                continue
            visited.add(operation.name)
            if operation.type in _SCALING_OPERATIONS:
                if not _reads_variables(operation):
                    scaled = operation.outputs[0]
            elif operation.type not in _NEUTRAL_OPERATIONS and operation.type != "Shape":
                return scaled, True
            pending += [] if operation.type == "Shape" else operation.outputs
    return scaled, False


def _find_specs(layer: Any) -> Any:
    specs = read_input_specs(layer)
    if specs is None and getattr(layer, "_inbound_nodes", None):
        tensors = layer._inbound_nodes[0].input_tensors
        if len(tensors) == 1:
            specs = tensorflow().TensorSpec(tensors[0].shape, tensors[0].dtype)
    return specs


def _reads_variables(operation: Any) -> bool:
    """Return whether an input of a TensorFlow operation depends on model variables."""
    pending, visited = [tensor.op for tensor in operation.inputs], set()
    while pending:
        operand = pending.pop()
        if operand.type == "ReadVariableOp":
            return True
        if operand.name not in visited:
            visited.add(operand.name)
            pending += [tensor.op for tensor in operand.inputs]
    return False
