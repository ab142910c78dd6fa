"""Explanation requests: prepare images and targets, run methods, combine maps."""

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
    make_backdrop,
    make_photo_backdrop,
    to_pictures,
)
from actgrid.attribution.batches import Attribution, ExplainedBatch, ScoreReader
from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_needs
from actgrid.attribution.outputs import find_binary_evidence, get_output_specs, list_output_names
from actgrid.attribution.targets import (
    PREDICTED,
    find_output_index,
    list_target_rows,
    may_name_outputs,
    parse_classes,
)
from actgrid.errors import DtypeError, OptionError, ShapeError, TargetError, get_caller_level
from actgrid.models import load_model
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_sources import are_images, open_images
from actgrid.models.images import Photo, load_images, load_photos
from actgrid.models.inputs import find_input_position, is_real_dtype, prepare_inputs
from actgrid.models.labels import resolve_labels
from actgrid.models.tracing import build_model
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_checks import check_integer
from actgrid.rendering import Heatmap

__all__ = ["ExplanationRequest", "Labels", "ZeroAttributionWarning", "prepare_request"]

# Class names, or a dict from outputs to their class names.
Labels = Sequence[str] | Mapping[Any, Sequence[str]] | None
_NO_GRADIENT = (
    "the gradient of the score with respect to the image is zero, or an operation stops it"
)


class ZeroAttributionWarning(UserWarning):
    """Warning that a map of `actgrid.explain` is zero everywhere, with the reason."""


@dataclass(frozen=True, eq=False)
class OutputRequest:
    """Images and targets for one output of the model.

    Attributes
    ----------
    batch
        The images and their classes; an image with several targets is repeated.
    map_indices
        Index of each map among all maps of the explanation.
    output_name
        Name of the output; None if the model has only one, or the target is a function.
    labels
        Names of the classes, if they are known.
    """

    batch: ExplainedBatch
    map_indices: Sequence[int]
    output_name: str | None
    labels: Sequence[str] | None


