"""Explanation requests: prepare inputs and targets, run methods, combine maps."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from actgrid.attribution.backdrops import Backdrop, make_backdrop, make_photo_backdrop
from actgrid.attribution.batches import BatchAttribution, ExplainedBatch, ScoreReader
from actgrid.attribution.explained_inputs import (
    choose_explained_inputs,
    choose_positions,
    compute_embeddings,
)
from actgrid.attribution.explained_tensors import ExplainedTensor
from actgrid.attribution.linear_resizing import resize_linearly
from actgrid.attribution.method import Method
from actgrid.attribution.methods import check_needs
from actgrid.attribution.outputs import find_binary_evidence, get_output_specs, list_output_names
from actgrid.attribution.scores import TargetScores
from actgrid.attribution.targets import (
    PREDICTED,
    find_output_index,
    list_target_rows,
    may_name_outputs,
    parse_classes,
)
from actgrid.attribution.tokens import name_tokens
from actgrid.errors import (
    DtypeError,
    LayerError,
    ModelError,
    OptionError,
    ShapeError,
    TargetError,
    get_caller_level,
)
from actgrid.models import load_model
from actgrid.models.data_formats import find_input_data_format
from actgrid.models.frameworks import tensorflow
from actgrid.models.image_pixels import MODES
from actgrid.models.image_sources import are_images, open_images
from actgrid.models.images import Photo, load_images, load_photos
from actgrid.models.inputs import is_real_dtype, prepare_inputs, read_input_specs
from actgrid.models.labels import resolve_labels
from actgrid.models.network import is_buildable
from actgrid.models.networks import get_network
from actgrid.models.sample_files import load_samples
from actgrid.models.texts import encode_texts, is_text
from actgrid.models.tracing import build_model
from actgrid.models.types import LayerLike, ModelInput, ModelLike, TargetLike
from actgrid.option_checks import check_integer
from actgrid.rendering import Attribution, make_attribution
from actgrid.rendering.input_pictures import to_pictures
from actgrid.targets.next_tokens import convert_token_target

__all__ = [
    "ExplanationRequest",
    "Labels",
    "OutputRequest",
    "ZeroAttributionWarning",
    "load_model_inputs",
    "prepare_model_inputs",
    "prepare_request",
    "prepare_targets",
]

# Class names, or a dict from outputs to their class names.
Labels = Sequence[str] | Mapping[Any, Sequence[str]] | None
_NO_GRADIENT = (
    "the gradient of the score with respect to the input is zero, or an operation stops it"
)


class ZeroAttributionWarning(UserWarning):
    """Warning that a map of `actgrid.explain` is zero everywhere, with the reason."""


@dataclass(frozen=True, eq=False)
class OutputRequest:
    """Samples and targets for one output of the model.

    Attributes
    ----------
    batch
        The samples and their classes; a sample with several targets is repeated.
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

    def get_class_names(self, target_scores: TargetScores) -> Sequence[str] | None:
        """Return the names of the classes; None if they are not known."""
        if not target_scores.count:
            return None
        return resolve_labels(self.batch.model, int(target_scores.count), self.labels)

    def name_targets(self, target_scores: TargetScores) -> list[str]:
        """Return the name of each target: of its class or function, or the class index."""
        score = self.batch.reader.score
        if score is not None:
            name = getattr(score, "__name__", type(score).__name__)
            return [name] * len(target_scores.classes)
        class_names = self.get_class_names(target_scores)
        return [
            str(target) if class_names is None else class_names[target]
            for target in target_scores.classes
        ]

    def split(self) -> Iterator[tuple[ExplainedBatch, Sequence[int]]]:
        """Yield parts of the batch, each with the indices of its maps."""
        start = 0
        for part in self.batch.split():
            yield part, self.map_indices[start : start + len(part)]
            start += len(part)


@dataclass(frozen=True, eq=False)
class ExplainedInput:
    """Record of an explained input, with the pictures or tokens for drawing.

    Attributes
    ----------
    tensor
        The explained tensor.
    backdrop
        Pictures that the maps are drawn over; None if there are none.
    names
        Tokens of each map; None if they are not known.
    """

    tensor: ExplainedTensor
    backdrop: Backdrop | None = None
    names: Sequence[tuple[str, ...]] | None = None


