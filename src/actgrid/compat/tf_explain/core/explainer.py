"""What tf-explain's methods share."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.requests import prepare_request
from actgrid.compat.tf_explain.utils.saver import save_rgb
from actgrid.errors import OptionError, ShapeError, TargetError
from actgrid.models.frameworks import keras, tensorflow

__all__ = [
    "ClassLoss",
    "ClassOutput",
    "Explainer",
    "batch_of",
    "class_number",
    "images_of",
    "inputs_of",
]


class Explainer:
    """A method that makes a picture of an explanation."""

    def save(
        self, grid: npt.NDArray[np.uint8], output_dir: str | Path, output_name: str | Path
    ) -> None:
        """Save what `explain` returned; the folder is made if need be.

        Raises
        ------
        OutputError
            If it cannot be written. Also an OSError.
        OptionError
            If the name's suffix is of no format that can be written. Also a ValueError.
        """
        save_rgb(grid, output_dir, output_name)


def inputs_of(validation_data: Any) -> npt.NDArray[Any]:
    """Return the inputs of (inputs, labels or None), of any shape."""
    try:
        inputs, _ = validation_data
    except (TypeError, ValueError):
        raise OptionError(
            "validation_data must be a pair, (images, labels), where labels may be None"
        ) from None
    try:
        arrays = np.asarray(inputs)
    except ValueError:
        raise ShapeError("images must be of one size, and the model's only input") from None
    if 0 in arrays.shape:
        raise ShapeError(f"images of shape {arrays.shape} are empty: nothing to explain")
    return arrays


def images_of(validation_data: Any) -> npt.NDArray[Any]:
    """Return the images of (images, labels or None)."""
    images = inputs_of(validation_data)
    if images.ndim != 4:
        raise ShapeError(f"images must be (N, height, width, C), not {images.shape}")
    return images


def batch_of(
    model: Any, images: npt.NDArray[Any], score: Callable[[Any], Any], batch_size: int | None = None
) -> ExplainedBatch:
    """Return what is asked of a model: a score, of its output, for each image."""
    return prepare_request(model, images, score, batch_size=batch_size or 32).batch


@dataclass(frozen=True)
class ClassOutput:
    """The output for one class, after the softmax if there is one. Equal ones share a function."""

    index: int

    def __call__(self, outputs: Any) -> Any:
        """Return (N,) scores."""
        return _checked(outputs, self.index)[:, self.index]


@dataclass(frozen=True)
class ClassLoss:
    """The cross-entropy of the output, if the class were the true one."""

    index: int

    def __call__(self, outputs: Any) -> Any:
        """Return (N,) losses."""
        tf = tensorflow()
        truth = tf.one_hot(self.index, _checked(outputs, self.index).shape[-1])
        return keras().losses.categorical_crossentropy(
            tf.broadcast_to(truth, tf.shape(outputs)), outputs
        )


def class_number(class_index: Any) -> int:
    """Return the index of a class.

    Raises
    ------
    TargetError
        If it is none.
    """
    try:
        return operator.index(class_index)
    except TypeError:
        raise TargetError(f"class_index must be a class's number, not {class_index!r}") from None


def _checked(outputs: Any, index: int) -> Any:
    if not tensorflow().is_tensor(outputs) or outputs.shape.rank != 2:
        raise TargetError("the model must have one output, with a value for each class")
    count = outputs.shape[1]
    if count is not None and not -count <= index < count:
        raise TargetError(f"there is no class {index}: the model has {count}, 0 to {count - 1}")
    return outputs