@dataclass(frozen=True, eq=False)
class ExplanationRequest:
    """Prepared images, model and targets, which any method can explain.

    Attributes
    ----------
    output_requests
        A request for each explained output of the model.
    backdrop
        Pictures that the maps are drawn over; None if the images cannot be drawn as RGB.
    """

    output_requests: tuple[OutputRequest, ...]
    backdrop: Backdrop | None

    @property
    def batch(self) -> ExplainedBatch:
        """The images and target classes of the first explained output."""
        return self.output_requests[0].batch

    def explain(
        self,
        method: Method,
        layer: LayerLike | None,
        options: Mapping[str, Any],
        *,
        warn: bool = True,
    ) -> Heatmap:
        """Compute the maps of a method and return them as one heatmap.

        Parameters
        ----------
        layer
            Layer, for methods that use one; None: the default layer.
        options
            Options of the method, by name.
        warn
            Whether to warn of maps that are zero everywhere. `details` has the reasons anyway.
        """
        check_needs([method], self.batch.model)
        arguments = {**options, "layer": layer} if method.takes_layer else options
        attributions = [
            (request, method.run(part, **arguments))
            for request in self.output_requests
            for part in request.batch.split()
        ]
        reasons = _list_zero_reasons([attribution for _, attribution in attributions])
        if warn:
            _warn_of_zeros(reasons, method.name)
        indices = [index for request in self.output_requests for index in request.map_indices]
        order = np.argsort(indices)
        return _make_heatmap(attributions, order, self.backdrop, method.name, reasons)

    def with_predicted_classes(self) -> ExplanationRequest:
        """Return a copy of the request with predicted classes in place of missing targets."""
        requests = []
        for request in self.output_requests:
            classes = [part.compute_scores().classes for part in request.batch.split()]
            target_classes = tensorflow().constant(np.concatenate(classes))
            batch = replace(request.batch, target_classes=target_classes)
            requests.append(replace(request, batch=batch))
        return replace(self, output_requests=tuple(requests))


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
    """Prepare the images, targets and pictures of an explanation.

    See `actgrid.explain` for the parameters that are not listed.

    Parameters
    ----------
    progress
        Callback ``progress(done, total)``, called before each run of the model with the numbers of
        finished and of all samples of the current pass. An exception that it raises ends the
        computation.
    any_rank
        Whether the explained input may have any rank, for methods that need no image. It must have
        a batch axis then.
    """
    batch_size = check_integer("batch_size", batch_size, 1)
    model = load_model(model)
    tf = tensorflow()
    photos: list[Photo] = []
    if are_images(x):
        sources = open_images(x)
        x = load_images(sources, model=model)
        photos = load_photos(sources, model=model)
    with tf.device("CPU"):  # only a batch at a time is moved to a GPU
        inputs = prepare_inputs(model, x, single=not any_rank)
    build_model(model, inputs)
    tensors = tf.nest.flatten(inputs)
    image_index = _find_image(model, inputs, image_input, any_rank)
    image = tensors[image_index]
    if not is_real_dtype(image.dtype):
        raise DtypeError(f"images must be real numbers, not {image.dtype.name}")
    with tf.device("CPU"):
        # Integer tensors have no gradients and cannot be interpolated.
        tensors[image_index] = image = tf.cast(image, tf.float32)
        is_finite = bool(tf.reduce_all(tf.math.is_finite(image)))
    if 0 in image.shape:
        raise ShapeError(f"images must not be empty: got shape {tuple(image.shape)}")
    counts = [len(tensor) for tensor in tensors if tensor is not None]
    if len(set(counts)) > 1:
        raise ShapeError(f"the inputs must have the same number of samples: got {counts}")
    if not is_finite:
        raise OptionError("the images must be finite: got NaN or infinite values")
    channels_first = find_input_data_format(model, image_index) == "channels_first"
    reader = ScoreReader(image_index, channels_first, None)
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
        backdrop = make_backdrop(pixels, len(batch))
    elif photos:
        backdrop = make_photo_backdrop(photos)
    elif len(image.shape) == 4:
        values = np.asarray(image)
        pictures = to_pictures(np.moveaxis(values, 1, -1) if reader.channels_first else values)
        backdrop = None if pictures is None else Backdrop(pictures, None)
    requests, images = _make_output_requests(batch, target, labels)
    return ExplanationRequest(requests, None if backdrop is None else backdrop.select(images))


def _make_output_requests(
    batch: ExplainedBatch, target: TargetLike, labels: Labels
) -> tuple[tuple[OutputRequest, ...], list[int]]:
    """Split a batch into one request for each explained output or target function.

    Return the requests, and the image index of each map in the order of the option `target`.
    """
    model = batch.model
    # Subclassed models are traced for the names of their outputs, only if the names are needed.
    needs_names = isinstance(labels, Mapping) or may_name_outputs(target)
    if needs_names or hasattr(model, "_outputs_struct"):
        names = list_output_names(model, get_output_specs(model, batch.inputs))
    else:
        names = ["output"]
    rows = list_target_rows(target, len(batch), names)
    labels_by_output = (
        {find_output_index(name, names): class_names for name, class_names in labels.items()}
        if isinstance(labels, Mapping)
        else dict.fromkeys(range(len(names)), labels)
    )
    requests = []
    scores = [row.target if callable(row.target) else None for row in rows]
    for score in scores:
        if not isinstance(score, Hashable | None):
            raise TargetError(
                "target functions must be hashable, as their compiled functions are cached: got "
                f"{score!r}; pass a plain function"
            )
    sources = [(row.output, score) for row, score in zip(rows, scores, strict=True)]
    for output, score in dict.fromkeys(sources):
        indices = [index for index, source in enumerate(sources) if source == (output, score)]
        output_labels = labels_by_output.get(output or 0) if score is None else None
        name = names[output or 0] if len(names) > 1 else None
        reader = replace(
            batch.reader,
            score=score,
            output_index=output,
            evidence=find_binary_evidence(model, names, output or 0, output_labels),
            output_name=name,
        )
        output_batch = replace(batch, reader=reader)
        targets = [rows[index].target if score is None else None for index in indices]
        class_names = None
        if output_labels is not None or any(isinstance(target, str) for target in targets):
            class_count = int(next(output_batch.split()).compute_scores().count)
            class_names = resolve_labels(model, class_count, output_labels)
        output_batch = output_batch.select(
            [rows[index].image for index in indices], parse_classes(targets, class_names)
        )
        requests.append(OutputRequest(output_batch, indices, name, output_labels))
    return tuple(requests), [row.image for row in rows]


