"""Load the model that a specification stands for."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actgrid.errors import ActgridError, MissingFileError, ModelError, suggest
from actgrid.models.archives import check_archive
from actgrid.models.frameworks import applications, keras, tensorflow
from actgrid.models.keras_files import SUFFIXES, first_line, load_file
from actgrid.models.networks import find_network, network_kinds, usable_model
from actgrid.models.types import ModelLike
from actgrid.option_groups import takes_options
from actgrid.options import ModelOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SPECS", "is_function_spec", "load_model"]

SPECS = (
    "a .keras or .h5 file, a SavedModel folder, keras:NAME (an application such as keras:VGG16), "
    "demo, or package.module:function"
)
# Short names for functions that return a model.
_ALIASES = {"demo": "actgrid.demo:model"}
_FUNCTION_SPEC = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


@takes_options(ModelOptions)
def load_model(spec: ModelLike, **options: Unpack[ModelOptions]) -> Any:
    """Return the model that a specification stands for: mostly a Keras model.

    Parameters
    ----------
    spec
        A Keras model or a network of another kind, which is returned as it is; the path of a
        ``.keras`` or ``.h5`` file or of a SavedModel folder; ``"keras:VGG16"`` (any name in
        `keras.applications`); ``"demo"``, the embedded model; or ``"package.module:function"``, a
        function that returns a model. Files are loaded for inference, not compiled. Of a
        SavedModel only the outputs can be seen.
    **options
        See `actgrid.options.ModelOptions`. In ``.keras`` and ``.h5`` files `safe_mode` refuses
        Lambda layers, layers that load other files and functions that are no operations; in
        SavedModels operations that access files, the network or Python.

    Raises
    ------
    ModelError
        If the specification, the file or the name cannot be used. Also a ValueError.
    MissingFileError
        If there is no such file. Also a FileNotFoundError.
    MissingDependencyError
        If TensorFlow is not installed. Also an ImportError.

    Examples
    --------
    >>> model = actgrid.load_model("keras:MobileNetV2", weights="random")
    >>> model = actgrid.load_model("model.keras")
    """
    if find_network(spec) is not None:
        return usable_model(spec)
    if not isinstance(spec, (str, os.PathLike)):
        raise ModelError(f"a model is a Keras model or {SPECS}, not {_describe_value(spec)}")
    text = os.fspath(spec)
    if text.startswith("keras:"):
        return _application(text.removeprefix("keras:"), options["weights"])
    if not text:
        raise ModelError(f"the model is empty: give {SPECS}")
    path = Path(text)
    if text in _ALIASES:
        return _from_function(_ALIASES[text])
    if path.exists():
        kinds = (kind for kind in network_kinds() if kind.takes(path))
        kind, safe_mode = next(kinds, None), options["safe_mode"]
        # The error of a file of no kind says what Keras finds in it.
        loaded = load_file(path, safe_mode) if kind is None else kind.load(path, safe_mode)
        return usable_model(loaded)
    if isinstance(spec, os.PathLike) or path.suffix in SUFFIXES or os.sep in text:
        raise MissingFileError(f"there is no model file {text}")
    if is_function_spec(text):
        return _from_function(text)
    known = [f"keras:{name}" for name in applications()] + list(_ALIASES)
    raise ModelError(f"{text!r} is no model: give {SPECS}{suggest(text, known)}")


# Packages of models that users try, by the name of a class's module, and the way to Keras's.
_OTHER_PACKAGES = {
    "tf_keras": (
        "one of Keras 2 (tf_keras): save it with model.save('model.h5') or model.export('folder'), "
        "and give that path"
    ),
    "torch": "one of PyTorch: build it with Keras and copy the weights",
    "flax": "one of Flax: export it as a SavedModel with jax2tf, and give that folder",
}


def _describe_value(value: object) -> str:
    """Describe a value that is not a model, and the way to a Keras model."""
    k, tf = keras(), tensorflow()
    kind = value if isinstance(value, type) else type(value)
    if isinstance(value, type) and issubclass(value, k.layers.Layer):
        return f"the class {value.__name__}: give an instance of it, {value.__name__}(...)"
    packages = {base.__module__.partition(".")[0] for base in kind.__mro__}
    for package, description in _OTHER_PACKAGES.items():
        if package in packages:
            return f"{kind.__name__}, {description}"
    if isinstance(value, k.Function):
        return "a keras.Function: give keras.Model(function.inputs, function.outputs)"
    if isinstance(value, k.KerasTensor):
        return "a symbolic tensor: give keras.Model(inputs, outputs)"
    if isinstance(value, tf.Module):
        return (
            f"{kind.__name__}, a tf.Module: save it with tf.saved_model.save and signatures, and "
            "give that folder, or call it in a keras.Model"
        )
    if inspect.isroutine(value) or isinstance(value, tf.types.experimental.PolymorphicFunction):
        name = getattr(value, "__name__", kind.__name__)
        return f"the function {name}: give the model that it returns"
    return reprlib.repr(value)


def is_function_spec(spec: str) -> bool:
    """Return whether a specification has the form ``package.module:function``."""
    return _FUNCTION_SPEC.fullmatch(spec) is not None and not spec.startswith("keras:")


def _application(name: str, weights: str | Path) -> Any:
    known = applications()
    if name not in known:
        raise ModelError(f"keras.applications has no {name!r}{suggest(name, known)}")
    weights = os.fspath(weights)
    is_file = weights not in ("imagenet", "random")
    if is_file and not Path(weights).exists():
        raise MissingFileError(f"there is no weights file {weights}")
    try:
        if is_file:
            check_archive(Path(weights))
        given = None if weights == "random" else weights
        return getattr(keras().applications, name)(weights=given)
    except Exception as error:
        raise ModelError(
            f"keras:{name} with weights {weights!r} cannot be loaded: {first_line(error)}; "
            "weights may also be random or a file"
        ) from error


def _from_function(spec: str) -> Any:
    module_name, _, function_name = spec.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ModelError(f"{spec}: there is no module {error.name!r}") from error
    except (Exception, SystemExit) as error:
        raise ModelError(f"{spec}: importing {module_name} raised {_describe(error)}") from error
    try:
        for part in function_name.split("."):
            target = getattr(target, part)
    except AttributeError:
        public = [name for name in dir(target) if not name.startswith("_")]
        raise ModelError(
            f"{spec}: {module_name} has no {function_name!r}{suggest(function_name, public)}"
        ) from None
    model = target
    if callable(target) and find_network(target) is None:
        try:
            model = target()
        except ActgridError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelError(
                f"{spec} raised {_describe(error)}; expected a function that takes no arguments "
                "and returns a Keras model"
            ) from error
    if find_network(model) is None:
        raise ModelError(f"{spec} must return a Keras model, not {_describe_value(model)}")
    return usable_model(model)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}" if str(error) else type(error).__name__
