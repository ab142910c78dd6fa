"""Scores: what is made of a model's output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from actgrid.compat.tf_keras_vis.utils import listify
from actgrid.errors import OptionError, ShapeError, TargetError
from actgrid.models.frameworks import tensorflow

__all__ = ["BinaryScore", "ByValue", "CategoricalScore", "InactiveScore", "Score"]


class Score(ABC):
    """A function of a model's output, (N, ...), that gives N scores.

    Parameters
    ----------
    name
        Of the score.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    @abstractmethod
    def __call__(self, output: Any) -> Any:
        """Return the scores."""


class ByValue:
    """Equals what is of its class and has the same values: they share compiled functions."""

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), str(vars(self))))


class InactiveScore(ByValue, Score):
    """Leaves an output out, of a model that has several."""

    def __init__(self) -> None:
        super().__init__("InactiveScore")

    def __call__(self, output: Any) -> Any:
        """Return zeros that depend on the output."""
        return output * 0.0


class BinaryScore(ByValue, Score):
    """The output of a model with one value for each image, or its negative.

    Parameters
    ----------
    target_values
        True or False, for all images or in a list for each of them.

    Raises
    ------
    OptionError
        If there is none. Also a ValueError.
    """

    def __init__(self, target_values: bool | Iterable[bool] | None) -> None:
        super().__init__("BinaryScore")
        values = listify(target_values, return_empty_list_if_none=False)
        if not values or None in values:
            raise OptionError(f"target_values must be True, False or a list, not {target_values!r}")
        self.target_values = [bool(value) for value in values]

    def __call__(self, output: Any) -> Any:
        """Return (N,) scores."""
        tf = tensorflow()
        if output.shape.rank != 2 or output.shape[1] != 1:
            raise ShapeError(f"the output must be (N, 1), not {tuple(output.shape)}")
        values = _of_all("target_values", self.target_values, output)
        signs = [1.0 if value else -1.0 for value in values]
        return tf.constant(signs, output.dtype) * output[:, 0]


class CategoricalScore(ByValue, Score):
    """The output for a class, or the mean of a channel.

    Parameters
    ----------
    indices
        The class or channel, for all images or in a list for each of them.

    Raises
    ------
    OptionError
        If there is none. Also a ValueError.
    """

    def __init__(self, indices: int | Iterable[int] | None) -> None:
        super().__init__("CategoricalScore")
        values = listify(indices, return_empty_list_if_none=False)
        if not values or None in values:
            raise OptionError(f"indices must be a class or a list of them, not {indices!r}")
        self.indices = [int(value) for value in values]

    def __call__(self, output: Any) -> Any:
        """Return (N,) scores."""
        tf = tensorflow()
        rank, count = output.shape.rank, output.shape[-1]
        if rank < 2:
            raise ShapeError(f"the output must be (N, ..., C), not {tuple(output.shape)}")
        if max(self.indices) >= count:
            raise TargetError(f"there is no class {max(self.indices)}: the model has {count}")
        indices = _of_all("indices", self.indices, output)
        scores = tf.stack([output[image, ..., index] for image, index in enumerate(indices)])
        return tf.reduce_mean(scores, list(range(1, rank - 1)))


def _of_all(name: str, values: list[Any], output: Any) -> list[Any]:
    """Return what is given for each image of a batch."""
    count = output.shape[0]
    if count is not None and len(values) > count:
        raise OptionError(f"{name} are {len(values)}, but there are {count} images")
    return values * int(count) if len(values) == 1 and count is not None else values
