"""Batches of images with model and targets: the input of attribution methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.outputs import BinaryEvidence
from actgrid.attribution.scores import Score, TargetScores, read_target_scores
from actgrid.attribution.targets import check_classes
from actgrid.errors import OptionError, ShapeError
from actgrid.models.calls import Call
from actgrid.models.compiled import Body, compile_function
from actgrid.models.frameworks import tensorflow
from actgrid.models.inputs import map_tensors
from actgrid.models.networks import trace_network
from actgrid.models.tracing import keep_state

__all__ = [
    "Attribution",
    "ExplainedBatch",
    "ScoreReader",
    "SymbolicRun",
    "expand_to_rank",
    "gather_baseline",
    "gather_rows",
]

_BASELINES = "baseline must be a number, one number for each channel, 'mean', or an image"


class SymbolicRun(NamedTuple):
    """Symbolic tensors of one run of a model.

    Attributes
    ----------
    image
        The explained input.
    outputs
        All output tensors of the model.
    target_scores
        The scores of the targets.
    calls
        The layer calls of the run, in order.
    """

    image: Any
    outputs: list[Any]
    target_scores: TargetScores
    calls: list[Call]


@dataclass(frozen=True)
class ScoreReader:
    """Runs a model on symbolic inputs and computes target scores from its output.

    Attributes
    ----------
    image_index
        Index of the image among the flattened inputs of the model (order of `tf.nest.flatten`).
        Methods that need no height and width also take a sequence (N, T, C) or a volume
        (N, D, H, W, C) as the image.
    channels_first
        Whether the image is (N, C, ...).
    score
        Function that computes the scores from the output; None: the scores of classes.
    output_index
        Index of the output that is read; None: the only output.
    evidence
        Evidence that an output of one value stands for two classes, see `BinaryEvidence`.
    output_name
        Name of the output; None if the model has only one.
    """

    image_index: int
    channels_first: bool
    score: Score | None
    output_index: int | None = None
    evidence: BinaryEvidence = None
    output_name: str | None = None

    @property
    def channel_axis(self) -> int:
        """Axis of the image's channels: 1 or -1."""
        return 1 if self.channels_first else -1

    @property
    def spatial_slice(self) -> slice:
        """Slice of the image's shape that has its spatial axes."""
        return slice(2, None) if self.channels_first else slice(1, -1)

    def with_image(self, inputs: Any, image: Any) -> Any:
        """Return a copy of a model's inputs with another image tensor."""
        nest = tensorflow().nest
        tensors = nest.flatten(inputs)
        tensors[self.image_index] = image
        return nest.pack_sequence_as(inputs, tensors)

    def get_image(self, inputs: Any) -> Any:
        """Return the image tensor among a model's inputs."""
        return tensorflow().nest.flatten(inputs)[self.image_index]

    def run(self, model: Any, inputs: Any, target_classes: Any) -> SymbolicRun:
        """Run a model on symbolic inputs and score its output, without changing its state."""
        with keep_state():
            trace = trace_network(model, inputs)
        return SymbolicRun(
            self.get_image(inputs),
            tensorflow().nest.flatten(trace.outputs),
            read_target_scores(
                model,
                inputs,
                trace.outputs,
                target_classes,
                self.score,
                self.output_index,
                self.evidence,
            ),
            trace.calls,
        )


@dataclass(frozen=True)
class _ScoreFunction:
    """Function that computes the target scores of images."""

    reader: ScoreReader

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> TargetScores:
        return self.reader.run(model, inputs, target_classes).target_scores


