"""Keep eager execution on, which Keras 3 needs."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from actgrid.errors import (
    ModelError,
)
from actgrid.models.frameworks import tensorflow

__all__ = ["stay_eager"]


def stay_eager() -> None:
    """Keep eager execution on, whatever a script does."""
    tf = tensorflow()

    def disable_eager_execution() -> None:
        warnings.warn(
            "Keras 3 needs eager execution, so it stays on; nothing here needs it off",
            stacklevel=2,
        )

    # By its own name: that puts another module in the place of the attribute ``tf.compat.v1``, as
    # Keras's TensorBoard callback would later.
    v1: Any = importlib.import_module("tensorflow.compat.v1")
    if not tf.executing_eagerly():
        try:
            v1.enable_eager_execution()
        except ValueError as error:
            raise ModelError(
                "Keras 3 needs eager execution, which this program has turned off and done without "
                "already: take tf.compat.v1.disable_eager_execution() out of it"
            ) from error
    v1.disable_eager_execution = disable_eager_execution
