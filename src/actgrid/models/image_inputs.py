"""Find the channels, data format and size of the image that a model takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from actgrid.errors import (
    ShapeError,
)
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.image_pixels import MODES
from actgrid.models.inputs import get_input_structure, list_input_names
from actgrid.models.model_cache import cache_with_model
from actgrid.models.networks import trace_network
from actgrid.models.tracing import find_input_specs, keep_state

__all__ = ["ImageInput", "find_fixed_sides", "find_image_input"]


class ImageInput(NamedTuple):
    """Record of the image input of a model: channels, data format and size.

    Attributes
    ----------
    channels
        Length of the channel axis.
    channels_first
        Whether a batch is (N, C, H, W).
    size
        (height, width) in pixels; None if the model does not fix both.
    """

    channels: int
    channels_first: bool
    size: tuple[int, int] | None


def find_image_input(model: Any) -> ImageInput:
    """Return the channels, data format and size of the image that a model takes.

    Returns
    -------
    ImageInput
        For no model or an unknown input: 3 channels, channels last, and any size.

    Raises
    ------
    ShapeError
        If the input of the model is not one batch of images.
    """
    specs = None if model is None else find_input_specs(model)
    if specs is None:
        return ImageInput(3, False, None)
    shapes = [tuple(spec.shape) for spec in tensorflow().nest.flatten(specs)]
    shape = shapes[0]
    if len(shapes) > 1:
        names = ", ".join(map(repr, list_input_names(model, specs)))
        raise ShapeError(
            f"the model takes {len(shapes)} inputs ({names}), not one batch of images: image files "
            "cannot be passed for all inputs; expected arrays by the names of the inputs, in a "
            "dict or in a dataset of dicts with preprocess='prepared'"
        )
    if len(shape) != 4:
        raise ShapeError(f"the model takes an input of shape {shape}, not a batch of images")
    channels_first = find_input_data_format(model) == "channels_first"
    channels = shape[1 if channels_first else 3] or 3
    if channels not in MODES:
        raise ShapeError(
            f"the model takes an input of shape {shape}: no image has {channels} channels"
        )
    height, width = find_fixed_sides(model)
    return ImageInput(channels, channels_first, (height, width) if height and width else None)


def find_fixed_sides(model: Any) -> tuple[int | None, int | None]:
    """Return the fixed height and width of a model's image input, or None for each.

    A model without symbolic inputs is traced once on images of the size of its first call and once
    on images of twice this size. The size is fixed if only the first trace succeeds.

    Returns
    -------
    tuple
        (height, width) in pixels. None in place of a side: the model accepts any length.
    """
    (spec,) = tensorflow().nest.flatten(find_input_specs(model))
    channels_first = find_input_data_format(model) == "channels_first"
    height, width = spec.shape[2:4] if channels_first else spec.shape[1:3]
    if get_input_structure(model) is None and not _fixes_size(model, spec, channels_first):
        return None, None
    return height, width


def _fixes_size(model: Any, spec: Any, channels_first: bool) -> bool:
    """Return whether a model accepts images of its declared size only.

    The model is traced on images of its declared size and of twice this size.
    """
    shape = tuple(spec.shape)
    sides = slice(2, 4) if channels_first else slice(1, 3)
    doubled_shape: list[int | None] = list(shape)
    doubled_shape[sides] = [None if side is None else 2 * side for side in shape[sides]]
    return not _can_trace(model, doubled_shape, spec.dtype) and _can_trace(model, shape, spec.dtype)


def _can_trace(model: Any, shape: Sequence[int | None], dtype: Any) -> bool:
    """Return whether a model accepts inputs of a shape. The result is cached with the model."""

    def trace(inputs: Any) -> Any:
        with keep_state():
            return trace_network(model, inputs).outputs

    def can_trace() -> bool:
        try:
            GraphFunction(trace).trace(tensorflow().TensorSpec(shape, dtype))
        except Exception:  # layers may raise any exception
            return False
        return True

    return cache_with_model(model, ("can trace", *shape, dtype), can_trace)
