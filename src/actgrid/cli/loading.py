"""Load TensorFlow, models, layers and inputs for commands."""

from __future__ import annotations

import sys
import warnings
import zipfile
from contextlib import redirect_stdout
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from actgrid import demo, models
from actgrid.errors import AssumptionWarning, FormatError, MissingFileError
from actgrid.models.frameworks import keras, load_tensorflow
from actgrid.models.layers import collect_operations
from actgrid.models.loading import is_function_spec
from actgrid.models.preprocessing import Preprocessing, find_preprocessing

__all__ = [
    "load_inputs",
    "load_model",
    "parse_layers",
    "resolve_preprocessing",
]


def load_model(spec: str, weights: str, safe_mode: bool) -> Any:
    """Load a model with `actgrid.load_model`; Keras's messages go to standard error.

    A module of ``package.module:function`` may be in the current folder. That folder is searched
    last, so that its files never replace a library.

    Returns
    -------
    object
        The model.
    """
    is_function = is_function_spec(spec)
    if spec == "demo":
        Thread(target=demo.prefetch_weights).start()  # while TensorFlow is imported
    load_tensorflow(skip_packages=not is_function)
    folder = str(Path.cwd())
    if is_function and folder not in sys.path:
        sys.path.append(folder)
    with redirect_stdout(sys.stderr):
        return models.load_model(spec, weights=weights, safe_mode=safe_mode)


def resolve_preprocessing(model: Any, preprocess: Any) -> Preprocessing:
    """Return the preprocessing of a model for the option `preprocess`.

    Warnings about assumptions are not shown, because the command prints the assumption.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        return find_preprocessing(preprocess, model)


def parse_layers(model: Any, names: list[str] | None) -> list[Any] | None:
    """Parse the values of the option `--layers`.

    Parameters
    ----------
    names
        Layer paths, globs, indices or names of Keras layer classes. None: not given.

    Returns
    -------
    list or None
        Paths, globs, integers and classes. None: the option was not given.
    """
    if names is None:
        return None
    paths = {node.path for node in collect_operations(model)}

    def parse(name: str) -> Any:
        if name in paths:
            return name
        if name.lstrip("-").isdigit():
            return int(name)
        layer_class = getattr(keras().layers, name, None)
        return layer_class if isinstance(layer_class, type) else name

    return [parse(name) for name in names]


def load_inputs(path: Path) -> dict[str, Any]:
    """Read the inputs of a model from a NumPy .npz file.

    Returns
    -------
    dict
        Input name -> array of one sample.

    Raises
    ------
    MissingFileError
        If the file does not exist.
    FormatError
        If the file is not a .npz file of numbers.
    """
    if not path.exists():
        raise MissingFileError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("the file contains other data than arrays")
        return arrays
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"{path} must be a .npz file of numbers, as numpy.savez writes it: {error}"
        ) from error
