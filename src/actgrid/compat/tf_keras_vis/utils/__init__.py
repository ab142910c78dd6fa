"""Helper functions of tf-keras-vis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.models.frameworks import keras, tensorflow

__all__ = ["find_layer", "listify", "normalize", "num_of_gpus", "standardize"]


def num_of_gpus() -> tuple[int, int]:
    """Return the numbers of physical and logical GPUs of TensorFlow.

    Returns
    -------
    tuple of int
        Number of physical GPUs, number of logical GPUs.

    Examples
    --------
    >>> from actgrid.compat.tf_keras_vis.utils import num_of_gpus
    >>> len(num_of_gpus())
    2
    """
    config = tensorflow().config
    physical = config.list_physical_devices("GPU")
    return len(physical), len(config.list_logical_devices("GPU")) if physical else 0


def listify(
    value: Any, return_empty_list_if_none: bool = True, convert_tuple_to_list: bool = True
) -> Any:
    """Return a value as a list; lists are unchanged.

    Parameters
    ----------
    value : object
        Any value.
    return_empty_list_if_none : bool, optional
        Whether None becomes ``[]`` instead of ``[None]``.
    convert_tuple_to_list : bool, optional
        Whether a tuple becomes a list of its items instead of a list with the tuple.

    Returns
    -------
    list
        `value`, or a list of its items, or a list with `value`.

    Examples
    --------
    >>> from actgrid.compat.tf_keras_vis.utils import listify
    >>> listify(1), listify((1, 2)), listify(None)
    ([1], [1, 2], [])
    """
    if isinstance(value, list):
        return value
    if value is None and return_empty_list_if_none:
        return []
    if isinstance(value, tuple) and convert_tuple_to_list:
        return list(value)
    return [value]


def standardize(array: npt.ArrayLike, value_range: Any = (1.0, 0.0)) -> npt.NDArray[Any]:
    """Scale each image of an array to the range 0 to 1.

    Parameters
    ----------
    array : array_like
        (N, ...) images.
    value_range : object, optional
        Ignored, as in tf-keras-vis.

    Returns
    -------
    ndarray
        Float array of the same shape. A constant image becomes 0.

    Examples
    --------
    >>> from actgrid.compat.tf_keras_vis.utils import standardize
    >>> standardize([[1.0, 2.0, 3.0]]).round(3)
    array([[0. , 0.5, 1. ]])
    """
    values = np.asarray(array)
    axes = tuple(range(1, values.ndim))
    low, high = values.min(axes, keepdims=True), values.max(axes, keepdims=True)
    scaled: npt.NDArray[Any] = (values - low) / (high - low + keras().config.epsilon())
    return scaled


def normalize(
    array: npt.ArrayLike, value_range: tuple[float, float] | None = (1.0, 0.0)
) -> npt.NDArray[Any]:
    """Scale each image of an array to a range.

    Parameters
    ----------
    array : array_like
        (N, ...) images.
    value_range : tuple of float, optional
        (high, low) of the range. None: 0 to 1.

    Returns
    -------
    ndarray
        Float array of the same shape.

    Examples
    --------
    >>> from actgrid.compat.tf_keras_vis.utils import normalize
    >>> normalize([[1.0, 2.0, 3.0]], (10.0, 0.0)).round(3)
    array([[ 0.,  5., 10.]])
    """
    high, low = (1.0, 0.0) if value_range is None else value_range
    return (high - low) * standardize(array) + low


def find_layer(
    model: Any, condition: Callable[[Any], bool], offset: Any = None, reverse: bool = True
) -> Any:
    """Return the last layer that meets a condition, also inside of nested models.

    Parameters
    ----------
    model : keras.Model
        The model.
    condition : callable
        Function of a layer that returns a bool.
    offset : keras.Layer, optional
        The layer at which the search starts, towards the input. None: the last layer.
    reverse : bool, optional
        Ignored, as in tf-keras-vis.

    Returns
    -------
    keras.Layer or None
        The layer; None if no layer meets the condition.

    Examples
    --------
    >>> import keras
    >>> from actgrid.compat.tf_keras_vis.utils import find_layer
    >>> model = keras.Sequential([keras.layers.Dense(2, name="a"), keras.layers.ReLU()])
    >>> find_layer(model, lambda layer: isinstance(layer, keras.layers.Dense)).name
    'a'
    """
    has_started = offset is None
    for layer in reversed(model.layers):
        has_started = has_started or layer is offset
        if has_started and condition(layer):
            return layer
        if isinstance(layer, keras().Model):
            inner_layer = find_layer(layer, condition, None if has_started else offset)
            if inner_layer is not None:
                return inner_layer
    return None
