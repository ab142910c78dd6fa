"""Import TensorFlow and Keras on first use."""

from __future__ import annotations

import importlib
from typing import Any

from actgrid.errors import MissingDependencyError, ModelError

__all__ = ["keras", "list_applications", "tensorflow"]


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
