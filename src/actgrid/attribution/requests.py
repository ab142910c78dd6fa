"""Prepare images and targets, run methods on them, and make a heatmap of the results."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from actgrid.attribution.backdrops import (
    Backdrop,
    as_pictures,
    backdrop_of_photos,
    given_backdrop,
)
from actgrid.attribution.batches import Attribution, ExplainedBatch, ScoreReader
from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_needs
from actgrid.attribution.outputs import binary_evidence, output_names, output_specs
from actgrid.attribution.targets import (
    PREDICTED,
    class_indices,
    head_index,
    names_heads,
    target_rows,
)
from actgrid.errors import DtypeError, OptionError, ShapeError, TargetError, caller_level
from actgrid.models import load_model
from actgrid.models.data_formats import input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_sources import are_images, open_images
from actgrid.models.images import Photo, load_images, load_photos
from actgrid.models.inputs import is_real, position_of, prepare_inputs
from actgrid.models.labels import labels_of
from actgrid.models.tracing import build
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_checks import integer_option
from actgrid.rendering import Heatmap

__all__ = ["ExplanationRequest", "Labels", "ZeroAttributionWarning", "prepare_request"]

# Of the classes, or of those of each of several outputs.
Labels = Sequence[str] | Mapping[Any, Sequence[str]] | None
_NO_GRADIENT = (
    "the gradient of the score with respect to the image is zero, or is stopped on its way"
)


class ZeroAttributionWarning(UserWarning):
    """A map of `explain` is zero everywhere; the message says why."""


@dataclass(frozen=True, eq=False)
class OutputRequest:
    """Images and classes of one output of the model.

    Attributes
    ----------
    rows
        Which of all maps these are.
    head
        The name of the output; None if the model has one, or the target is a function.
    labels
        Names of the classes, if any were given.
    """

    batch: ExplainedBatch
    rows: Sequence[int]
    head: str | None
    labels: Sequence[str] | None


@dataclass(frozen=True, eq=False)
class ExplanationRequest:
    """Images, a model and a target, for any method.

    Attributes
    ----------
    heads
        What is asked of each output of the model that is explained.
    backdrop
        What the maps are drawn over; None if the images have too many channels to be seen.
    """

    heads: tuple[OutputRequest, ...]
    backdrop: Backdrop | None

    @property
    def batch(self) -> ExplainedBatch:
        """The images and classes of the first output."""
        return self.heads[0].batch

    def explain(
        self,
        method: Method,
        layer: LayerLike | None,
        options: Mapping[str, Any],
        *,
        warn: bool = True,
    ) -> Heatmap:
        """Return what a method says, of a layer if it looks at one.

        Parameters
        ----------
        warn
            Whether to warn of maps that are zero everywhere; `details` has the reasons anyway.
        """
        check_needs([method], self.batch.model)
        chosen = {**options, "layer": layer} if method.takes_layer else options
        found = [
            (head, method.run(group, **chosen))
            for head in self.heads
            for group in head.batch.groups()
        ]
        reasons = _zero_reasons([part for _, part in found])
        if warn:
            _warn_of_zeros(reasons, method.name)
        rows = [row for head in self.heads for row in head.rows]
        return _heatmap(found, np.argsort(rows), self.backdrop, method.name, reasons)

    def with_predicted_classes(self) -> ExplanationRequest:
        """Return the request with the predicted class of each image that has no target."""
        heads = []
        for head in self.heads:
            classes = [group.read().classes for group in head.batch.groups()]
            target_classes = tensorflow().constant(np.concatenate(classes))
            heads.append(replace(head, batch=replace(head.batch, target_classes=target_classes)))
        return replace(self, heads=tuple(heads))


def prepare_request(
    model: ModelLike,
    x: ModelInput,
    target: TargetLike = None,
    labels: Labels = None,
    image_input: int | str | None = None,
    batch_size: int = 32,
    pixels: ModelInput | None = None,
    progress: Callable[[int, int], object] | None = None,
    any_rank: bool = False,
) -> ExplanationRequest:
    """Return the images, classes and pictures of an explanation; see `explain`.

    Parameters
    ----------
    pixels
        As in `explain`.
    progress
        Called before each run of the model with the numbers of finished samples and of all samples
        of this pass. What it raises ends the computation.
    any_rank
        Whether the input that `image_input` names may have any rank, for methods that need no
        image. It has its batch axis then.
    """
    batch_size = integer_option("batch_size", batch_size, 1)
    model = load_model(model)
    tf = tensorflow()
    photos: list[Photo] = []
    if are_images(x):
        sources = open_images(x)
        x = load_images(sources, model=model)
        photos = load_photos(sources, model=model)
    with tf.device("CPU"):  # a GPU is to hold a batch of them, not all
        inputs = prepare_inputs(model, x, single=not any_rank)
    build(model, inputs)
    tensors = tf.nest.flatten(inputs)
    position = _image_position(model, inputs, image_input, any_rank)
    image = tensors[position]
    if not is_real(image.dtype):
        raise DtypeError(f"images must be real numbers, not {image.dtype.name}")
    with tf.device("CPU"):
        # Integers have no gradients, and no part between two of them.
        tensors[position] = image = tf.cast(image, tf.float32)
        finite = bool(tf.reduce_all(tf.math.is_finite(image)))
    if 0 in image.shape:
        raise ShapeError(f"images of shape {tuple(image.shape)} are empty: nothing to explain")
    counts = [len(tensor) for tensor in tensors if tensor is not None]
    if len(set(counts)) > 1:
        raise ShapeError(f"the inputs must be of as many samples each, not {counts}")
    if not finite:
        raise OptionError("the images have NaN or infinite values, which no map could explain")
    reader = ScoreReader(position, input_data_format(model, position) == "channels_first", None)
    batch = ExplainedBatch(
        model,
        tf.nest.pack_sequence_as(inputs, tensors),
        tf.fill([image.shape[0]], PREDICTED),
        reader,
        batch_size,
        progress,
    )
    backdrop = None
    if pixels is not None:
        backdrop = given_backdrop(pixels, len(batch))
    elif photos:
        backdrop = backdrop_of_photos(photos)
    elif len(image.shape) == 4:
        values = np.asarray(image)
        pictures = as_pictures(np.moveaxis(values, 1, -1) if reader.channels_first else values)
        backdrop = None if pictures is None else Backdrop(pictures, None)
    heads, images = _output_requests(batch, target, labels)
    return ExplanationRequest(heads, None if backdrop is None else backdrop.repeated(images))


def _output_requests(
    batch: ExplainedBatch, target: TargetLike, labels: Labels
) -> tuple[tuple[OutputRequest, ...], list[int]]:
    """Return a request for each output that is explained, and the image of each map."""
    model = batch.model
    # Models that do not tell their outputs are traced for them only if these are named.
    named = isinstance(labels, Mapping) or names_heads(target)
    if named or hasattr(model, "_outputs_struct"):
        names = output_names(model, output_specs(model, batch.inputs))
    else:
        names = ["output"]
    rows = target_rows(target, len(batch), names)
    labels_by_head = (
        {head_index(name, names): known for name, known in labels.items()}
        if isinstance(labels, Mapping)
        else dict.fromkeys(range(len(names)), labels)
    )
    heads = []
    scores = [row.target if callable(row.target) else None for row in rows]
    for score in scores:
        if not isinstance(score, Hashable | None):
            raise TargetError(
                "a target function must be hashable, as its compiled function is kept for the next "
                f"call: got {score!r}; give a plain function"
            )
    sources = [(row.head, score) for row, score in zip(rows, scores, strict=True)]
    for head, score in dict.fromkeys(sources):
        chosen = [index for index, each in enumerate(sources) if each == (head, score)]
        known = labels_by_head.get(head or 0) if score is None else None
        name = names[head or 0] if len(names) > 1 else None
        evidence = binary_evidence(model, names, head or 0, known)
        reader = replace(batch.reader, score=score, head=head, evidence=evidence, output=name)
        part = replace(batch, reader=reader)
        targets = [rows[index].target if score is None else None for index in chosen]
        class_names = None
        if known is not None or any(isinstance(target, str) for target in targets):
            class_names = labels_of(model, int(next(part.groups()).read().count), known)
        part = part.rows(
            [rows[index].image for index in chosen], class_indices(targets, class_names)
        )
        heads.append(OutputRequest(part, chosen, name, known))
    return tuple(heads), [row.image for row in rows]


def _image_position(
    model: Any, inputs: Any, chosen: int | str | None, any_rank: bool = False
) -> int:
    """Return which of the inputs is the image, in the order of TensorFlow's nests."""
    tensors = tensorflow().nest.flatten(inputs)
    shapes = [None if tensor is None else tuple(tensor.shape) for tensor in tensors]
    images = [position for position, shape in enumerate(shapes) if shape and len(shape) == 4]
    if chosen is None:
        position = images[0] if images else None
    elif isinstance(chosen, str):
        position = position_of(model, inputs, chosen)
    else:
        position = integer_option("image_input", chosen, 0)
    if position is None or position not in (range(len(shapes)) if any_rank else images):
        raise ShapeError(
            "only images are explained, (N, H, W, C): the model's input is "
            + ", ".join(map(str, shapes))
        )
    return position


