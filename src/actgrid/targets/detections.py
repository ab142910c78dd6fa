"""Targets for detectors: the class score of a predicted box."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.errors import OptionError, ShapeError, TargetError, suggest
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import flatten_with_paths
from actgrid.option_checks import check_integer, check_number
from actgrid.targets.class_scores import check_class, read_class_scores
from actgrid.targets.frozen_arrays import FrozenArray, freeze_array

__all__ = ["detection"]

# The coordinates of each format, as in KerasCV and KerasHub.
_FORMATS = {
    "xyxy": "(left, top, right, bottom)",
    "yxyx": "(top, left, bottom, right)",
    "xywh": "(left, top, width, height)",
    "center_xywh": "(center x, center y, width, height)",
}
# What selects an output: its key in a dict or its position in a list.
_OutputKey = str | int


class _OutputNames(NamedTuple):
    """Record of the keys of a known detector's outputs.

    Attributes
    ----------
    boxes, scores
        Keys of the boxes and of the class scores.
    has_offsets
        Whether the boxes are offsets from anchors.
    """

    boxes: str
    scores: str
    has_offsets: bool = False


_KNOWN_OUTPUTS = (
    _OutputNames("boxes", "scores"),
    _OutputNames("boxes", "classes"),  # YOLOV8Detector of KerasCV
    _OutputNames("bbox_regression", "cls_logits", has_offsets=True),  # RetinaNet of KerasHub
    _OutputNames("box", "classification", has_offsets=True),  # RetinaNet of KerasCV
)


def detection(
    box_index: int | Sequence[float] | None = None,
    class_: int | None = None,
    *,
    box: Sequence[float] | None = None,
    box_format: Literal["xyxy", "yxyx", "xywh", "center_xywh"] = "xyxy",
    match: Literal["best", "weighted"] = "best",
    boxes: str | int | Callable[[Any], Any] | npt.ArrayLike | None = None,
    scores: str | int | None = None,
    box_channels: int | None = None,
    use_logits: bool = True,
) -> Callable[[Any], Any]:
    """Return a target: the class score of one box of a detector.

    For detectors that return boxes (N, A, 4) and class scores (N, A, K) before non-maximum
    suppression. The box is chosen by its index, or by its overlap with a given box.

    Parameters
    ----------
    box_index : int or sequence of float, optional
        Index of the predicted box, 0 to A - 1; or four coordinates, which are taken as `box`.
        Exactly one of `box_index` and `box` is required.
    class_ : int, optional
        Index of the class. None: the class with the highest score, in each run of the model; for
        scores of one class, its score.
    box : sequence of float, optional
        Four coordinates of a box, in the units of the predicted boxes.
    box_format : {"xyxy", "yxyx", "xywh", "center_xywh"}, optional
        Coordinates of `box` and of the predicted boxes: (left, top, right, bottom), (top, left,
        bottom, right), (left, top, width, height), or (center x, center y, width, height).
    match : {"best", "weighted"}, optional
        How `box` chooses predicted boxes, by their intersection over union (IoU) with it.
        ``"best"``: the score of the predicted box with the highest IoU. ``"weighted"``: the mean of
        the scores of all predicted boxes, weighted by IoU, ``sum(iou * scores) / sum(iou)``.
    boxes : str, int, callable or array_like, optional
        The predicted boxes: the key of an output in a dict, its position in a list, a function from
        all outputs to boxes (N, A, 4), or an array of anchors (A, 4), which are then matched in
        place of the predicted boxes. None: see Notes.
    scores : str or int, optional
        Key or position of the output with the class scores, (N, A, K), or (N, A) for one class.
        None: see Notes.
    box_channels : int, optional
        For a model with one output (N, A, C): the number of channels before the class scores. The
        first four channels are the predicted box. None: 4 if `box` is given; required if
        `box_index` is given. 0: the output has only scores.
    use_logits : bool, optional
        Whether the score of a model that ends in a softmax or sigmoid is the logit, see
        `get_logits`. False: the probability.

    Returns
    -------
    callable
        Target for `actgrid.explain`: a function from the outputs to scores (N,). Equal arguments
        return equal targets.

    Raises
    ------
    OptionError
        If an option is invalid, or not exactly one of `box_index` and `box` is given. Also a
        ValueError.
    DtypeError
        If the anchors are not an array of real numbers. Also a TypeError.

    Notes
    -----
    `actgrid.explain` raises a TargetError if the model has no such box, class or output, and a
    ShapeError if an output does not have these axes.

    **Choice of the box.** The choice by overlap is made for each sample in each run of the model,
    also for inputs that a method has modified. IoU is a constant of the gradient: the gradient is
    that of the class score alone. The score of a sample without overlapping boxes is 0.

    **Outputs.** By default, the outputs are found by their keys in a dict:

    =================== ================== ======================================
    boxes               scores             such as
    =================== ================== ======================================
    ``boxes``           ``scores``
    ``boxes``           ``classes``        YOLOV8Detector of KerasCV
    ``bbox_regression`` ``cls_logits``     RetinaNetObjectDetector of KerasHub
    ``box``             ``classification`` RetinaNet of KerasCV
    =================== ================== ======================================

    or else by shape: of two outputs, the only one with 4 channels has the boxes. Outputs with more
    axes, (N, H, W, C), are flattened to (N, H * W, C).

    **Encoded boxes.** Many detectors return encoded boxes, which have no overlap with a box in
    pixels: RetinaNet returns offsets from anchors, and YOLOV8Detector distributions with 64
    channels. `box_index` needs no boxes. For `box`, pass the anchors, or a function that decodes
    the boxes, as `boxes`.

    Examples
    --------
    >>> import keras
    >>> image = keras.Input((16, 16, 3))
    >>> features = keras.layers.Conv2D(8, 3, strides=4, activation="relu")(image)
    >>> detector = keras.Model(image, {
    ...     "boxes": keras.layers.Reshape((16, 4))(keras.layers.Conv2D(4, 1)(features)),
    ...     "classes": keras.layers.Reshape((16, 2))(
    ...         keras.layers.Conv2D(2, 1, activation="sigmoid")(features)
    ...     ),
    ... })
    >>> x = np.random.default_rng(0).random((1, 16, 16, 3))
    >>> target = actgrid.targets.detection(box_index=5, class_=1)
    >>> actgrid.explain(detector, x, "saliency", target).values.shape
    (1, 16, 16)
    >>> anchors = [(x, y, x + 4, y + 4) for y in range(0, 16, 4) for x in range(0, 16, 4)]
    >>> by_overlap = actgrid.targets.detection(box=(3, 4, 7, 8), class_=1, boxes=anchors)
    >>> heatmap = actgrid.explain(detector, x, "saliency", by_overlap)  # the box of anchor 5
    >>> bool(heatmap.score == actgrid.explain(detector, x, "saliency", target).score)
    True
    """
    if box is None and isinstance(box_index, (tuple, list, np.ndarray)):
        box, box_index = box_index, None
    if box_format not in _FORMATS:
        raise OptionError(
            f"box_format must be one of {', '.join(map(repr, _FORMATS))}, not {box_format!r}"
        )
    if match not in ("best", "weighted"):
        raise OptionError(f"match must be 'best' or 'weighted', not {match!r}")
    if (box_index is None) == (box is None):
        raise OptionError(
            "detection needs box_index, the index of a predicted box, or box, four coordinates: "
            f"got {'neither' if box is None else 'both'}"
        )
    return _DetectionScore(
        None if box_index is None else check_integer("box_index", box_index, 0),
        check_class(class_),
        None if box is None else _read_box(box, box_format),
        box_format,
        match == "weighted",
        _read_boxes(boxes),
        _read_key("scores", scores),
        None if box_channels is None else check_integer("box_channels", box_channels, 0),
        bool(use_logits),
    )


@dataclass(frozen=True)
class _DetectionScore:
    """Target function of `detection`; for the attributes see its parameters."""

    box_index: int | None
    class_: int | None
    box: tuple[float, ...] | None
    box_format: str
    is_weighted: bool
    boxes: _OutputKey | Callable[[Any], Any] | FrozenArray | None
    scores: _OutputKey | None
    box_channels: int | None
    use_logits: bool

    @property
    def __name__(self) -> str:
        """Label of the map."""
        place = self.box_index if self.box is None else ", ".join(f"{side:g}" for side in self.box)
        return (
            f"detection({place})" if self.class_ is None else f"detection({place}, {self.class_})"
        )

    def __call__(self, outputs: Any) -> Any:
        """Return the scores, (N,), of the outputs of a detector."""
        tf = tensorflow()
        boxes, score_output = self._split_outputs(outputs)
        scores = read_class_scores(_flatten_positions(score_output), self.class_, self.use_logits)
        count = scores.shape[1]
        if self.box_index is not None:
            if count is not None and self.box_index >= count:
                raise TargetError(
                    f"box_index={self.box_index} is not a box of the model: got {count} boxes, 0 "
                    f"to {count - 1}"
                )
            return tf.reduce_max(scores[:, self.box_index], 1)
        if boxes.shape.rank != 3 or boxes.shape[-1] != 4:
            raise ShapeError(
                f"boxes must be (N, A, 4): got {tuple(boxes.shape)}; pass a function that decodes "
                "the outputs to boxes, or an array of anchors (A, 4), as boxes"
            )
        if not boxes.shape[1:2].is_compatible_with(scores.shape[1:2]):
            raise ShapeError(
                f"boxes and class scores must have the same number of boxes: got {boxes.shape[1]} "
                f"and {count}"
            )
        overlaps = self._compute_overlaps(boxes) + tf.zeros_like(scores[..., 0])
        if self.is_weighted:
            total = tf.reduce_sum(overlaps, 1, keepdims=True)
            means = tf.reduce_sum(tf.math.divide_no_nan(overlaps, total)[..., None] * scores, 1)
            return tf.reduce_max(means, 1)
        best = tf.gather(scores, tf.argmax(overlaps, 1), axis=1, batch_dims=1)
        has_overlap = tf.reduce_max(overlaps, 1) > 0
        return tf.where(has_overlap, tf.reduce_max(best, 1), 0.0)

    def _split_outputs(self, outputs: Any) -> tuple[Any, Any]:
        """Return the boxes, or None if they are not needed, and the output with the scores."""
        leaves = list(flatten_with_paths(outputs))
        known = self._find_known_outputs(outputs)
        scores: Any
        if self.scores is not None:
            scores = _get_output(outputs, "scores", self.scores)
        elif known is not None:
            scores = outputs[known.scores]
        elif len(leaves) == 1:
            scores = leaves[0][1][..., self._count_box_channels(leaves[0][1]) :]
        else:
            scores = self._find_by_shape(leaves)[1]
        if self.box is None:
            return None, scores
        if callable(self.boxes):
            return self.boxes(outputs), scores
        if isinstance(self.boxes, FrozenArray):
            return tensorflow().constant(self.boxes.to_numpy()[None]), scores
        if self.boxes is not None:
            return _flatten_positions(_get_output(outputs, "boxes", self.boxes)), scores
        if known is not None:
            if known.has_offsets:
                raise TargetError(
                    f"the output {known.boxes!r} has offsets from anchors, which do not overlap "
                    "with box; pass the anchors (A, 4), or a function that decodes the outputs to "
                    f"boxes, as boxes; or boxes={known.boxes!r} if it has boxes"
                )
            return _flatten_positions(outputs[known.boxes]), scores
        if len(leaves) == 1:
            return _flatten_positions(leaves[0][1])[..., :4], scores
        return _flatten_positions(self._find_by_shape(leaves)[0]), scores

    @staticmethod
    def _find_known_outputs(outputs: Any) -> _OutputNames | None:
        """Return the keys of the outputs if they are those of a known detector."""
        if not isinstance(outputs, Mapping):
            return None
        for names in _KNOWN_OUTPUTS:
            if names.boxes in outputs and names.scores in outputs:
                return names
        return None

    def _count_box_channels(self, output: Any) -> int:
        """Return the number of channels before the class scores of the only output."""
        channels = self.box_channels
        if channels is None and isinstance(self.boxes, FrozenArray):
            channels = 0
        elif channels is None and self.box is not None:
            channels = 4
        if channels is None:
            raise TargetError(
                f"detection needs the number of channels before the class scores of the output, "
                f"{tuple(output.shape)}: pass box_channels=4 for an output of 4 coordinates and "
                "class scores, or box_channels=0 for an output of class scores"
            )
        if output.shape[-1] is not None and output.shape[-1] <= channels:
            raise ShapeError(
                f"the output must have more than {channels} channels, of which the others are "
                f"class scores: got {tuple(output.shape)}; set box_channels"
            )
        return channels

    @staticmethod
    def _find_by_shape(leaves: Sequence[tuple[tuple[Any, ...], Any]]) -> tuple[Any, Any]:
        """Return the boxes and the scores among two outputs, by the number of channels."""
        has_boxes = [
            tensor.shape.rank is not None and tensor.shape.rank > 2 and tensor.shape[-1] == 4
            for _, tensor in leaves
        ]
        if len(leaves) != 2 or sum(has_boxes) != 1:
            shapes = ", ".join(
                f"{'/'.join(map(str, path))} {tuple(tensor.shape)}" for path, tensor in leaves
            )
            raise TargetError(
                "detection cannot tell which outputs have the boxes and the class scores: got "
                f"{shapes}; pass their keys or positions as boxes and scores"
            )
        index = has_boxes.index(True)
        return leaves[index][1], leaves[1 - index][1]

    def _compute_overlaps(self, boxes: Any) -> Any:
        """Return the IoU of each predicted box with the given box, without gradient."""
        tf = tensorflow()
        boxes = tf.stop_gradient(tf.cast(boxes, tf.float32))
        lows, highs = _find_corners(boxes, self.box_format)
        box_lows, box_highs = _find_corners(tf.constant([[self.box]], tf.float32), self.box_format)
        sides = tf.nn.relu(tf.minimum(highs, box_highs) - tf.maximum(lows, box_lows))
        intersection = tf.reduce_prod(sides, -1)
        areas = tf.reduce_prod(tf.nn.relu(highs - lows), -1)
        box_area = tf.reduce_prod(box_highs - box_lows, -1)
        return tf.math.divide_no_nan(intersection, areas + box_area - intersection)


def _find_corners(boxes: Any, box_format: str) -> tuple[Any, Any]:
    """Return the lower and the upper coordinates of boxes (..., 4), each (..., 2).

    The order of x and y is that of the format.
    """
    first, second = boxes[..., :2], boxes[..., 2:]
    if box_format == "xywh":
        return first, first + second
    if box_format == "center_xywh":
        return first - second / 2, first + second / 2
    return first, second


def _flatten_positions(output: Any) -> Any:
    """Return an output (N, ..., C) as (N, A, C); scores of one class, (N, A), as (N, A, 1)."""
    tf = tensorflow()
    rank = output.shape.rank
    if rank is None or rank < 2:
        raise ShapeError(f"outputs of a detector must be (N, A, C): got {tuple(output.shape)}")
    if rank == 2:
        return tf.expand_dims(output, -1)
    if rank == 3:
        return output
    count = output.shape[1:-1].num_elements()
    return tf.reshape(
        output, (-1, count or tf.reduce_prod(tf.shape(output)[1:-1]), output.shape[-1])
    )


def _get_output(outputs: Any, name: str, key: _OutputKey) -> Any:
    """Return the output with a key or position.

    Parameters
    ----------
    name
        Name of the option, for error messages.
    """
    is_key = isinstance(outputs, Mapping) and key in outputs
    is_position = isinstance(outputs, (list, tuple)) and isinstance(key, int) and key < len(outputs)
    if is_key or is_position:
        return outputs[key]
    if isinstance(outputs, Mapping):
        hint = suggest(key, [str(name) for name in outputs]) if isinstance(key, str) else ""
        keys = f"keys: {', '.join(map(repr, outputs))}"
    elif isinstance(outputs, (list, tuple)):
        hint, keys = "", f"positions: 0 to {len(outputs) - 1}"
    else:
        hint, keys = "", f"the model has one output, {tuple(outputs.shape)}; see box_channels"
    raise TargetError(f"{name}={key!r} is not an output of the model{hint}; {keys}")


def _read_key(name: str, key: Any) -> _OutputKey | None:
    """Check the key or position of an output."""
    if key is None or isinstance(key, str):
        return key
    return check_integer(name, key, 0)


def _read_boxes(boxes: Any) -> _OutputKey | Callable[[Any], Any] | FrozenArray | None:
    """Check the option `boxes`, and convert anchors to a `FrozenArray`."""
    if boxes is None or isinstance(boxes, (str, int)):
        return _read_key("boxes", boxes)
    if callable(boxes):
        decode: Callable[[Any], Any] = boxes
        if isinstance(boxes, Hashable):
            return decode
        raise OptionError(
            f"boxes must be a hashable function, as the compiled function is cached: got "
            f"{boxes!r}; pass a plain function"
        )
    anchors = freeze_array("boxes", boxes)
    if len(anchors.shape) != 2 or anchors.shape[1] != 4:
        raise OptionError(
            "boxes must be the key or position of an output, a function of the outputs, or anchors "
            f"(A, 4): got an array of shape {anchors.shape}"
        )
    return anchors


def _read_box(box: Any, box_format: str) -> tuple[float, ...]:
    """Check the coordinates of a box, and return them as floats."""
    try:
        sides = tuple(box)
    except TypeError:
        sides = ()
    if len(sides) != 4:
        raise OptionError(f"box must have 4 coordinates, {_FORMATS[box_format]}: got {box!r}")
    numbers = tuple(check_number("box", side, minimum=float("-inf")) for side in sides)
    is_size = box_format in ("xywh", "center_xywh")
    lows = (0.0, 0.0) if is_size else numbers[:2]
    if any(high <= low for low, high in zip(lows, numbers[2:], strict=True)):
        raise OptionError(
            f"box is empty: got {box!r}; expected {_FORMATS[box_format]}, see box_format"
        )
    return numbers
