"""Copy Keras models."""

from __future__ import annotations

import random
from typing import Any

from actgrid.errors import ModelError
from actgrid.models.frameworks import keras

__all__ = ["copy_model"]


def copy_model(model: Any) -> Any:
    """Return a copy of a Keras model, with weights of its own and the same values.

    Raises
    ------
    ModelError
        If Keras cannot copy the model, such as a subclassed model without `get_config`.
    """
    # New layers draw seeds from Python's generator, whose state must not change.
    state = random.getstate()
    try:
        copy = keras().models.clone_model(model)
        copy.set_weights(model.get_weights())
    except (ValueError, NotImplementedError, TypeError) as error:
        raise ModelError(f"the model {model.name!r} cannot be copied") from error
    finally:
        random.setstate(state)
    return copy
