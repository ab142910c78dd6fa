"""Load Keras models from files and SavedModel folders."""

from __future__ import annotations

import importlib
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from actgrid.errors import FormatError, ModelError, strip_terminal_codes
from actgrid.models.archives import check_archive, is_hdf5, read_member
from actgrid.models.frameworks import keras, tensorflow
from actgrid.models.safety import find_unsafe_config, find_unsafe_operation

__all__ = ["SUFFIXES", "extract_error_line", "load_file", "load_saved_model"]

_HDF5 = (".h5", ".hdf5")
SUFFIXES = (".keras", *_HDF5)
_CONFIG = "config.json"
# The largest configuration in keras.applications has 0.8 MB; parsing takes about ten times as much.
_MAX_CONFIG_BYTES = 32 << 20


def extract_error_line(error: BaseException) -> str:
    """Return the reason in the message of a Keras error, as one line of text."""
    text = strip_terminal_codes(str(error)).rpartition("Exception encountered:")[2]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith("Exception encountered when calling"):
        lines = lines[1:] or lines
    return lines[0][:300] if lines else type(error).__name__


def load_file(path: Path, safe_mode: bool) -> Any:
    """Load the Keras model in a ``.keras`` or ``.h5`` file.

    With `safe_mode`, the configuration of the model is checked for unsafe content first.
    """
    config = None
    try:
        config = _read_config(path)
        if safe_mode:
            _raise_if_unsafe(path, find_unsafe_config(config))
        return keras().models.load_model(
            path,
            custom_objects=_define_keras_2_layers() if path.suffix in _HDF5 else None,
            compile=False,
            safe_mode=safe_mode,
        )
    except ModelError:
        raise
    except Exception as error:
        problem = "is not a Keras model file" if config is None else "cannot be loaded"
        raise ModelError(f"{path} {problem}: {extract_error_line(error)}") from error


def _raise_if_unsafe(path: Path, finding: str | None) -> None:
    """Raise ModelError if unsafe content was found in a model file.

    Parameters
    ----------
    finding
        Description of the unsafe content. None: the file is safe.
    """
    if finding is not None:
        raise ModelError(
            f"{path} contains {finding}; if you trust the model, load it with safe_mode=False "
            "(--no-safe-mode)"
        )


def _read_config(path: Path) -> Any:
    """Read the configuration of the model in a Keras file.

    The sizes that the file declares are checked before it is read.
    """
    with path.open("rb") as file:
        is_zip, start = zipfile.is_zipfile(file), _read_start(file)
        suffixes = _HDF5 if is_hdf5(file) and not is_zip else (".keras",)
    if not is_zip and suffixes != _HDF5:
        raise FormatError(_describe_start(start))
    if path.suffix not in suffixes:
        content = "HDF5" if suffixes == _HDF5 else "a zip archive"
        raise FormatError(f"it contains {content}, so its name must end in {' or '.join(suffixes)}")
    try:
        check_archive(path)
    except FormatError as error:
        raise ModelError(f"{path} is refused: {error}") from error
    if suffixes == _HDF5:
        import h5py  # installed with Keras

        with h5py.File(path) as file:
            if (text := file.attrs.get("model_config")) is None:
                raise FormatError("it has no model_config, so it may contain only weights")
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
    """Return a phrase that says what kind of file begins with the given bytes.

    The phrase explains in an error message why the file is neither a zip archive nor HDF5.
    """
    if not start:
        return "it is empty"
    if start.startswith(b"PK"):
        return "it is a zip archive that is truncated"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; git lfs pull gets the file"
    if start[4:8] == b"TFL3":
        return "it is a TFLite model, whose name must end in .tflite"
    return f"it is neither a zip archive (.keras) nor HDF5 (.h5), it begins with {start[:16]!r}"


def _define_keras_2_layers() -> dict[str, Any]:
    """Return layer classes that accept arguments which only Keras 2 knows.

    Returns
    -------
    dict
        Class name -> layer class, for the argument `custom_objects` of Keras.
    """

    class DepthwiseConv2D(keras().layers.DepthwiseConv2D):  # type: ignore[misc]
        def __init__(self, *args: Any, groups: int = 1, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)

    return {"DepthwiseConv2D": DepthwiseConv2D}


def load_saved_model(path: Path, safe_mode: bool) -> Any:
    """Load a SavedModel folder as a Keras model that consists of one layer.

    With `safe_mode`, the graph is checked for unsafe operations first.
    """
    if not (path / "saved_model.pb").exists():
        raise ModelError(f"{path} is a folder, but not a SavedModel: it has no saved_model.pb")
    k, tf = keras(), tensorflow()
    try:
        if safe_mode:
            _raise_if_unsafe(path, find_unsafe_operation(path))
        signatures = tf.saved_model.load(os.fspath(path)).signatures
        if not signatures:
            raise ModelError(
                f"the SavedModel {path} has no signatures, which define its inputs: save it with "
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
            (single_input,) = inputs.values()
            return k.Model(single_input, layer(single_input))
        # Keras passes several inputs as one dict; a signature accepts them only as keyword
        # arguments.
        signature = layer.call_endpoint_fn
        layer.call_endpoint_fn = lambda inputs: signature(**inputs)
        return k.Model(inputs, layer(inputs))
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded as a SavedModel: {_explain_load_failure(path, error)}"
        ) from error


def _explain_load_failure(path: Path, error: Exception) -> str:
    """Return a phrase that says why a SavedModel cannot be loaded, and what to do."""
    text = str(error)
    if "add_slot" in text:
        return (
            "it contains the state of an optimizer, which only Keras 2 can load: save it there "
            "without the optimizer, with model.export(folder) or model.save(folder, "
            "include_optimizer=False)"
        )
    if unknown := re.search(r"Op type not registered '([^']*)'", text):
        return (
            f"it needs the operation {unknown[1]}, which is not part of TensorFlow: first import "
            "the package that defines it, such as tensorflow_text"
        )
    if "Failed to find any matching files" in text:
        return f"its weights are missing: there is no {path / 'variables' / 'variables.index'}"
    if "Read less bytes" in text or isinstance(error, tensorflow().errors.DataLossError):
        return f"its weights, in {path / 'variables'}, are damaged"
    if (path / "saved_model.pb").stat().st_size == 0:
        return "saved_model.pb is empty"
    problem = extract_error_line(error)
    if isinstance(error, (OSError, ValueError, tensorflow().errors.OpError)):
        return problem
    # Messages of internal TensorFlow or Keras errors say little.
    return (
        f"TensorFlow {tensorflow().__version__} cannot read what TensorFlow "
        f"{_read_tensorflow_version(path)} wrote ({type(error).__name__}: {problem}): load it "
        "there and save it with model.export(folder)"
    )


def _read_tensorflow_version(path: Path) -> str:
    """Return the version of TensorFlow that wrote a SavedModel, as text."""
    loader = importlib.import_module("tensorflow.python.saved_model.loader_impl")
    graphs = loader.parse_saved_model(os.fspath(path)).meta_graphs
    return next(iter(graphs)).meta_info_def.tensorflow_version or "of unknown version"