@dataclass(frozen=True, eq=False)
class ExplanationRequest:
    """Prepared samples, model and targets, which any method can explain.

    Attributes
    ----------
    output_requests
        A request for each explained output of the model.
    explained_inputs
        Description of each explained tensor.
    map_samples
        Sample index of each map of the explanation.
    """

    output_requests: tuple[OutputRequest, ...]
    explained_inputs: tuple[ExplainedInput, ...]
    map_samples: Sequence[int]

    @property
    def batch(self) -> ExplainedBatch:
        """The samples and target classes of the first explained output."""
        return self.output_requests[0].batch

    def get_only_output(self) -> OutputRequest:
        """Return the request of the only output or function that the target names.

        Raises
        ------
        OptionError
            If there are several.
        """
        if len(self.output_requests) > 1:
            raise OptionError(
                "target must be of one output: got "
                f"{len(self.output_requests)} outputs or functions"
            )
        return self.output_requests[0]

    @property
    def backdrop(self) -> Backdrop | None:
        """Pictures that the maps of the first explained tensor are drawn over."""
        return self.explained_inputs[0].backdrop

    def explain(
        self,
        method: Method,
        layer: LayerLike | None,
        options: Mapping[str, Any],
        *,
        warn: bool = True,
    ) -> Attribution:
        """Compute the maps of a method for the first explained tensor.

        For the parameters see `explain_all`.
        """
        return self.explain_all(method, layer, options, warn=warn)[0]

    def explain_all(
        self,
        method: Method,
        layer: LayerLike | None,
        options: Mapping[str, Any],
        *,
        warn: bool = True,
    ) -> list[Attribution]:
        """Compute the maps of a method for each explained tensor.

        Parameters
        ----------
        layer
            Layer, for methods that use one; None: the default layer.
        options
            Options of the method, by name.
        warn
            Whether to warn of maps that are zero everywhere. `details` has the reasons anyway.

        Returns
        -------
        list of Attribution
            An attribution for each explained tensor, with the maps of all outputs.
        """
        check_needs([method], self.batch.model)
        arguments = {**options, "layer": layer} if method.takes_layer else options
        results: list[list[_Part]] = [[] for _ in self.explained_inputs]
        for request in self.output_requests:
            for part in request.batch.split():
                if method.explains_several:
                    attributions = method.run(part, **arguments)
                else:
                    attributions = [
                        self._run_for_input(method, explained_input, single, arguments)
                        for explained_input, single in zip(
                            self.explained_inputs, part.split_explained(), strict=True
                        )
                    ]
                for index, attribution in enumerate(attributions):
                    results[index].append(_Part(request, part, attribution))
        indices = [index for request in self.output_requests for index in request.map_indices]
        order = np.argsort(indices)
        reasons = [_list_zero_reasons([part.attribution for part in parts]) for parts in results]
        if warn:
            _warn_of_zeros([reason for row in reasons for reason in row], method.name)
        return [
            _make_attribution(
                parts, index, order, self.explained_inputs[index], method.name, reasons[index]
            )
            for index, parts in enumerate(results)
        ]

    def _run_for_input(
        self,
        method: Method,
        explained: ExplainedInput,
        batch: ExplainedBatch,
        options: Mapping[str, Any],
    ) -> BatchAttribution:
        """Run a method that explains one tensor; with several tensors, errors name theirs."""
        try:
            attribution: BatchAttribution = method.run(batch, **options)
        except (LayerError, ShapeError) as error:
            if len(self.explained_inputs) == 1:
                raise
            raise type(error)(f"input {explained.tensor.name!r}: {error}") from error
        return attribution

    def with_predicted_classes(self) -> ExplanationRequest:
        """Return a copy of the request with predicted classes in place of missing targets."""
        requests = []
        for request in self.output_requests:
            classes = [part.compute_scores().classes for part in request.batch.split()]
            target_classes = tensorflow().constant(np.concatenate(classes))
            batch = replace(request.batch, target_classes=target_classes)
            requests.append(replace(request, batch=batch))
        return replace(self, output_requests=tuple(requests))

    def with_backdrop(self, backdrop: Backdrop | None) -> ExplanationRequest:
        """Return a copy of the request with other pictures of the first explained tensor."""
        first, *others = self.explained_inputs
        return replace(self, explained_inputs=(replace(first, backdrop=backdrop), *others))


class _Part(NamedTuple):
    """Record of the attribution of a part of the samples of one output."""

    request: OutputRequest
    batch: ExplainedBatch
    attribution: BatchAttribution


