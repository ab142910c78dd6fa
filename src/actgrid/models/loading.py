"""Load models from files, names and functions."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import reprlib
from pathlib import Path
from typing import Any, Unpack

from actgrid.errors import ActgridError, MissingFileError, ModelError, suggest
from actgrid.models.archives import check_archive
from actgrid.models.frameworks import keras, list_applications, tensorflow
from actgrid.models.function_network import (
    count_required_arguments,
    describe_function,
    takes_any_arguments,
)
from actgrid.models.keras_files import load_file
from actgrid.models.model_errors import extract_error_line
from actgrid.models.networks import find_network, list_network_kinds, unwrap_model
from actgrid.models.types import ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import ModelOptions

__all__ = ["SPECS", "is_function_spec", "load_model"]

SPECS = (
    "a .keras, .h5, .tflite or .onnx file, a SavedModel folder, keras:NAME (an application such as "
    "keras:VGG16), demo, or package.module:function, a function that returns a model or takes a "
    "batch"
)
# Short names of functions that return a model.
_ALIASES = {"demo": "actgrid.demo:model"}
_FUNCTION_SPEC = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


@takes_options(ModelOptions)
def load_model(spec: ModelLike, **options: Unpack[ModelOptions]) -> Any:
    """Load a model from a file, an application name or a function.

    Parameters
    ----------
    spec : keras.Model, Network, callable, str or pathlib.Path
        A Keras model or a network of another kind, which is returned unchanged; a function of a
        batch, see Notes; the path of a ``.keras``, ``.h5``, ``.tflite`` or ``.onnx`` file or of a
        SavedModel folder; ``"keras:VGG16"`` (any name in `keras.applications`); ``"demo"``, the
        embedded model; or ``"package.module:function"``, a function that returns a model, or a
        function of a batch. Files are loaded for inference, not compiled.
    **options
        See `actgrid.options.ModelOptions`. In ``.keras`` and ``.h5`` files `safe_mode` refuses
        Lambda layers, layers that load other files, and functions that are not operations; in
        SavedModels, operations that access files, the network or Python; in ``.onnx`` files,
        weights outside the folder of the file.

    Returns
    -------
    keras.Model or Network
        The model.

    Raises
    ------
    ModelError
        If the specification, the file or the name is invalid. Also a ValueError.
    MissingFileError
        If the file does not exist. Also a FileNotFoundError.
    MissingDependencyError
        If TensorFlow, or the package that runs a file, is not installed. Also an ImportError.

    Notes
    -----
    A function of a batch has one required argument, a NumPy array (N, ...). It returns an array
    (N, ...) or (N,), or a tensor of PyTorch, JAX or TensorFlow, or a list, tuple or dict of these
    for several outputs. Its only layers are these outputs. It can be explained by the methods that
    need only outputs, such as ``"occlusion"``. The function receives explained inputs in the dtype
    of `x`, but float64 as float32.

    Examples
    --------
    >>> import keras
    >>> keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)]).save("model.keras")
    >>> actgrid.load_model("model.keras").output_shape
    (None, 6, 6, 4)
    >>> actgrid.load_model("keras:MobileNetV2", weights="random").count_params()
    3538984
    """
    if find_network(spec) is not None:
        return unwrap_model(spec)
    if not isinstance(spec, (str, os.PathLike)):
        raise ModelError(
            f"a model must be a Keras model or a function of a batch, or {SPECS}, not "
            f"{_describe_non_model(spec)}"
        )
    text = os.fspath(spec)
    if text.startswith("keras:"):
        return _load_application(text.removeprefix("keras:"), options["weights"])
    if not text:
        raise ModelError(f"model is empty; expected {SPECS}")
    path = Path(text)
    if text in _ALIASES:
        return _call_model_function(_ALIASES[text])
    kind = next((kind for kind in list_network_kinds() if kind.accepts(path)), None)
    if path.exists():
        safe_mode = options["safe_mode"]
        # For a file of no known kind, load_file raises an error that describes its content.
        loaded = load_file(path, safe_mode) if kind is None else kind.load(path, safe_mode)
        return unwrap_model(loaded)
    if isinstance(spec, os.PathLike) or kind is not None or os.sep in text:
        raise MissingFileError(f"there is no model file {text}")
    if is_function_spec(text):
        return _call_model_function(text)
    specs = [f"keras:{name}" for name in list_applications()] + list(_ALIASES)
    raise ModelError(f"{text!r} is not a model{suggest(text, specs)}; expected {SPECS}")


# Other packages whose models users pass, by module name, and how to get a Keras model from them.
_OTHER_PACKAGES = {
    "tf_keras": (
        "a Keras 2 model (tf_keras): save it with model.save('model.h5') or "
        "model.export('folder'), and give that path"
    ),
    "torch": (
        "a PyTorch model: export it with torch.onnx.export, and give that path, or give a function "
        "of a NumPy batch, such as lambda batch: model(torch.from_numpy(batch))"
    ),
    "onnx": "an ONNX model: save it with onnx.save(model, 'model.onnx'), and give that path",
    "onnxruntime": "a session of onnxruntime: give the path of its .onnx file",
    "ai_edge_litert": "an object of LiteRT: give the path of its .tflite file",
    "flax": "a Flax model: export it as a SavedModel with jax2tf, and give that folder",
}


def _describe_non_model(value: object) -> str:
    """Return a phrase that says what a value is, and how to get a Keras model from it.

    The phrase is part of the error message for a value that is not a model.
    """
    k, tf = keras(), tensorflow()
    value_class = value if isinstance(value, type) else type(value)
    if isinstance(value, type) and issubclass(value, k.layers.Layer):
        return f"the class {value.__name__}: give an instance of it, {value.__name__}(...)"
    packages = {base.__module__.partition(".")[0] for base in value_class.__mro__}
    for package, description in _OTHER_PACKAGES.items():
        if package in packages:
            return f"{value_class.__name__}, {description}"
    if isinstance(value, k.Function):
        return "a keras.Function: give keras.Model(function.inputs, function.outputs)"
    if isinstance(value, k.KerasTensor):
        return "a symbolic tensor: give keras.Model(inputs, outputs)"
    if isinstance(value, tf.lite.Interpreter):
        return "an interpreter of TFLite: give the path of its .tflite file"
    if hasattr(value, "signatures") and isinstance(value, tf.__internal__.tracking.AutoTrackable):
        return "what tf.saved_model.load returns: give the path of the folder"
    if isinstance(value, tf.types.experimental.ConcreteFunction):
        return (
            "a concrete function of TensorFlow: give the folder of the SavedModel with this "
            "signature, or a function of a batch"
        )
    if isinstance(value, tf.Module):
        return (
            f"{value_class.__name__}, a tf.Module: save it with tf.saved_model.save and "
            "signatures, and give that folder, or call it in a keras.Model"
        )
    if inspect.isroutine(value) or isinstance(value, tf.types.experimental.PolymorphicFunction):
        name, count = describe_function(value), count_required_arguments(value)
        if count == 0:
            return f"the function {name}: give the model that it returns, or a function of a batch"
        arguments = "more than one batch" if count is None else f"{count} arguments"
        return (
            f"the function {name}, which requires {arguments}: give a function of one batch, such "
            f"as lambda batch: {name}(batch, ...)"
        )
    if hasattr(value, "predict"):
        methods = [name for name in ("predict", "predict_proba") if hasattr(value, name)]
        return f"{value_class.__name__}: give its method {' or '.join(methods)}"
    return reprlib.repr(value)


def is_function_spec(spec: str) -> bool:
    """Return whether a model specification has the form ``package.module:function``."""
    return _FUNCTION_SPEC.fullmatch(spec) is not None and not spec.startswith("keras:")


def _load_application(name: str, weights: str | Path) -> Any:
    names = list_applications()
    if name not in names:
        raise ModelError(f"keras.applications has no model {name!r}{suggest(name, names)}")
    weights = os.fspath(weights)
    is_file = weights not in ("imagenet", "random")
    if is_file and not Path(weights).exists():
        raise MissingFileError(f"there is no weights file {weights}")
    try:
        if is_file:
            check_archive(Path(weights))
        keras_weights = None if weights == "random" else weights
        return getattr(keras().applications, name)(weights=keras_weights)
    except Exception as error:
        raise ModelError(
            f"keras:{name} with weights {weights!r} cannot be loaded: {extract_error_line(error)}; "
            "weights may also be random or a file"
        ) from error


def _call_model_function(spec: str) -> Any:
    module_name, _, function_name = spec.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelError(f"{spec}: there is no module {error.name!r}") from error
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"{spec}: importing {module_name} raised {_describe_error(error)}"
        ) from error
    try:
        for part in function_name.split("."):
            target = getattr(target, part)
    except AttributeError:
        public = [name for name in dir(target) if not name.startswith("_")]
        raise ModelError(
            f"{spec}: {module_name} has no {function_name!r}{suggest(function_name, public)}"
        ) from None
    model = target
    # A decorated function may return a model or take a batch: it is tried.
    is_ambiguous = callable(target) and takes_any_arguments(target)
    if callable(target) and (find_network(target) is None or is_ambiguous):
        count = count_required_arguments(target)
        if count is not None and count > 1:
            raise ModelError(
                f"{spec} requires {count} arguments; expected a function that takes no arguments "
                "and returns a Keras model, or takes only a batch"
            )
        try:
            model = target()
        except ActgridError:
            raise
        except (Exception, SystemExit) as error:
            if is_ambiguous and isinstance(error, (IndexError, TypeError)):
                return unwrap_model(target)
            raise ModelError(
                f"{spec} raised {_describe_error(error)}; expected a function that takes no "
                "arguments and returns a Keras model, or takes only a batch"
            ) from error
    if find_network(model) is None:
        raise ModelError(f"{spec} must return a Keras model, not {_describe_non_model(model)}")
    return unwrap_model(model)


def _describe_error(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {extract_error_line(error)}"
        if str(error)
        else type(error).__name__
    )
