"""TensorFlow and models, loaded without the messages that come with them."""

from __future__ import annotations

import os
import sys
import warnings
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from actgrid import models
from actgrid.errors import AssumptionWarning, FormatError, MissingFileError
from actgrid.models.frameworks import keras
from actgrid.models.layers import model_operations
from actgrid.models.loading import is_function_spec
from actgrid.models.preprocessing import Preprocessing, find_preprocessing
from actgrid.progress import held_back

__all__ = [
    "layer_choice",
    "load_inputs",
    "load_model",
    "load_tensorflow",
    "used_preprocessing",
]


def load_model(spec: str, weights: str, safe_mode: bool) -> Any:
    """Return `actgrid.load_model`'s model; Keras tells of downloads on standard error instead.

    The modules of ``package.module:function`` may also be in the current folder, which is searched
    after all others: its files never replace a library.
    """
    load_tensorflow()
    folder = str(Path.cwd())
    if is_function_spec(spec) and folder not in sys.path:
        sys.path.append(folder)
    with redirect_stdout(sys.stderr):
        return models.load_model(spec, weights=weights, safe_mode=safe_mode)


def used_preprocessing(model: Any, preprocess: Any) -> Preprocessing:
    """Return how pixels are prepared for a model, for a command to print; it warns of nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        return find_preprocessing(preprocess, model)


def layer_choice(model: Any, names: list[str] | None) -> list[Any] | None:
    """Return what `--layers` names: paths and globs, else indices and Keras layer classes."""
    if names is None:
        return None
    paths = {node.path for node in model_operations(model)}

    def choice(name: str) -> Any:
        if name in paths:
            return name
        if name.lstrip("-").isdigit():
            return int(name)
        known = getattr(keras().layers, name, None)
        return known if isinstance(known, type) else name

    return [choice(name) for name in names]


def load_inputs(path: Path) -> dict[str, Any]:
    """Return the arrays of a NumPy .npz file by name, as samples of a model's inputs.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FormatError
        If it is no .npz file of numbers.
    """
    if not path.exists():
        raise MissingFileError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("it holds other files than arrays")
        return arrays
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"{path} must be a .npz file of numbers, as numpy.savez writes it: {error}"
        ) from error


def load_tensorflow() -> None:
    """Import TensorFlow, which writes to standard error past all of its own settings.

    What it wrote is shown after all if the import fails.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with held_back():
        keras().layers  # noqa: B018  (Keras loads lazily, and TensorFlow with it)