def prepare_request(
    model: ModelLike,
    x: ModelInput,
    target: TargetLike = None,
    labels: Labels = None,
    image_input: int | str | None = None,
    batch_size: int = 32,
    pixels: ModelInput | None = None,
    progress: Callable[[int, int], object] | None = None,
    inputs: Any = None,
    embedding: Any = None,
    tokens: Any = None,
    has_batch_axis: bool = False,
) -> ExplanationRequest:
    """Prepare the samples, targets and pictures of an explanation.

    See `actgrid.explain` for the parameters that are not listed.

    Parameters
    ----------
    progress
        Callback ``progress(done, total)``, called before each run of the model with the numbers of
        finished and of all samples of the current pass. An exception that it raises ends the
        computation.
    embedding
        As in `actgrid.explain`; False: the inputs themselves are explained, even if they are
        tokens.
    has_batch_axis
        Whether `x` is known to have a batch axis.
    """
    batch_size = check_integer("batch_size", batch_size, 1)
    model = load_model(model)
    tf = tensorflow()
    x, columns, photos = _load_input(model, x, tokens)
    model_inputs = prepare_model_inputs(model, x, has_batch_axis)
    if inputs is not None and image_input is not None:
        raise OptionError("give inputs or image_input, not both")
    option, choice = ("image_input", image_input) if inputs is None else ("inputs", inputs)
    positions = None if choice is None else choose_positions(model, model_inputs, option, choice)
    explained = choose_explained_inputs(model, model_inputs, positions, embedding)
    tensors = tf.nest.flatten(model_inputs)
    samples = _count_samples(model_inputs)
    for entry in explained:
        if entry.embedding is None:
            tensors[entry.position] = _check_values(tensors[entry.position], entry.name)
    batch_inputs = tf.nest.pack_sequence_as(model_inputs, tensors)
    embedded = [entry for entry in explained if entry.embedding is not None]
    if embedded:
        paths = [str(entry.embedding) for entry in embedded]
        embeddings = compute_embeddings(model, batch_inputs, paths, batch_size)
        batch_inputs = [batch_inputs, *embeddings]
        for index, entry in enumerate(embedded):
            explained[explained.index(entry)] = entry._replace(position=len(tensors) + index)
    batch = ExplainedBatch(
        model,
        batch_inputs,
        tf.fill([samples], PREDICTED),
        ScoreReader(tuple(explained), bool(embedded)),
        batch_size,
        progress,
    )
    requests, rows = _make_output_requests(batch, target, labels, tokens)
    if pixels is not None and all(len(values.shape) != 4 for values in batch.explained_values):
        raise OptionError(
            "pixels are drawn under the maps of images, but the explained input is "
            f"{tuple(batch.values.shape)}"
        )
    explained_inputs = []
    for entry, values in zip(explained, batch.explained_values, strict=True):
        backdrop, token_names = None, None
        if entry.embedding is not None:
            position = next(item.position for item in embedded if item.name == entry.name)
            source = tensors[position]
            if source.shape.rank == 4 and (entry.grid is not None or len(values.shape) == 4):
                channels_first = find_input_data_format(model, position) == "channels_first"
                image = ExplainedTensor(entry.name, position, channels_first)
                backdrop = _make_backdrop(source, image, pixels, photos)
            elif source.shape.rank <= 2:
                token_names = name_tokens(
                    model, model_inputs, position, int(values.shape[1]), tokens
                )
        elif len(values.shape) == 2:
            token_names = _name_columns(columns, tokens, *values.shape)
        elif len(values.shape) == 4:
            backdrop = _make_backdrop(values, entry, pixels, photos)
        explained_inputs.append(
            ExplainedInput(
                entry,
                None if backdrop is None else backdrop.select(rows),
                None if token_names is None else [token_names[row] for row in rows],
            )
        )
    return ExplanationRequest(requests, tuple(explained_inputs), rows)


def prepare_targets(
    model: Any,
    model_inputs: Any,
    target: TargetLike = None,
    labels: Labels = None,
    batch_size: int = 32,
    tokens: Any = None,
) -> tuple[tuple[OutputRequest, ...], list[int]]:
    """Prepare the samples and targets of a computation that explains no input.

    Parameters
    ----------
    model_inputs
        The inputs, as `prepare_model_inputs` returns them.
    target, labels, batch_size, tokens
        As in `actgrid.explain`.

    Returns
    -------
    tuple
        A request for each output of the model that a target names, whose batch has no explained
        tensors; and the sample index of each target, in the order of `target`.
    """
    samples = _count_samples(model_inputs)
    no_classes = tensorflow().fill([samples], PREDICTED)
    batch = ExplainedBatch(model, model_inputs, no_classes, ScoreReader(()), batch_size)
    return _make_output_requests(batch, target, labels, tokens)


