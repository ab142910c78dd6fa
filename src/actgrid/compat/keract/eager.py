"""Keep eager execution enabled, which Keras 3 needs."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from actgrid.errors import (
    ModelError,
)
from actgrid.models.frameworks import tensorflow

__all__ = ["keep_eager_execution"]


def keep_eager_execution() -> None:
    """Enable eager execution of TensorFlow, and keep it enabled.

    Afterwards, ``tf.compat.v1.disable_eager_execution`` only prints a warning.

    Raises
    ------
    ModelError
        If eager execution is disabled and can no longer be enabled.
    """
    tf = tensorflow()

    def disable_eager_execution() -> None:
        warnings.warn(
            "eager execution stays enabled, because Keras 3 needs it",
            stacklevel=2,
        )

    # Importing the module by its full name replaces the attribute ``tf.compat.v1`` with the module
    # that Keras's TensorBoard callback would put there later.
    v1: Any = importlib.import_module("tensorflow.compat.v1")
    if not tf.executing_eagerly():
        try:
            v1.enable_eager_execution()
        except ValueError as error:
            raise ModelError(
                "Keras 3 needs eager execution, which this program has disabled: remove "
                "tf.compat.v1.disable_eager_execution()"
            ) from error
    v1.disable_eager_execution = disable_eager_execution
