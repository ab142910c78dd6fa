"""tf-keras-vis's helpers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.models.frameworks import keras, tensorflow

__all__ = ["find_layer", "listify", "normalize", "num_of_gpus", "standardize"]


def num_of_gpus() -> tuple[int, int]:
    """Return how many GPUs TensorFlow sees: physical and logical ones."""
    config = tensorflow().config
    physical = config.list_physical_devices("GPU")
    return len(physical), len(config.list_logical_devices("GPU")) if physical else 0


def listify(
    value: Any, return_empty_list_if_none: bool = True, convert_tuple_to_list: bool = True
) -> Any:
    """Return a value in a list, unless it is one.

    Parameters
    ----------
    return_empty_list_if_none
        Whether None becomes ``[]`` and not ``[None]``.
    convert_tuple_to_list
        Whether a tuple becomes a list of its items and not of itself.
    """
    if isinstance(value, list):
        return value
    if value is None and return_empty_list_if_none:
        return []
    if isinstance(value, tuple) and convert_tuple_to_list:
        return list(value)
    return [value]


def standardize(array: npt.ArrayLike, value_range: Any = (1.0, 0.0)) -> npt.NDArray[Any]:
    """Return each image of an array, (N, ...), from 0, its smallest value, to 1.

    `value_range` is without effect, as in tf-keras-vis.
    """
    values = np.asarray(array)
    axes = tuple(range(1, values.ndim))
    low, high = values.min(axes, keepdims=True), values.max(axes, keepdims=True)
    shares: npt.NDArray[Any] = (values - low) / (high - low + keras().config.epsilon())
    return shares


def normalize(
    array: npt.ArrayLike, value_range: tuple[float, float] | None = (1.0, 0.0)
) -> npt.NDArray[Any]:
    """Return each image of an array, (N, ...), in a range: (high, low), or 0 to 1."""
    high, low = (1.0, 0.0) if value_range is None else value_range
    return (high - low) * standardize(array) + low


def find_layer(
    model: Any, condition: Callable[[Any], bool], offset: Any = None, reverse: bool = True
) -> Any:
    """Return the last layer of a condition, also in nested models; None if there is none.

    Parameters
    ----------
    offset
        A layer: those after it are passed over.
    reverse
        Without effect, as in tf-keras-vis.
    """
    begun = offset is None
    for layer in reversed(model.layers):
        begun = begun or layer is offset
        if begun and condition(layer):
            return layer
        if isinstance(layer, keras().Model):
            found = find_layer(layer, condition, None if begun else offset)
            if found is not None:
                return found
    return None
