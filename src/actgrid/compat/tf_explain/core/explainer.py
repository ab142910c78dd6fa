"""Base class and helpers of the methods of tf-explain."""

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
    "check_class_index",
    "get_images",
    "get_inputs",
    "make_batch",
]


class Explainer:
    """Base class of explanation methods, whose method `explain` returns a picture."""

    def save(
        self, grid: npt.NDArray[np.uint8], output_dir: str | Path, output_name: str | Path
    ) -> None:
        """Save a picture that `explain` returned.

        Parameters
        ----------
        grid : ndarray
            (height, width) or (height, width, 3) uint8.
        output_dir : str or Path
            Output folder; created if necessary.
        output_name : str or Path
            File name; its suffix decides the format.

        Raises
        ------
        OutputError
            If the file cannot be written. Also an OSError.
        OptionError
            If the format is unknown. Also a ValueError.
        """
        save_rgb(grid, output_dir, output_name)


def get_inputs(validation_data: Any) -> npt.NDArray[Any]:
    """Return the inputs, an array of any shape, from validation data.

    Parameters
    ----------
    validation_data
        Pair (inputs, labels or None).
    """
    try:
        inputs, _ = validation_data
    except (TypeError, ValueError):
        raise OptionError(
            "validation_data must be a pair (images, labels), where labels may be None"
        ) from None
    try:
        arrays = np.asarray(inputs)
    except ValueError:
        raise ShapeError("images must have one size, and be the only input") from None
    if 0 in arrays.shape:
        raise ShapeError(f"images must not be empty: got shape {arrays.shape}")
    return arrays


def get_images(validation_data: Any) -> npt.NDArray[Any]:
    """Return the images, (N, height, width, C), from validation data.

    Parameters
    ----------
    validation_data
        Pair (images, labels or None).
    """
    images = get_inputs(validation_data)
    if images.ndim != 4:
        raise ShapeError(f"images must be (N, height, width, C), not {images.shape}")
    return images


def make_batch(
    model: Any, images: npt.NDArray[Any], score: Callable[[Any], Any], batch_size: int | None = None
) -> ExplainedBatch:
    """Prepare images for an explanation of a score of a model.

    Parameters
    ----------
    images
        (N, height, width, C).
    score
        Function of the model's output that returns the scores, (N,).
    batch_size
        Number of images per run of the model. None: 32.

    Returns
    -------
    ExplainedBatch
        The images with the score as their target.
    """
    return prepare_request(model, images, score, batch_size=batch_size or 32).batch


@dataclass(frozen=True)
class ClassOutput:
    """Score function that returns the model's output for a class.

    The output is a probability if the model ends in a softmax. Equal instances share compiled
    functions.
    """

    index: int

    def __call__(self, outputs: Any) -> Any:
        """Return the output for the class, (N,), from the model's outputs."""
        return _check_outputs(outputs, self.index)[:, self.index]


@dataclass(frozen=True)
class ClassLoss:
    """Score function that returns the cross-entropy of the model's output for a class."""

    index: int

    def __call__(self, outputs: Any) -> Any:
        """Return the cross-entropy losses, (N,), from the model's outputs."""
        tf = tensorflow()
        one_hot = tf.one_hot(self.index, _check_outputs(outputs, self.index).shape[-1])
        return keras().losses.categorical_crossentropy(
            tf.broadcast_to(one_hot, tf.shape(outputs)), outputs
        )


def check_class_index(class_index: Any) -> int:
    """Convert the index of a class to an int.

    Returns
    -------
    int
        The index.

    Raises
    ------
    TargetError
        If the value is not an integer.
    """
    try:
        return operator.index(class_index)
    except TypeError:
        raise TargetError(f"class_index must be an integer, not {class_index!r}") from None


def _check_outputs(outputs: Any, index: int) -> Any:
    if not tensorflow().is_tensor(outputs) or outputs.shape.rank != 2:
        raise TargetError("the model must have one output, with a value for each class")
    count = outputs.shape[1]
    if count is not None and not -count <= index < count:
        raise TargetError(f"there is no class {index}: the model has {count}, 0 to {count - 1}")
    return outputs
