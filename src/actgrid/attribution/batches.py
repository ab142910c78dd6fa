"""Images, their model and target classes, as attribution methods take them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.compiled import Body, compiled
from actgrid.attribution.outputs import Evidence
from actgrid.attribution.scores import Score, TargetScores, read
from actgrid.attribution.targets import check_classes
from actgrid.errors import OptionError, ShapeError
from actgrid.models.calls import Call
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import map_tensors
from actgrid.models.networks import trace_network
from actgrid.models.tracing import unchanged

__all__ = [
    "Attribution",
    "ExplainedBatch",
    "ScoreReader",
    "SymbolicRun",
    "baseline_rows",
    "image_rows",
    "row_numbers",
]

_BASELINES = "baseline must be a number, one for each channel, 'mean', or an image"


class SymbolicRun(NamedTuple):
    """A model's run on symbolic inputs: `outputs` are all its output tensors."""

    image: Any
    outputs: list[Any]
    target_scores: TargetScores
    calls: list[Call]


@dataclass(frozen=True)
class ScoreReader:
    """How a model is run and read.

    Attributes
    ----------
    image
        Which of its inputs is the image, in the order of TensorFlow's nests. Methods that need
        no height and width take a sequence (N, T, C) or a volume (N, D, H, W, C) in its place.
    channels_first
        Whether that is (N, C, ...).
    score
        A function that computes the scores from the output; None: the scores of classes.
    head
        Position of the output that is read; None: the only one.
    evidence
        What tells that an output of one value is one of two classes.
    output
        The name of the output, if the model has several.
    """

    image: int
    channels_first: bool
    score: Score | None
    head: int | None = None
    evidence: Evidence = None
    output: str | None = None

    @property
    def channel_axis(self) -> int:
        """The image's axis of channels."""
        return 1 if self.channels_first else -1

    @property
    def spatial(self) -> slice:
        """The image's axes between samples and channels."""
        return slice(2, None) if self.channels_first else slice(1, -1)

    def with_image(self, inputs: Any, image: Any) -> Any:
        """Return inputs with another image."""
        nest = tensorflow().nest
        tensors = nest.flatten(inputs)
        tensors[self.image] = image
        return nest.pack_sequence_as(inputs, tensors)

    def image_of(self, inputs: Any) -> Any:
        """Return the image of inputs."""
        return tensorflow().nest.flatten(inputs)[self.image]

    def run(self, model: Any, inputs: Any, target_classes: Any) -> SymbolicRun:
        """Run a model on symbolic inputs and read its output; its state stays as it is."""
        with unchanged():
            trace = trace_network(model, inputs)
        return SymbolicRun(
            self.image_of(inputs),
            tensorflow().nest.flatten(trace.outputs),
            read(
                model, inputs, trace.outputs, target_classes, self.score, self.head, self.evidence
            ),
            trace.calls,
        )


@dataclass(frozen=True)
class _ReadScores:
    """Only the scores."""

    reader: ScoreReader

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> TargetScores:
        return self.reader.run(model, inputs, target_classes).target_scores