def _load_input(model: Any, x: ModelInput, tokens: Any) -> tuple[Any, Any, list[Photo]]:
    """Load files, images or texts as the model's input.

    Returns
    -------
    tuple
        The input, the names of its columns (None if they are not known), and the photos.
    """
    columns = getattr(x, "columns", None)  # of a pandas DataFrame
    if is_text(x, model, tokens):
        return encode_texts(cast("str | Sequence[str]", x), model, tokens), columns, []
    if (samples := load_samples(x, model, tokens)) is not None:
        return samples.batch, samples.features, []
    if are_images(x):
        sources = open_images(x)
        return load_images(sources, model=model), columns, load_photos(sources, model=model)
    return x, columns, []


def load_model_inputs(model: Any, x: ModelInput, tokens: Any = None) -> Any:
    """Load the input of an explanation, and return it as `prepare_model_inputs` does."""
    return prepare_model_inputs(model, _load_input(model, x, tokens)[0], has_batch_axis=False)


def _count_samples(model_inputs: Any) -> int:
    """Return the number of samples; raise ShapeError if it differs between the inputs."""
    tensors = tensorflow().nest.flatten(model_inputs)
    counts = [len(tensor) for tensor in tensors if tensor is not None]
    if len(set(counts)) > 1:
        raise ShapeError(f"the inputs must have the same number of samples: got {counts}")
    return counts[0]


def prepare_model_inputs(model: Any, x: Any, has_batch_axis: bool) -> Any:
    """Return the inputs with batch axes, and build the model if needed."""

    def prepare(single: bool) -> Any:
        with tensorflow().device("CPU"):  # only a batch at a time is moved to a GPU
            model_inputs = prepare_inputs(model, x, single=single)
        build_model(model, model_inputs)
        return model_inputs

    if has_batch_axis or read_input_specs(model) is not None:
        return prepare(not has_batch_axis)
    # An array of three axes is an image or sequences: a model whose inputs are not known tells.
    single = not is_buildable(get_network(model)) or _is_picture(x)
    try:
        return prepare(single)
    except ModelError as error:
        try:
            return prepare(not single)
        except ModelError:
            raise error from error.__cause__


def _is_picture(x: Any) -> bool:
    """Return whether an array has the shape and the dtype of the pixels of one image file."""
    shape: tuple[int, ...] = getattr(x, "shape", ())
    return len(shape) == 3 and shape[2] in MODES and np.asarray(x).dtype == np.uint8


def _check_values(tensor: Any, name: str) -> Any:
    """Return an explained input as float32; raise an error if it cannot be explained."""
    tf = tensorflow()
    if not is_real_dtype(tensor.dtype):
        raise DtypeError(f"explained inputs must be real numbers, not {tensor.dtype.name} ({name})")
    with tf.device("CPU"):
        # Integer tensors have no gradients and cannot be interpolated.
        tensor = tf.cast(tensor, tf.float32)
        is_finite = bool(tf.reduce_all(tf.math.is_finite(tensor)))
    if 0 in tensor.shape:
        raise ShapeError(f"explained inputs must not be empty: got shape {tuple(tensor.shape)}")
    if not is_finite:
        raise OptionError("explained inputs must be finite: got NaN or infinite values")
    return tensor


def _name_columns(
    columns: Any, tokens: Any, samples: int, count: int
) -> list[tuple[str, ...]] | None:
    """Return the names of the columns of a table for each sample; None if they are not known."""
    names = columns if tokens is None else tokens
    if names is None or isinstance(names, (str, Mapping)) or not hasattr(names, "__len__"):
        return None
    row = tuple(map(str, names))
    if len(row) != count:
        if tokens is None:
            return None
        raise ShapeError(f"tokens must name the {count} columns of the table: got {len(row)}")
    return [row] * samples


def _make_backdrop(
    values: Any, explained: ExplainedTensor, pixels: Any, photos: list[Photo]
) -> Backdrop | None:
    """Return the pictures that the maps of an image input are drawn over."""
    if pixels is not None:
        return make_backdrop(pixels, len(values))
    if photos:
        return make_photo_backdrop(photos)
    array = np.asarray(values)
    pictures = to_pictures(np.moveaxis(array, 1, -1) if explained.channels_first else array)
    return None if pictures is None else Backdrop(pictures, None)


