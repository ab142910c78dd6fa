"""Load Keras models from files."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from actgrid.errors import FormatError, ModelError
from actgrid.models.archives import check_archive, is_hdf5, read_member
from actgrid.models.frameworks import keras
from actgrid.models.model_errors import extract_error_line
from actgrid.models.safety import find_unsafe_config, raise_if_unsafe

__all__ = ["SUFFIXES", "load_file"]

_HDF5 = (".h5", ".hdf5")
SUFFIXES = (".keras", *_HDF5)
_CONFIG = "config.json"
# The largest configuration in keras.applications has 0.8 MB; parsing takes about ten times as much.
_MAX_CONFIG_BYTES = 32 << 20


def load_file(path: Path, safe_mode: bool) -> Any:
    """Load the Keras model in a ``.keras`` or ``.h5`` file.

    With `safe_mode`, the configuration of the model is checked for unsafe content first.
    """
    config = None
    try:
        config = _read_config(path)
        if safe_mode:
            raise_if_unsafe(path, find_unsafe_config(config))
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


def _read_config(path: Path) -> Any:
    """Read the configuration of the model in a Keras file.

    The sizes that the file declares are checked before it is read.
    """
    with path.open("rb") as file:
        is_zip, start = zipfile.is_zipfile(file), _read_start(file)
        suffixes = _HDF5 if is_hdf5(file) and not is_zip else (".keras",)
    if not is_zip and suffixes != _HDF5:
        raise FormatError(_describe_start(path, start))
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


def _describe_start(path: Path, start: bytes) -> str:
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
    if path.name in ("saved_model.pb", "saved_model.pbtxt"):
        return f"it is part of a SavedModel: give the folder {path.parent}"
    # An ONNX model begins with the version of its format: 3 in 2017, 13 in 2025.
    if start[:1] == b"\x08" and 3 <= start[1] < 32:
        return "it is an ONNX model, whose name must end in .onnx"
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