@dataclass(frozen=True, eq=False)
class ExplainedBatch:
    """A batch of images, their model, and the class to explain for each image.

    Attributes
    ----------
    model
        The model that is explained.
    inputs
        Structure of the model's input tensors, of N samples each.
    target_classes
        (N,) int32: the class to explain for each image, -1 for the predicted class.
    reader
        Computes the target scores.
    batch_size
        Maximum number of images in one run of the model.
    progress
        Callback ``progress(done, total)`` with the numbers of finished and of all samples of the
        current pass. It is called before each run of the model and between other slow steps. An
        exception that it raises ends the computation.
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
        """Tensor of the N images that are explained."""
        return self.reader.get_image(self.inputs)

    @property
    def sides(self) -> tuple[int, ...]:
        """Lengths of the image's spatial axes, (height, width) for 2-D images."""
        return tuple(self.image.shape[self.reader.spatial_slice])

    def split(self) -> Iterator[ExplainedBatch]:
        """Yield consecutive parts of the batch with at most `batch_size` images each."""
        for start in range(0, len(self), self.batch_size):
            part = slice(start, start + self.batch_size)
            with tensorflow().device("CPU"):  # the whole batch may not fit on the GPU
                inputs = map_tensors(itemgetter(part), self.inputs)
            yield replace(self, inputs=inputs, target_classes=self.target_classes[part])

    def run(self, body: Body, *arguments: Any) -> Any:
        """Compile a function of the model, run it on all images, and return its result."""
        self.report(0, len(self))
        return compile_function(self.model, body)(self.inputs, self.target_classes, *arguments)

    def run_samples(self, body: Body, samples: int, *arguments: Any) -> Iterator[Any]:
        """Run a compiled function on `samples` variants of every image, batch by batch.

        Parameters
        ----------
        body
            Called as ``body(model, inputs, target_classes, image, sample, *arguments)``, with
            the inputs and classes of all images, and the image index and the sample index of each
            row of the current batch, both (rows,) int32; see `gather_rows`.
        samples
            Number of samples of each image.

        Yields
        ------
        structure
            Result of `body` for the next rows. All samples of an image precede the next image.
        """
        tf = tensorflow()
        total = len(self) * samples
        function = compile_function(self.model, body)
        for start in range(0, total, self.batch_size):
            rows = tf.range(start, min(start + self.batch_size, total))
            image, sample = rows // samples, rows % samples
            self.report(start, total)
            yield function(self.inputs, self.target_classes, image, sample, *arguments)

    def report(self, done: int, total: int) -> None:
        """Call the progress callback, which may raise an exception to end the computation."""
        if self.progress is not None:
            self.progress(done, total)

    def compute_scores(self) -> TargetScores:
        """Run the model on the unmodified images; return checked scores as NumPy arrays."""
        return self.check_scores(self.run(_ScoreFunction(self.reader)))

    def select(self, indices: Sequence[int], target_classes: Any) -> ExplainedBatch:
        """Return a batch of the images at the given indices, which may repeat."""
        with tensorflow().device("CPU"):
            inputs = self.inputs
            if list(indices) != list(range(len(self))):
                inputs = gather_rows(inputs, indices)
            return replace(
                self, inputs=inputs, target_classes=tensorflow().constant(target_classes)
            )

    def with_image(self, image: Any) -> ExplainedBatch:
        """Return a copy of the batch with other images."""
        return replace(self, inputs=self.reader.with_image(self.inputs, image))

    def check_scores(self, target_scores: TargetScores) -> TargetScores:
        """Check target scores and convert them to NumPy arrays.

        Raises
        ------
        TargetError
            If the model has no such target class.
        ShapeError
            If the number of scores is not the number of images.
        """
        arrays = TargetScores(*(np.asarray(tensor) for tensor in target_scores))
        if len(arrays.scores) != len(self):
            raise ShapeError(
                f"target must give one score for each image: got {len(arrays.scores)} scores for "
                f"{len(self)} images"
            )
        if self.reader.score is None:
            classes = np.asarray(self.target_classes)
            check_classes(classes, int(arrays.count), self.reader.output_name)
        return arrays

    def with_classes_of(self, target_scores: TargetScores) -> ExplainedBatch:
        """Return the batch with its target classes set to the classes of `target_scores`.

        Modified images, such as masked ones, may have other predicted classes.
        """
        return replace(self, target_classes=tensorflow().constant(target_scores.classes))

    def make_baseline(self, value: Any) -> Any:
        """Convert the option `baseline` to a tensor that broadcasts over the images.

        Parameters
        ----------
        value
            A number or one number for each channel, in the model's units; ``"mean"``: each image's
            mean colour; one image, or one image for each image of the batch.

        Returns
        -------
        tensor
            Float32 of the image's rank, with N or 1 rows.

        Raises
        ------
        OptionError
            If the value is not numeric and not ``"mean"``, or is not finite.
        ShapeError
            If the value cannot be broadcast to the images.
        """
        tf = tensorflow()
        shape = tuple(self.image.shape)
        if isinstance(value, str):
            if value != "mean":
                raise OptionError(f"{_BASELINES}, not {value!r}")
            spatial = range(len(shape))[self.reader.spatial_slice]
            return tf.reduce_mean(self.image, list(spatial), keepdims=True)
        try:
            array = np.asarray(value, np.float32)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if not np.isfinite(array).all():
            raise OptionError(f"{_BASELINES}, and finite, not {value!r}")
        if array.ndim == 1 and self.reader.channels_first:
            array = array.reshape(-1, *(1,) * (len(shape) - 2))
        array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
        try:
            fits = np.broadcast_shapes(array.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(
                f"baseline of shape {np.shape(value)} does not broadcast to images of {shape}"
            )
        return tf.constant(array)


class Attribution(NamedTuple):
    """Attribution maps of a batch of images, computed by one method.

    Attributes
    ----------
    values
        (N, H, W) float32 maps.
    target_scores
        Target scores of the images.
    signed
        Whether values below zero contribute against the target.
    layer
        Path of the layer whose activations were used; "" for the model's input.
    details
        Further results by name, with an entry for each image.
    zero_reasons
        Reason that each map would be zero everywhere, for warnings; empty: the gradient is zero.
    """

    values: npt.NDArray[np.float32]
    target_scores: TargetScores
    signed: bool = False
    layer: str = ""
    details: dict[str, Any] = {}  # noqa: RUF012  (never mutated)
    zero_reasons: Sequence[str] = ()


def gather_rows(tensors: Any, indices: Any) -> Any:
    """Gather rows by index from each tensor of a structure."""
    return map_tensors(lambda tensor: tensorflow().gather(tensor, indices), tensors)


def expand_to_rank(values: Any, tensor: Any) -> Any:
    """Reshape values (rows,) to (rows, 1, ...), for broadcasting with a tensor."""
    return tensorflow().reshape(values, (-1, *(1,) * (tensor.shape.rank - 1)))


def gather_baseline(baseline: Any, image: Any) -> Any:
    """Return the baseline of each image index. A single baseline is used for all."""
    tf = tensorflow()
    return tf.gather(baseline, tf.minimum(image, tf.shape(baseline)[0] - 1))
