"""The image input of a model: channels, data format, size."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

from actgrid.errors import (
    ShapeError,
)
from actgrid.models.data_formats import input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.functions import GraphFunction
from actgrid.models.image_pixels import MODES
from actgrid.models.inputs import input_structure, names_of
from actgrid.models.tracing import known_specs, trace_model, unchanged

__all__ = ["ImageInput", "fixed_sides", "image_input"]


class ImageInput(NamedTuple):
    """What a model takes as its image.

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


def image_input(model: Any) -> ImageInput:
    """Return what a model takes as its image.

    Raises
    ------
    ShapeError
        If it takes something else than one batch of images.
    """
    specs = None if model is None else known_specs(model)
    if specs is None:
        return ImageInput(3, False, None)
    shapes = [tuple(spec.shape) for spec in tensorflow().nest.flatten(specs)]
    shape = shapes[0]
    if len(shapes) > 1:
        names = ", ".join(map(repr, names_of(model, specs)))
        raise ShapeError(
            f"the model takes {len(shapes)} inputs ({names}), not one batch of images: image files "
            "cannot be all of them; give arrays, by the names of the inputs, in a dict or in a "
            "dataset of dicts with preprocess='prepared'"
        )
    if len(shape) != 4:
        raise ShapeError(f"the model takes {shape}, not a batch of images")
    channels_first = input_data_format(model) == "channels_first"
    channels = shape[1 if channels_first else 3] or 3
    if channels not in MODES:
        raise ShapeError(f"the model takes {shape}: no image has {channels} channels")
    height, width = fixed_sides(model)
    return ImageInput(channels, channels_first, (height, width) if height and width else None)


def fixed_sides(model: Any) -> tuple[int | None, int | None]:
    """Return the height and width of images that a model fixes, None where it fixes none.

    A model without symbolic inputs is traced once on images of the size that it was called with,
    and of twice that size: it fixes the size if it takes the former alone.
    """
    (spec,) = tensorflow().nest.flatten(known_specs(model))
    first = input_data_format(model) == "channels_first"
    height, width = spec.shape[2:4] if first else spec.shape[1:3]
    if input_structure(model) is None and not _fixes_size(model, spec, first):
        return None, None
    return height, width


# By model, the shape that was tried and whether the model fixes its size.
_TRIED: weakref.WeakKeyDictionary[Any, tuple[Any, bool]] = weakref.WeakKeyDictionary()


def _fixes_size(model: Any, spec: Any, channels_first: bool) -> bool:
    """Return whether a model can be traced on images of this size, and of no other."""
    shape = tuple(spec.shape)
    if (known := _TRIED.get(model)) is not None and known[0] == shape:
        return known[1]
    sides = slice(2, 4) if channels_first else slice(1, 3)
    twice: list[int | None] = list(shape)
    twice[sides] = [None if side is None else 2 * side for side in shape[sides]]
    fixes = not _can_trace(model, twice, spec.dtype) and _can_trace(model, shape, spec.dtype)
    _TRIED[model] = shape, fixes
    return fixes


def _can_trace(model: Any, shape: Sequence[int | None], dtype: Any) -> bool:
    def trace(inputs: Any) -> Any:
        with unchanged():
            return trace_model(model, inputs).outputs

    try:
        GraphFunction(trace).trace(tensorflow().TensorSpec(shape, dtype))
    except Exception:  # of the layers, which may raise anything
        return False
    return True