@dataclass(frozen=True, eq=False)
class ExplainedBatch:
    """A batch of images, the model that takes them, and the class to explain for each.

    Attributes
    ----------
    inputs
        The model's inputs, tensors of N samples each.
    target_classes
        (N,) int32, the class of each image to explain, -1 for the predicted one.
    batch_size
        How many images the model is run on at once, at most.
    progress
        Called before each run of the model, and between other steps that take long, with the
        numbers of finished samples and of all samples of this pass. What it raises ends the
        computation.
    """

    model: Any
    inputs: Any
    target_classes: Any
    reader: ScoreReader
    batch_size: int
    progress: Callable[[int, int], object] | None = None

    def __len__(self) -> int:
        return int(self.image.shape[0])

    @property
    def image(self) -> Any:
        """The input that is explained, a tensor."""
        return self.reader.image_of(self.inputs)

    @property
    def sides(self) -> tuple[int, ...]:
        """Lengths of the image's spatial axes: height and width."""
        return tuple(self.image.shape[self.reader.spatial])

    def groups(self) -> Iterator[ExplainedBatch]:
        """Yield at most `batch_size` images at a time."""
        for start in range(0, len(self), self.batch_size):
            part = slice(start, start + self.batch_size)
            with tensorflow().device("CPU"):  # or all would go where the model runs
                inputs = map_tensors(itemgetter(part), self.inputs)
            yield replace(self, inputs=inputs, target_classes=self.target_classes[part])

    def run(self, body: Body, *arguments: Any) -> Any:
        """Run a body, compiled, on all images."""
        self.report(0, len(self))
        return compiled(self.model, body)(self.inputs, self.target_classes, *arguments)

    def run_samples(self, body: Body, samples: int, *arguments: Any) -> Iterator[Any]:
        """Run a body on every sample of every image, `batch_size` of them at once.

        Yields
        ------
        structure
            What the body gives for the next rows, all samples of an image before the next image.
            The body takes ``(model, inputs, target_classes, image, sample, *arguments)``: the
            inputs and classes of all images, and the image and the sample of each row, see
            `image_rows`.
        """
        tf = tensorflow()
        total = len(self) * samples
        function = compiled(self.model, body)
        for start in range(0, total, self.batch_size):
            rows = tf.range(start, min(start + self.batch_size, total))
            image, sample = rows // samples, rows % samples
            self.report(start, total)
            yield function(self.inputs, self.target_classes, image, sample, *arguments)

    def report(self, done: int, total: int) -> None:
        """Report progress; raise what the receiver raises to end the computation."""
        if self.progress is not None:
            self.progress(done, total)

    def read(self) -> TargetScores:
        """Return what the model says of the images as they are, in NumPy's arrays; checked."""
        return self.check_scores(self.run(_ReadScores(self.reader)))

    def rows(self, images: Sequence[int], target_classes: Any) -> ExplainedBatch:
        """Return the same of some of the images, which may come several times."""
        with tensorflow().device("CPU"):
            inputs = self.inputs
            if list(images) != list(range(len(self))):
                inputs = image_rows(inputs, images)
            return replace(
                self, inputs=inputs, target_classes=tensorflow().constant(target_classes)
            )

    def with_image(self, image: Any) -> ExplainedBatch:
        """Return the same with another image."""
        return replace(self, inputs=self.reader.with_image(self.inputs, image))

    def check_scores(self, target_scores: TargetScores) -> TargetScores:
        """Return target scores as NumPy arrays, checked.

        Raises
        ------
        TargetError
            If a target class is none of the model's.
        ShapeError
            If there is not one score for each image.
        """
        found = TargetScores(*(np.asarray(tensor) for tensor in target_scores))
        if len(found.scores) != len(self):
            raise ShapeError(
                f"there must be one score for each of {len(self)} images, not {len(found.scores)}"
            )
        if self.reader.score is None:
            check_classes(np.asarray(self.target_classes), int(found.count), self.reader.output)
        return found

    def with_classes_of(self, target_scores: TargetScores) -> ExplainedBatch:
        """Return the batch with fixed classes, as other images may have other predicted classes."""
        return replace(self, target_classes=tensorflow().constant(target_scores.classes))

    def baseline(self, value: Any) -> Any:
        """Return what stands for nothing, a tensor to be broadcast over the images: N or 1 of it.

        Parameters
        ----------
        value
            A number or one for each channel, in the model's units; ``"mean"``, each image's mean
            colour; an image or one for each image.

        Raises
        ------
        OptionError, ShapeError
            If it is none of these.
        """
        tf = tensorflow()
        shape = tuple(self.image.shape)
        if isinstance(value, str):
            if value != "mean":
                raise OptionError(f"{_BASELINES}, not {value!r}")
            spatial = range(len(shape))[self.reader.spatial]
            return tf.reduce_mean(self.image, list(spatial), keepdims=True)
        try:
            array = np.asarray(value, np.float32)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if not np.isfinite(array).all():
            raise OptionError(f"{_BASELINES}, all of them finite, not {value!r}")
        if array.ndim == 1 and self.reader.channels_first:
            array = array.reshape(-1, *(1,) * (len(shape) - 2))
        array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
        try:
            fits = np.broadcast_shapes(array.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"a baseline of {np.shape(value)} does not fit images of {shape}")
        return tf.constant(array)


class Attribution(NamedTuple):
    """What a method says of some images.

    Attributes
    ----------
    values
        (N, H, W) float32.
    target_scores
        The scores of the images.
    signed
        Whether values below zero speak against the target.
    layer
        Path of the layer that was looked at; "" for the input.
    details
        Further results, with an entry for each image.
    zero_reasons
        Why the map of each image would be zero everywhere; empty: because of the gradient.
    """

    values: npt.NDArray[np.float32]
    target_scores: TargetScores
    signed: bool = False
    layer: str = ""
    details: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    zero_reasons: Sequence[str] = ()


def image_rows(tensors: Any, image: Any) -> Any:
    """Return of a structure of tensors of N images the rows of these images."""
    return map_tensors(lambda tensor: tensorflow().gather(tensor, image), tensors)


def row_numbers(numbers: Any, tensor: Any) -> Any:
    """Return one number for each row of a tensor, (rows,), to be broadcast over the row."""
    return tensorflow().reshape(numbers, (-1, *(1,) * (tensor.shape.rank - 1)))


def baseline_rows(baseline: Any, image: Any) -> Any:
    """Return the row of `ExplainedBatch.baseline` for each image, or its only row."""
    tf = tensorflow()
    return tf.gather(baseline, tf.minimum(image, tf.shape(baseline)[0] - 1))
