"""From a model specification to a Keras model."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import reprlib
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from actgrid.errors import (
    ActgridError,
    FormatError,
    MissingFileError,
    ModelError,
    strip_terminal_codes,
    suggest,
)
from actgrid.models.archives import check_archive, is_hdf5, read_member
from actgrid.models.frameworks import applications, keras, tensorflow
from actgrid.models.safety import unsafe_config, unsafe_saved_model

__all__ = ["SPECS", "is_function_spec", "load_model"]

SPECS = (
    "a .keras or .h5 file, a SavedModel folder, keras:NAME (an application such as keras:VGG16), "
    "demo, or package.module:function"
)
# Short names for functions that return a model.
_ALIASES = {"demo": "actgrid.demo:model"}
_HDF5 = (".h5", ".hdf5")
_SUFFIXES = (".keras", *_HDF5)
_FUNCTION_SPEC = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
_CONFIG = "config.json"
# The largest configuration in keras.applications has 0.8 MB; parsing takes about ten times as much.
_MAX_CONFIG_BYTES = 32 << 20


def load_model(
    spec: object, *, weights: str | Path = "imagenet", safe_mode: bool = True
) -> Any:
    """Return the Keras model that a specification stands for.

    Parameters
    ----------
    spec
        A Keras model, which is returned as it is; the path of a ``.keras`` or ``.h5`` file or of
        a SavedModel folder; ``"keras:VGG16"`` (any name in `keras.applications`); ``"demo"``, the
        embedded model; or ``"package.module:function"``, a function that returns a model. Files
        are loaded for inference, not compiled. Of a SavedModel only the outputs can be seen.
    weights
        For ``keras:`` names: ``"imagenet"``, ``"random"``, or a weights file.
    safe_mode
        Refuse files that hold code: in ``.keras`` and ``.h5`` files Lambda layers, layers that
        load other files and functions that are no operations; in SavedModels operations that
        access files, the network or Python. Files that you trust load with False.

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
    k = keras()
    if isinstance(spec, k.layers.Layer):
        return spec
    if not isinstance(spec, (str, os.PathLike)):
        raise ModelError(f"a model is a Keras model or {SPECS}, not {_describe_value(spec)}")
    text = os.fspath(spec)
    if text.startswith("keras:"):
        return _application(text.removeprefix("keras:"), weights)
    if not text:
        raise ModelError(f"the model is empty: give {SPECS}")
    path = Path(text)
    if text in _ALIASES:
        return _from_function(_ALIASES[text])
    if path.is_dir():
        return _saved_model(path, safe_mode)
    if path.exists():
        return _file(path, safe_mode)
    if isinstance(spec, os.PathLike) or path.suffix in _SUFFIXES or os.sep in text:
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


def _first_line(error: BaseException) -> str:
    # Keras puts the reason behind what it was doing and a page of configuration.
    text = strip_terminal_codes(str(error)).rpartition("Exception encountered:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith("Exception encountered when calling"):
        lines = lines[1:] or lines
    return lines[0][:300] if lines else type(error).__name__


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
            f"keras:{name} with weights {weights!r} cannot be loaded: {_first_line(error)}; "
            "weights may also be random or a file"
        ) from error


def _file(path: Path, safe_mode: bool) -> Any:
    config = None
    try:
        config = _read_config(path)
        if safe_mode:
            _refuse(path, unsafe_config(config))
        return keras().models.load_model(
            path,
            custom_objects=_keras_2_layers() if path.suffix in _HDF5 else None,
            compile=False,
            safe_mode=safe_mode,
        )
    except ModelError:
        raise
    except Exception as error:
        problem = "is not a Keras model file" if config is None else "cannot be loaded"
        raise ModelError(f"{path} {problem}: {_first_line(error)}") from error


def _refuse(path: Path, finding: str | None) -> None:
    """Raise ModelError if something was found in a model that safe mode refuses."""
    if finding is not None:
        raise ModelError(
            f"{path} holds {finding}; if you trust the model, load it with safe_mode=False "
            "(--no-safe-mode)"
        )


def _read_config(path: Path) -> Any:
    """Return the configuration in a model file that is safe to read."""
    with path.open("rb") as file:
        is_zip, start = zipfile.is_zipfile(file), _read_start(file)
        suffixes = _HDF5 if is_hdf5(file) and not is_zip else (".keras",)
    if not is_zip and suffixes != _HDF5:
        raise FormatError(_describe_start(start))
    if path.suffix not in suffixes:
        content = "HDF5" if suffixes == _HDF5 else "a zip archive"
        raise FormatError(f"it holds {content}, so its name must end in {' or '.join(suffixes)}")
    try:
        check_archive(path)
    except FormatError as error:
        raise ModelError(f"{path} is refused: {error}") from error
    if suffixes == _HDF5:
        import h5py  # installed with Keras

        with h5py.File(path) as file:
            if (text := file.attrs.get("model_config")) is None:
                raise FormatError("it has no model_config, so it may hold weights alone")
    else:
        with zipfile.ZipFile(path) as archive:
            if _CONFIG not in archive.namelist():
                raise FormatError(f"the archive has no {_CONFIG}")
            text = read_member(archive, _CONFIG, _MAX_CONFIG_BYTES)
    return json.loads(text)