def _zero_reasons(found: Sequence[Attribution]) -> list[str | None]:
    """Return of each map why it is zero everywhere; None if it is not."""
    reasons: list[str | None] = []
    for group in found:
        for index, value in enumerate(group.values):
            reason = group.zero_reasons[index] if group.zero_reasons else _NO_GRADIENT
            reasons.append(None if value.any() else reason)
    return reasons


def _warn_of_zeros(reasons: Sequence[str | None], method: str) -> None:
    """Warn of maps that are zero everywhere, and say why they are."""
    for reason, count in Counter(filter(None, reasons)).items():
        text = f"{method}: {count} of {len(reasons)} maps are zero everywhere: {reason}"
        warnings.warn(text, ZeroAttributionWarning, stacklevel=caller_level())


def _heatmap(
    found: Sequence[tuple[OutputRequest, Attribution]],
    order: npt.NDArray[np.intp],
    backdrop: Backdrop | None,
    method: str,
    zero_reasons: Sequence[str | None],
) -> Heatmap:
    """Return what was found of groups of images as one heatmap.

    Parameters
    ----------
    order
        For each map of the heatmap, which of the found it is.
    """
    parts = [part for _, part in found]
    first = parts[0]
    shapes = {part.values.shape[1:]: f"{part.layer} {part.values.shape[1:]}" for part in parts}
    if len(shapes) > 1:
        raise ShapeError(
            f"maps of several outputs must have one size, not those of {', '.join(shapes.values())}"
            ": name one layer, or explain one output at a time"
        )
    names: list[str] = []
    is_named = False
    for head, part in found:
        known = None
        if part.target_scores.count:
            known = labels_of(head.batch.model, int(part.target_scores.count), head.labels)
            is_named = is_named or known is not None
        score = head.batch.reader.score
        for index in part.target_scores.classes:
            if score is not None:
                names.append(getattr(score, "__name__", type(score).__name__))
            else:
                names.append(str(index) if known is None else known[index])
    details: dict[str, list[Any]] = {
        name: [entry for part in parts for entry in part.details[name]] for name in first.details
    }
    if any(zero_reasons):
        details["zero_reason"] = list(zero_reasons)
    if found[0][0].head is not None:
        details["output"] = [head.head for head, part in found for _ in part.values]
    return Heatmap(
        np.concatenate([part.values for part in parts])[order],
        images=None if backdrop is None else backdrop.images,
        boxes=None if backdrop is None else backdrop.boxes,
        target=(
            np.concatenate([part.target_scores.classes for part in parts])[order]
            if any(part.target_scores.count for part in parts)
            else None
        ),
        labels=[names[index] for index in order] if is_named else None,
        score=np.concatenate([part.target_scores.scores for part in parts])[order],
        signed=first.signed,
        method=method,
        layer=", ".join(dict.fromkeys(part.layer for part in parts)) or None,
        is_logit=all(bool(part.target_scores.is_logit) for part in parts),
        details={name: [entries[index] for index in order] for name, entries in details.items()},
    )
