"""Score functions of tf-keras-vis, which compute scores from a model's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from actgrid.compat.tf_keras_vis.utils import listify
from actgrid.errors import OptionError, ShapeError, TargetError
from actgrid.models.frameworks import tensorflow

__all__ = ["BinaryScore", "ByValue", "CategoricalScore", "InactiveScore", "Score"]


class Score(ABC):
    """Base class of score functions: N scores from the output of a model, (N, ...).

    Parameters
    ----------
    name : str, optional
        Name of the score. None: no name.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    @abstractmethod
    def __call__(self, output: Any) -> Any:
        """Return the scores, (N,), from the model's output."""


class ByValue:
    """Mixin of score functions that are equal if their attributes are equal.

    Equal score functions share compiled functions.
    """

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), str(vars(self))))


class InactiveScore(ByValue, Score):
    """Score function that ignores one of several outputs of a model."""

    def __init__(self) -> None:
        super().__init__("InactiveScore")

    def __call__(self, output: Any) -> Any:
        """Return zeros in the shape of the output, so that gradients exist."""
        return output * 0.0


class BinaryScore(ByValue, Score):
    """Score function of a binary output, (N, 1): the output or its negative.

    Parameters
    ----------
    target_values : bool or iterable of bool
        True for the output and False for its negative, for all images or for each image.

    Raises
    ------
    OptionError
        If no value is given. Also a ValueError.
    """

    def __init__(self, target_values: bool | Iterable[bool] | None) -> None:
        super().__init__("BinaryScore")
        values = listify(target_values, return_empty_list_if_none=False)
        if not values or None in values:
            raise OptionError(f"target_values must be True, False or a list, not {target_values!r}")
        self.target_values = [bool(value) for value in values]

    def __call__(self, output: Any) -> Any:
        """Return the scores, (N,), from the model's output, (N, 1)."""
        tf = tensorflow()
        if output.shape.rank != 2 or output.shape[1] != 1:
            raise ShapeError(f"the output must be (N, 1), not {tuple(output.shape)}")
        values = _broadcast("target_values", self.target_values, output)
        signs = [1.0 if value else -1.0 for value in values]
        return tf.constant(signs, output.dtype) * output[:, 0]


class CategoricalScore(ByValue, Score):
    """Score function that returns the output for a class, or the mean of a channel.

    Parameters
    ----------
    indices : int or iterable of int
        Index of the class or channel, for all images or for each image.

    Raises
    ------
    OptionError
        If no index is given. Also a ValueError.
    """

    def __init__(self, indices: int | Iterable[int] | None) -> None:
        super().__init__("CategoricalScore")
        values = listify(indices, return_empty_list_if_none=False)
        if not values or None in values:
            raise OptionError(f"indices must be a class or a list of them, not {indices!r}")
        self.indices = [int(value) for value in values]

    def __call__(self, output: Any) -> Any:
        """Return the scores, (N,), from the model's output, (N, ..., C)."""
        tf = tensorflow()
        rank, count = output.shape.rank, output.shape[-1]
        if rank < 2:
            raise ShapeError(f"the output must be (N, ..., C), not {tuple(output.shape)}")
        if max(self.indices) >= count:
            raise TargetError(f"there is no class {max(self.indices)}: the model has {count}")
        indices = _broadcast("indices", self.indices, output)
        scores = tf.stack([output[image, ..., index] for image, index in enumerate(indices)])
        return tf.reduce_mean(scores, list(range(1, rank - 1)))


def _broadcast(name: str, values: list[Any], output: Any) -> list[Any]:
    """Return a list with a value for each image of a batch.

    Parameters
    ----------
    name
        Name of the argument, for error messages.
    values
        The values. A single value is repeated.
    output
        Output of the model for the batch.
    """
    count = output.shape[0]
    if count is not None and len(values) > count:
        raise OptionError(
            f"{name} must have at most one value for each of {count} images: got {len(values)}"
        )
    return values * int(count) if len(values) == 1 and count is not None else values
