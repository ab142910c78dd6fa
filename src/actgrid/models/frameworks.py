"""TensorFlow and Keras, imported when first needed."""

from __future__ import annotations

import importlib
from typing import Any

from actgrid.errors import MissingDependencyError, ModelError

__all__ = ["applications", "keras", "tensorflow"]


def tensorflow() -> Any:
    """Return the module tensorflow.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        return importlib.import_module("tensorflow")
    except ImportError as error:
        raise MissingDependencyError(
            f"models need TensorFlow ({error}); to get it, pip install 'actgrid[tensorflow]'"
        ) from error


def keras() -> Any:
    """Return the module keras, which must be Keras 3 running on TensorFlow.

    Raises
    ------
    MissingDependencyError
        If TensorFlow is not installed.
    ModelError
        If Keras runs on another backend.
    """
    tensorflow()
    module = importlib.import_module("keras")
    running = module.config.backend()
    if running != "tensorflow":
        raise ModelError(
            f"Keras runs on the backend {running!r} here; actgrid needs KERAS_BACKEND=tensorflow"
        )
    return module


def applications() -> list[str]:
    """Return the names of the models in `keras.applications`."""
    return [name for name in dir(keras().applications) if name[0].isupper()]
