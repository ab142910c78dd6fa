"""Metrics of the agreement of attribution maps with masks or boxes of objects."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError
from actgrid.evaluation.metric import EvaluatedMaps, MetricResult, metric

__all__ = ["energy", "pointing_game", "read_regions"]


@metric(
    "pointing_game",
    "Zhang 2016, https://arxiv.org/abs/1608.00507",
    is_higher_better=True,
    needs=["region"],
)
def pointing_game(maps: EvaluatedMaps, *, tolerance: int = 0) -> MetricResult:
    """1 if the largest attribution lies in the object, else 0."""
    assert maps.regions is not None
    hits = [
        _find_distance(region, np.unravel_index(int(values.argmax()), values.shape)) <= tolerance
        for values, region in zip(maps.values, maps.regions, strict=True)
    ]
    return MetricResult(np.array(hits, np.float64))


@metric(
    "energy",
    "Wang 2019, https://arxiv.org/abs/1910.01279",
    is_higher_better=True,
    needs=["region"],
)
def energy(maps: EvaluatedMaps) -> MetricResult:
    """Fraction of the positive attributions that lies in the object."""
    assert maps.regions is not None
    axes = tuple(range(1, maps.values.ndim))
    positive = np.maximum(maps.values, 0).astype(np.float64)
    total = positive.sum(axes)
    inside = (positive * maps.regions).sum(axes)
    return MetricResult(np.divide(inside, total, np.full_like(total, np.nan), where=total > 0))


def _find_distance(region: npt.NDArray[np.bool_], position: Any) -> float:
    """Return the distance of a position from the nearest position of a region."""
    inside = np.argwhere(region)
    return float(np.sqrt(((inside - np.array(position)) ** 2).sum(1).min()))


def read_regions(
    masks: Any, boxes: Any, count: int, sides: tuple[int, ...]
) -> npt.NDArray[np.bool_] | None:
    """Convert the options `masks` and `boxes` to the regions of the explained objects.

    Parameters
    ----------
    masks
        (count, ...) or (...) array of any size: nonzero in the object; or None.
    boxes
        For each sample a box (top, left, bottom, right), or a list of boxes, in positions of the
        explained tensor; one box for a single sample; or None.
    sides
        Height and width, or the lengths of the other axes, of the explained tensor.

    Returns
    -------
    ndarray or None
        (count, *sides) bool; None if neither option is given.

    Raises
    ------
    OptionError
        If both options are given, or a region is empty.
    ShapeError
        If an option has the wrong shape.
    """
    if masks is None and boxes is None:
        return None
    if masks is not None and boxes is not None:
        raise OptionError("give masks or boxes, not both")
    regions = (
        _read_masks(masks, count, sides) if boxes is None else _read_boxes(boxes, count, sides)
    )
    empty = np.flatnonzero(~regions.reshape(count, -1).any(1))
    if empty.size:
        name = "masks" if boxes is None else "boxes"
        raise OptionError(
            f"{name} must mark at least one position of each sample: none in {empty[0]}"
        )
    return regions


def _read_masks(masks: Any, count: int, sides: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    array = np.asarray(masks)
    if array.ndim == len(sides):
        array = array[None]
    if (
        array.ndim != len(sides) + 1
        or len(array) not in (1, count)
        or array.dtype.kind not in "biuf"
    ):
        raise ShapeError(
            f"masks must be numbers of shape {(count, *sides)}, or of another size: got "
            f"{array.dtype} of shape {np.shape(masks)}"
        )
    for axis, side in enumerate(sides, 1):  # nearest neighbour
        length = array.shape[axis]
        array = array.take((2 * np.arange(side) + 1) * length // (2 * side), axis)
    return np.broadcast_to(array != 0, (count, *sides))


def _read_boxes(boxes: Any, count: int, sides: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    if len(sides) != 2:
        raise ShapeError(f"boxes are for images: got an input with the sides {sides}; use masks")
    if count == 1 and _is_box(boxes):
        boxes = [boxes]
    if not hasattr(boxes, "__len__") or len(boxes) != count:
        raise ShapeError(f"boxes must have an entry for each of {count} samples: got {boxes!r}")
    regions = np.zeros((count, *sides), bool)
    for region, entry in zip(regions, boxes, strict=True):
        for box in [entry] if _is_box(entry) else entry:
            if not _is_box(box):
                raise ShapeError(f"a box must be (top, left, bottom, right): got {box!r}")
            top, left, bottom, right = (max(0, round(float(edge))) for edge in box)
            region[top:bottom, left:right] = True
    return regions


def _is_box(value: Any) -> bool:
    array = np.asarray(value, object)
    return array.shape == (4,) and all(np.isscalar(edge) or np.ndim(edge) == 0 for edge in array)