def _make_output_requests(
    batch: ExplainedBatch, target: TargetLike, labels: Labels, tokens: Any
) -> tuple[tuple[OutputRequest, ...], list[int]]:
    """Split a batch into one request for each explained output or target function.

    Return the requests, and the sample index of each map in the order of the option `target`.
    """
    model = batch.model
    model_inputs = batch.reader.get_model_inputs(batch.inputs)
    # Subclassed models are traced for the names of their outputs, only if the names are needed.
    needs_names = isinstance(labels, Mapping) or may_name_outputs(target)
    if needs_names or hasattr(model, "_outputs_struct"):
        names = list_output_names(model, get_output_specs(model, model_inputs))
    else:
        names = ["output"]
    if "token" not in names:
        target = convert_token_target(target, tokens)
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


def _list_zero_reasons(attributions: Sequence[BatchAttribution]) -> list[str | None]:
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


def _make_attribution(
    parts: Sequence[_Part],
    index: int,
    order: npt.NDArray[np.intp],
    explained_input: ExplainedInput,
    method: str,
    zero_reasons: Sequence[str | None],
) -> Attribution:
    """Combine the attributions of batches of samples to one attribution.

    Parameters
    ----------
    parts
        The attributions of one explained tensor.
    index
        Index of the explained tensor.
    order
        (N,) indices that sort the concatenated maps.
    explained_input
        Description of the explained tensor.
    zero_reasons
        Reasons for maps that are zero everywhere, in the order of `parts`.
    """
    attributions = [part.attribution for part in parts]
    first = attributions[0]
    shapes = {
        part.values.shape[1:]: f"{part.layer} {part.values.shape[1:]}" for part in attributions
    }
    if len(shapes) > 1:
        raise ShapeError(
            f"maps of several outputs must have one size: got {', '.join(shapes.values())}; choose "
            "one layer, or explain one output at a time"
        )
    names = [
        name for request, _, part in parts for name in request.name_targets(part.target_scores)
    ]
    is_named = any(
        request.get_class_names(part.target_scores) is not None for request, _, part in parts
    )
    details: dict[str, list[Any]] = {
        name: [entry for part in attributions for entry in part.details[name]]
        for name in first.details
    }
    if any(zero_reasons):
        details["zero_reason"] = list(zero_reasons)
    if parts[0].request.output_name is not None:
        details["output"] = [request.output_name for request, _, part in parts for _ in part.values]
    layout = parts[0].batch.get_layouts()[index]
    axes = layout.names if first.axes is None else first.axes
    if explained_input.tensor.embedding is not None and axes[0] == "time":
        axes = ("token", *axes[1:])
    maps = np.concatenate([part.values for part in attributions])[order]
    grid = explained_input.tensor.grid
    if grid is not None and axes[0] == "token" and maps.shape[1] == grid.tokens:
        maps = maps[:, grid.patches].reshape(len(maps), *grid[:2], *maps.shape[2:])
        axes = ("height", "width", *axes[1:])
    drawing: dict[str, Any] = {"names": explained_input.names}
    if axes == ("height", "width"):
        drawing = {
            "images": None if explained_input.backdrop is None else explained_input.backdrop.images,
            "boxes": None if explained_input.backdrop is None else explained_input.backdrop.boxes,
        }
    elif axes == ("token",):
        # The maps of a layer may be shorter than the text; each value belongs to a token.
        count = parts[0].batch.explained_values[index].shape[1]
        maps = np.asarray(resize_linearly(tensorflow().constant(maps), (count,)))
    elif explained_input.tensor.embedding is None:
        values = np.concatenate([np.asarray(part.batch.explained_values[index]) for part in parts])[
            order
        ]
        is_table = layout.channel_axis is None
        drawing["inputs"] = values if is_table else layout.to_channels_last(values)
    return make_attribution(
        maps,
        axes,
        **drawing,
        target=(
            np.concatenate([part.target_scores.classes for part in attributions])[order]
            if any(part.target_scores.count for part in attributions)
            else None
        ),
        labels=[names[index] for index in order] if is_named else None,
        score=np.concatenate([part.target_scores.scores for part in attributions])[order],
        signed=first.signed,
        method=method,
        layer=", ".join(dict.fromkeys(part.layer for part in attributions)) or None,
        is_logit=all(bool(part.target_scores.is_logit) for part in attributions),
        details={name: [entries[index] for index in order] for name, entries in details.items()},
    )