def _read_start(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read(48)


def _describe_start(start: bytes) -> str:
    """Return what a file is that is neither a zip archive nor HDF5, judged by its first bytes."""
    if not start:
        return "it is empty"
    if start.startswith(b"PK"):
        return "it is a zip archive that is truncated"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; git lfs pull gets the file"
    return f"it is neither a zip archive (.keras) nor HDF5 (.h5), it begins with {start[:16]!r}"


def _keras_2_layers() -> dict[str, Any]:
    """Return layers that take what Keras 2 wrote of them and Keras 3 refuses."""

    class DepthwiseConv2D(keras().layers.DepthwiseConv2D):  # type: ignore[misc]
        def __init__(self, *args: Any, groups: int = 1, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    return {"DepthwiseConv2D": DepthwiseConv2D}


def _saved_model(path: Path, safe_mode: bool) -> Any:
    """Return a SavedModel as a model of one layer."""
    if not (path / "saved_model.pb").exists():
        raise ModelError(f"{path} is a folder, but no SavedModel: it has no saved_model.pb")
    k, tf = keras(), tensorflow()
    try:
        if safe_mode:
            _refuse(path, unsafe_saved_model(path))
        signatures = tf.saved_model.load(os.fspath(path)).signatures
        if not signatures:
            raise ModelError(
                f"the SavedModel {path} has no signatures, which say what it takes: save it with "
                "model.export(folder), or tf.saved_model.save(module, folder, signatures=...)"
            )
        endpoint = "serving_default" if "serving_default" in signatures else next(iter(signatures))
        specs = signatures[endpoint].structured_input_signature[1]
        inputs = {
            name: k.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype.name, name=name)
            for name, spec in specs.items()
        }
        layer = k.layers.TFSMLayer(os.fspath(path), call_endpoint=endpoint, name="saved_model")
        if len(inputs) == 1:
            (single,) = inputs.values()
            return k.Model(single, layer(single))
        # Keras passes them on as one dict, and a signature takes several by their names alone.
        signature = layer.call_endpoint_fn
        layer.call_endpoint_fn = lambda inputs: signature(**inputs)
        return k.Model(inputs, layer(inputs))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded as a SavedModel: {_saved_model_problem(path, error)}"
        ) from error


def _saved_model_problem(path: Path, error: Exception) -> str:
    """Return why TensorFlow cannot load a SavedModel, and the way on."""
    text = str(error)
    if "add_slot" in text:
        return (
            "it holds the state of an optimizer, which only Keras 2 can load: save it there "
            "without, with model.export(folder) or model.save(folder, include_optimizer=False)"
        )
    if unknown := re.search(r"Op type not registered '([^']*)'", text):
        return (
            f"it needs the operation {unknown[1]}, which is none of TensorFlow's: import the "
            "package that defines it, such as tensorflow_text, before"
        )
    if "Failed to find any matching files" in text:
        return f"its weights are missing: there is no {path / 'variables' / 'variables.index'}"
    if "Read less bytes" in text or isinstance(error, tensorflow().errors.DataLossError):
        return f"its weights, in {path / 'variables'}, are damaged"
    if (path / "saved_model.pb").stat().st_size == 0:
        return "saved_model.pb is empty"
    problem = _first_line(error)
    if isinstance(error, (OSError, ValueError, tensorflow().errors.OpError)):
        return problem
    # The words of an error inside TensorFlow, or Keras, tell little.
    return (
        f"TensorFlow {tensorflow().__version__} cannot read what TensorFlow "
        f"{_saved_by(path)} wrote ({type(error).__name__}: {problem}): load it there and save it "
        "with model.export(folder)"
    )


def _saved_by(path: Path) -> str:
    """Return the version of TensorFlow that wrote a SavedModel."""
    loader = importlib.import_module("tensorflow.python.saved_model.loader_impl")
    graphs = loader.parse_saved_model(os.fspath(path)).meta_graphs
    return next(iter(graphs)).meta_info_def.tensorflow_version or "of unknown version"


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
    if callable(target) and not isinstance(target, keras().layers.Layer):
        try:
            model = target()
        except ActgridError:
            raise
        except (Exception, SystemExit) as error:
            raise ModelError(
                f"{spec} raised {_describe(error)}; expected a function that takes no arguments "
                "and returns a Keras model"
            ) from error
    if not isinstance(model, keras().layers.Layer):
        raise ModelError(f"{spec} must return a Keras model, not {_describe_value(model)}")
    return model


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_line(error)}" if str(error) else type(error).__name__
