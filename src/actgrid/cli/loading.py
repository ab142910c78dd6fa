"""Load TensorFlow, models, layers and inputs for commands."""

from __future__ import annotations

import gc
import os
import sys
import warnings
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from actgrid import demo, models
from actgrid.errors import AssumptionWarning, FormatError, MissingFileError
from actgrid.models.frameworks import keras
from actgrid.models.layers import collect_operations
from actgrid.models.loading import is_function_spec
from actgrid.models.preprocessing import Preprocessing, find_preprocessing
from actgrid.progress import buffer_stderr

__all__ = [
    "load_inputs",
    "load_model",
    "load_tensorflow",
    "parse_layers",
    "resolve_preprocessing",
]


# Packages that Keras imports if they are installed, for its plots and scikit-learn wrappers. Their
# import takes 1 s.
_UNUSED_PACKAGES = ("matplotlib", "pandas", "sklearn")


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


def load_tensorflow(*, skip_packages: bool = True) -> None:
    """Import TensorFlow without the messages that it writes to standard error.

    The messages are printed if the import fails.

    Parameters
    ----------
    skip_packages
        Whether Keras is imported without the packages that commands do not need.

    Raises
    ------
    MissingDependencyError
        If TensorFlow is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    skipped = _UNUSED_PACKAGES if skip_packages else ()
    with buffer_stderr(), _without_packages(skipped), _without_garbage_collection():
        keras().layers  # noqa: B018  (this access imports Keras and TensorFlow)


@contextmanager
def _without_packages(names: Collection[str]) -> Iterator[None]:
    """Make imports of packages fail in a ``with`` block, unless they are imported already."""
    names = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None: ImportError
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Switch garbage collection off in a ``with`` block, and for the new objects for ever.

    The imported modules live until the process ends. Collection took 0.5 s during the import of
    TensorFlow, and 1.2 s when the process ended.
    """
    if "tensorflow" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
