"""Import TensorFlow and Keras on first use."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from actgrid.errors import MissingDependencyError, ModelError
from actgrid.progress import buffer_stderr

__all__ = ["keras", "list_applications", "load_tensorflow", "tensorflow"]

# Packages that Keras imports if they are installed, for its plots and scikit-learn wrappers. Their
# import takes 1 s.
_UNUSED_PACKAGES = ("matplotlib", "pandas", "sklearn")


def tensorflow() -> Any:
    """Import and return the module ``tensorflow``.

    Returns
    -------
    module
        TensorFlow.

    Raises
    ------
    MissingDependencyError
        If TensorFlow is not installed.
    """
    try:
        return importlib.import_module("tensorflow")
    except ImportError as error:
        raise MissingDependencyError(
            f"models need TensorFlow ({error}); to install it, pip install 'actgrid[tensorflow]'"
        ) from error


def keras() -> Any:
    """Import and return Keras 3, which must use the TensorFlow backend.

    Returns
    -------
    module
        Keras.

    Raises
    ------
    MissingDependencyError
        If TensorFlow is not installed.
    ModelError
        If Keras uses another backend.
    """
    tensorflow()
    module = importlib.import_module("keras")
    backend = module.config.backend()
    if backend != "tensorflow":
        raise ModelError(
            f"unsupported Keras backend: got {backend!r}; expected KERAS_BACKEND=tensorflow"
        )
    return module


def list_applications() -> list[str]:
    """Return the names of the model functions in `keras.applications`."""
    return [name for name in dir(keras().applications) if name[0].isupper()]


def load_tensorflow(*, skip_packages: bool = True) -> None:
    """Import TensorFlow without the messages that it writes to standard error.

    The messages are printed if the import fails.

    Parameters
    ----------
    skip_packages
        Whether Keras is imported without packages that it needs for its own plots and for its
        scikit-learn wrappers.

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