def _find_image(
    model: Any, inputs: Any, image_input: int | str | None, any_rank: bool = False
) -> int:
    """Return the index of the image among the flattened inputs of the model."""
    tensors = tensorflow().nest.flatten(inputs)
    shapes = [None if tensor is None else tuple(tensor.shape) for tensor in tensors]
    images = [index for index, shape in enumerate(shapes) if shape and len(shape) == 4]
    if image_input is None:
        image_index = images[0] if images else None
    elif isinstance(image_input, str):
        image_index = find_input_position(model, inputs, image_input)
    else:
        image_index = check_integer("image_input", image_input, 0)
    if image_index is None or image_index not in (range(len(shapes)) if any_rank else images):
        raise ShapeError(
            "only images, (N, H, W, C), can be explained: "
            + ("" if image_input is None else f"image_input={image_input!r} selects no image; ")
            + "the inputs of the model are "
            + ", ".join(map(str, shapes))
        )
    return image_index


def _list_zero_reasons(attributions: Sequence[Attribution]) -> list[str | None]:
    """Return for each map the reason that it is zero everywhere; None for other maps."""
    reasons: list[str | None] = []
    for attribution in attributions:
        for index, value in enumerate(attribution.values):
            known_reasons = attribution.zero_reasons
            reason = known_reasons[index] if known_reasons else _NO_GRADIENT
            reasons.append(None if value.any() else reason)
    return reasons


def _warn_of_zeros(reasons: Sequence[str | None], method: str) -> None:
    """Issue a warning for each reason for which maps are zero everywhere."""
    for reason, count in Counter(filter(None, reasons)).items():
        text = f"{method}: {count} of {len(reasons)} maps are zero everywhere: {reason}"
        warnings.warn(text, ZeroAttributionWarning, stacklevel=get_caller_level())


def _make_heatmap(
    attributions: Sequence[tuple[OutputRequest, Attribution]],
    order: npt.NDArray[np.intp],
    backdrop: Backdrop | None,
    method: str,
    zero_reasons: Sequence[str | None],
) -> Heatmap:
    """Combine the attributions of batches of images to one heatmap.

    Parameters
    ----------
    attributions
        Each attribution with the request it answers.
    order
        (N,) indices that sort the concatenated maps.
    zero_reasons
        Reasons for maps that are zero everywhere, in the order of `attributions`.
    """
    parts = [part for _, part in attributions]
    first = parts[0]
    shapes = {part.values.shape[1:]: f"{part.layer} {part.values.shape[1:]}" for part in parts}
    if len(shapes) > 1:
        raise ShapeError(
            f"maps of several outputs must have one size: got {', '.join(shapes.values())}; choose "
            "one layer, or explain one output at a time"
        )
    names: list[str] = []
    is_named = False
    for request, part in attributions:
        class_names = None
        if part.target_scores.count:
            class_count = int(part.target_scores.count)
            class_names = resolve_labels(request.batch.model, class_count, request.labels)
            is_named = is_named or class_names is not None
        score = request.batch.reader.score
        for index in part.target_scores.classes:
            if score is not None:
                names.append(getattr(score, "__name__", type(score).__name__))
            else:
                names.append(str(index) if class_names is None else class_names[index])
    details: dict[str, list[Any]] = {
        name: [entry for part in parts for entry in part.details[name]] for name in first.details
    }
    if any(zero_reasons):
        details["zero_reason"] = list(zero_reasons)
    if attributions[0][0].output_name is not None:
        details["output"] = [
            request.output_name for request, part in attributions for _ in part.values
        ]
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
