"""Targets that average the score of a class over positions of the output."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.models.frameworks import tensorflow
from actgrid.targets.class_scores import check_class, get_single_output, read_class_scores
from actgrid.targets.frozen_arrays import FrozenArray, freeze_array

__all__ = ["mean_over_time", "region"]

# Names of the limits of a box, by the number of axes of positions.
_LIMITS = {
    1: "(start, stop)",
    2: "(top, left, bottom, right)",
    3: "(front, top, left, back, bottom, right)",
}


def region(
    class_: int | None = None,
    mask_or_box: npt.ArrayLike | Sequence[int] | None = None,
    *,
    data_format: Literal["channels_last", "channels_first"] = "channels_last",
    use_logits: bool = True,
) -> Callable[[Any], Any]:
    """Return a target: the mean score of a class over a region of the output.

    For segmentation and other outputs with a score for each class at each position (Vinogradova
    2020, Seg-Grad-CAM). The score is ``sum(mask * scores[..., class_]) / sum(mask)``, for each
    sample.

    Parameters
    ----------
    class_ : int, optional
        Index of the class. None: the class with the highest mean score over the region, in each run
        of the model; for an output of one channel, its value.
    mask_or_box : array_like or tuple of int, optional
        The region; None: all positions.

        A mask is an array of booleans, or of weights of 0 or more, with the axes of the positions:
        (H, W) for images, (T,) for sequences, (D, H, W) for volumes. A mask of another size than
        the output, such as a mask in the size of the image, is resized to the output: by averages
        over areas along an axis that becomes shorter, linearly along an axis that becomes longer.

        A box is a tuple or list of integers, in pixels of the model's output and not of its input:
        (top, left, bottom, right), without the row `bottom` and the column `right`, as in
        ``output[:, top:bottom, left:right]``. For sequences, (start, stop); for volumes, (front,
        top, left, back, bottom, right).
    data_format : {"channels_last", "channels_first"}, optional
        Whether the classes are the last axis of the output or its second.
    use_logits : bool, optional
        Whether the score of a model that ends in a softmax or sigmoid is the logit, see
        `get_logits`. False: the probability.

    Returns
    -------
    callable
        Target for `actgrid.explain`: a function from the output, (N, H, W, K), (N, T, K) or
        (N, D, H, W, K), to scores (N,). Equal arguments return equal targets.

    Raises
    ------
    OptionError
        If an option is invalid, or the region is empty. Also a ValueError.
    DtypeError
        If the mask is not an array of real numbers or booleans. Also a TypeError.

    See Also
    --------
    mean_over_time : Mean score of a class over all time steps.
    get_logits : Find the logits in a target function of your own.

    Notes
    -----
    `actgrid.explain` raises a ShapeError if the output does not have the axes of the region or the
    box exceeds the output, and a TargetError if the output has no such class.

    An output of one channel that ends in a sigmoid has the classes 0 and 1, with the logits -l and
    l, or the probabilities 1 - p and p. Any other output of one channel has the class 0.

    For a model with several outputs, name the output: ``target={"mask": region(3)}``.

    References
    ----------
    Vinogradova et al., Towards Interpretable Semantic Segmentation via Gradient-weighted Class
    Activation Mapping, 2020, https://arxiv.org/abs/2002.11434.

    Examples
    --------
    >>> import keras
    >>> segmenter = keras.Sequential([
    ...     keras.Input((16, 16, 3)),
    ...     keras.layers.Conv2D(4, 3, padding="same", activation="softmax"),
    ... ])
    >>> image = np.random.default_rng(0).random((1, 16, 16, 3))
    >>> target = actgrid.targets.region(2, (4, 4, 8, 12))
    >>> heatmap = actgrid.explain(segmenter, image, "saliency", target)
    >>> rows, columns = heatmap.values[0].nonzero()
    >>> rows.min(), rows.max(), columns.min(), columns.max()  # the kernel has 3 x 3 pixels
    (np.int64(3), np.int64(8), np.int64(3), np.int64(12))
    """
    if data_format not in ("channels_last", "channels_first"):
        raise OptionError(
            f"data_format must be 'channels_last' or 'channels_first', not {data_format!r}"
        )
    box, mask = None, None
    if mask_or_box is not None:
        box = _read_box(mask_or_box)
        mask = None if box is not None else _freeze_mask(mask_or_box)
    is_channels_first = data_format == "channels_first"
    return _RegionScore(check_class(class_), box, mask, is_channels_first, bool(use_logits))


def mean_over_time(class_: int | None = None, *, use_logits: bool = True) -> Callable[[Any], Any]:
    """Return a target: the mean score of a class over the time steps of the output.

    For models that predict a value or a class at each time step, such as recurrent networks that
    return sequences.

    Parameters
    ----------
    class_ : int, optional
        Index of the class. None: the class with the highest mean score, in each run of the model;
        for an output of one channel or without channels, its value.
    use_logits : bool, optional
        Whether the score of a model that ends in a softmax or sigmoid is the logit, see
        `get_logits`. False: the probability.

    Returns
    -------
    callable
        Target for `actgrid.explain`: a function from the output, (N, T, K) or (N, T), to scores
        (N,). Equal arguments return equal targets.

    Raises
    ------
    OptionError
        If `class_` is not an integer of 0 or more. Also a ValueError.

    See Also
    --------
    region : Mean score over some of the time steps, ``region(class_, (start, stop))``.

    Notes
    -----
    All time steps have the same weight, also padded steps. To leave out padded steps, pass a mask
    to `region`.

    Examples
    --------
    >>> import keras
    >>> model = keras.Sequential([
    ...     keras.Input((12, 2)),
    ...     keras.layers.LSTM(4, return_sequences=True),
    ...     keras.layers.Dense(3),
    ... ])
    >>> sequence = np.random.default_rng(0).random((1, 12, 2))
    >>> target = actgrid.targets.mean_over_time(1)
    >>> heatmap = actgrid.explain(model, sequence, "saliency", target)
    >>> bool(np.allclose(heatmap.score, model.predict(sequence, verbose=0)[..., 1].mean(1)))
    True
    """
    return _TimeMean(check_class(class_), bool(use_logits))


@dataclass(frozen=True)
class _RegionScore:
    """Target function of `region`.

    Attributes
    ----------
    class_
        Index of the class; None: the class with the highest mean score.
    box
        First indices, then last indices plus 1, of each axis of positions; None: no box.
    mask
        Weights of the positions; None: no mask.
    is_channels_first
        Whether the output is (N, K, ...).
    use_logits
        Whether logits are read in place of probabilities.
    """

    class_: int | None
    box: tuple[int, ...] | None
    mask: FrozenArray | None
    is_channels_first: bool
    use_logits: bool

    @property
    def __name__(self) -> str:
        """Label of the map."""
        return f"region({'' if self.class_ is None else self.class_})"

    def __call__(self, outputs: Any) -> Any:
        """Return the mean scores, (N,), of an output (N, ..., K)."""
        tf = tensorflow()
        output = get_single_output(outputs, "region")
        rank = output.shape.rank
        if rank not in (3, 4, 5):
            raise ShapeError(
                "region needs an output (N, T, K), (N, H, W, K) or (N, D, H, W, K): got "
                f"{tuple(output.shape)}"
            )
        axes = tuple(range(1, rank - 1))
        sides = output.shape[2:] if self.is_channels_first else output.shape[1:-1]
        scores = self._read_scores(output)
        if self.box is not None:
            means = tf.reduce_mean(scores[_make_slices(self.box, sides)], axes)
        elif self.mask is not None:
            weights = _resize_mask(self.mask.to_numpy(), sides)
            weights = (weights / weights.sum()).astype(np.float32)
            means = tf.reduce_sum(scores * weights[..., None], axes)
        else:
            means = tf.reduce_mean(scores, axes)
        return tf.reduce_max(means, 1)

    def _read_scores(self, output: Any) -> Any:
        """Return the scores of the class, (N, ..., 1), or of all classes, (N, ..., K)."""
        if not self.is_channels_first:
            return read_class_scores(output, self.class_, self.use_logits)
        rank = output.shape.rank
        # The transpose follows the activation, which `read_class_scores` looks for.
        moved = tensorflow().transpose(output, (0, *range(2, rank), 1))
        return read_class_scores(moved, self.class_, self.use_logits)


@dataclass(frozen=True)
class _TimeMean:
    """Target function of `mean_over_time`.

    Attributes
    ----------
    class_
        Index of the class; None: the class with the highest mean score.
    use_logits
        Whether logits are read in place of probabilities.
    """

    class_: int | None
    use_logits: bool

    @property
    def __name__(self) -> str:
        """Label of the map."""
        return f"mean_over_time({'' if self.class_ is None else self.class_})"

    def __call__(self, outputs: Any) -> Any:
        """Return the mean scores, (N,), of an output (N, T, K) or (N, T)."""
        tf = tensorflow()
        output = get_single_output(outputs, "mean_over_time")
        if output.shape.rank == 2:
            output = tf.expand_dims(output, -1)
        if output.shape.rank != 3:
            raise ShapeError(
                "mean_over_time needs an output (N, T, K) or (N, T): got "
                f"{tuple(output.shape)}; for images, use region"
            )
        scores = read_class_scores(output, self.class_, self.use_logits)
        return tf.reduce_max(tf.reduce_mean(scores, 1), 1)


def _read_box(region: Any) -> tuple[int, ...] | None:
    """Return a box as a tuple of integers. None: the region is a mask.

    Raises
    ------
    OptionError
        If the region is a box, but invalid or empty.
    """
    if not isinstance(region, (tuple, list)) or any(
        isinstance(limit, (bool, np.bool_)) for limit in region
    ):
        return None
    try:
        box = tuple(map(operator.index, region))
    except TypeError:
        return None
    expected = f"expected {', '.join(_LIMITS.values())}, in pixels of the output"
    axes = len(box) // 2
    if len(box) % 2 or axes not in _LIMITS:
        raise OptionError(f"box must have 2, 4 or 6 limits: got {region!r}; {expected}")
    limits = list(zip(box[:axes], box[axes:], strict=True))
    if any(start < 0 for start, _ in limits):
        raise OptionError(f"box must not have negative limits: got {region!r}; {expected}")
    if any(start >= stop for start, stop in limits):
        raise OptionError(f"box is empty: got {region!r}; expected {_LIMITS[axes]}")
    return box


def _freeze_mask(mask: Any) -> FrozenArray:
    """Check a mask and convert it to a `FrozenArray`."""
    frozen = freeze_array("mask", mask)
    weights = frozen.to_numpy()
    if weights.ndim not in _LIMITS:
        raise OptionError(
            f"mask must be (T,), (H, W) or (D, H, W): got shape {weights.shape}; for a mask of "
            "each sample, pass a list of targets"
        )
    if (weights < 0).any():
        raise OptionError(f"mask must have weights of 0 or more: got {weights.min()}")
    if not weights.any():
        raise OptionError(
            f"mask is empty: got no weight above 0 in an array of shape {weights.shape}"
        )
    return frozen


def _make_slices(box: Sequence[int], sides: Sequence[int | None]) -> tuple[slice, ...]:
    """Return the slices of a box in an output (N, ..., K).

    Parameters
    ----------
    box
        First indices, then last indices plus 1, of each axis of positions.
    sides
        Lengths of the axes of positions; None: the length is not known.

    Raises
    ------
    ShapeError
        If the box has other axes than the output, or exceeds it.
    """
    axes = len(sides)
    if len(box) != 2 * axes:
        raise ShapeError(
            f"box must be {_LIMITS[axes]} for this output: got {tuple(box)}; if this is a mask, "
            "pass a NumPy array"
        )
    stops = box[axes:]
    if any(side is not None and stop > side for stop, side in zip(stops, sides, strict=True)):
        raise ShapeError(
            f"box {tuple(box)} exceeds the output of size {tuple(sides)}: a box is in pixels of "
            "the model's output, not of its input"
        )
    return (slice(None), *map(slice, box[:axes], stops))


def _resize_mask(mask: npt.NDArray[Any], sides: Sequence[int | None]) -> npt.NDArray[Any]:
    """Resize a mask to the sides of an output; an unknown side (None) is not resized.

    Raises
    ------
    ShapeError
        If the mask has other axes than the output.
    """
    if mask.ndim != len(sides):
        names = {1: "(T,)", 2: "(H, W)", 3: "(D, H, W)"}[len(sides)]
        raise ShapeError(
            f"mask must be {names} for this output: got shape {mask.shape}; a box is a tuple of "
            f"integers, {_LIMITS[len(sides)]}"
        )
    resized = mask.astype(np.float64)
    for axis, side in enumerate(sides):
        if side is not None and side != mask.shape[axis]:
            matrix = _make_resizing_matrix(mask.shape[axis], side)
            resized = np.moveaxis(np.tensordot(matrix, resized, (1, axis)), 0, axis)
    return resized


def _make_resizing_matrix(old: int, new: int) -> npt.NDArray[np.float64]:
    """Return the matrix (new, old) that resizes an axis.

    Shorter axes are averages over areas. Longer axes are interpolated linearly between the centers
    of the pixels, and the outermost values extend to the edges, as in `tf.image.resize`.
    """
    positions = np.arange(old)
    scale = old / new
    if new < old:
        edges = np.arange(new + 1)[:, None] * scale
        overlap = np.minimum(edges[1:], positions + 1) - np.maximum(edges[:-1], positions)
        areas: npt.NDArray[np.float64] = np.maximum(overlap, 0) / scale
        return areas
    centers = np.clip((np.arange(new) + 0.5) * scale - 0.5, 0, old - 1)
    weights: npt.NDArray[np.float64] = np.maximum(1 - np.abs(centers[:, None] - positions), 0)
    return weights
