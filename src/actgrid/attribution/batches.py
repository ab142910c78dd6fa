"""Batches of samples with model and targets: the input of attribution methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actgrid.attribution.explained_tensors import ExplainedTensor, ValueLayout, make_baseline
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
    "BatchAttribution",
    "ExplainedBatch",
    "ScoreReader",
    "SymbolicRun",
    "expand_to_rank",
    "gather_baseline",
    "gather_rows",
]


class SymbolicRun(NamedTuple):
    """Symbolic tensors of one run of a model.

    Attributes
    ----------
    explained
        The explained tensors.
    outputs
        All output tensors of the model.
    target_scores
        The scores of the targets.
    calls
        The layer calls of the run, in order.
    """

    explained: list[Any]
    outputs: list[Any]
    target_scores: TargetScores
    calls: list[Call]


@dataclass(frozen=True)
class ScoreReader:
    """Runs a model on symbolic inputs and computes target scores from its output.

    Attributes
    ----------
    explained
        The tensors that are explained. Methods that explain one tensor explain the first.
    has_embeddings
        Whether the inputs of the batch are a list of the model inputs and outputs of embeddings.
    score
        Function that computes the scores from the output; None: the scores of classes.
    output_index
        Index of the output that is read; None: the only output.
    evidence
        Evidence that an output of one value stands for two classes, see `BinaryEvidence`.
    output_name
        Name of the output; None if the model has only one.
    """

    explained: tuple[ExplainedTensor, ...]
    has_embeddings: bool = False
    score: Score | None = None
    output_index: int | None = None
    evidence: BinaryEvidence = None
    output_name: str | None = None

    def get_explained(self, inputs: Any) -> list[Any]:
        """Return the explained tensors among the inputs of a batch."""
        tensors = tensorflow().nest.flatten(inputs)
        return [tensors[explained.position] for explained in self.explained]

    def replace_explained(self, inputs: Any, values: Sequence[Any]) -> Any:
        """Return a copy of the inputs of a batch with other explained tensors."""
        nest = tensorflow().nest
        tensors = nest.flatten(inputs)
        for explained, value in zip(self.explained, values, strict=True):
            tensors[explained.position] = value
        return nest.pack_sequence_as(inputs, tensors)

    def get_layouts(self, inputs: Any) -> list[ValueLayout]:
        """Return the axes of each explained tensor among the inputs of a batch."""
        pairs = zip(self.get_explained(inputs), self.explained, strict=True)
        return [
            ValueLayout(tensor.shape.rank, explained.channels_first) for tensor, explained in pairs
        ]

    def get_model_inputs(self, inputs: Any) -> Any:
        """Return the inputs of the model among the inputs of a batch."""
        return inputs[0] if self.has_embeddings else inputs

    def run(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        replacements: Mapping[str, Any] | None = None,
        layers: Sequence[str] = (),
    ) -> SymbolicRun:
        """Run a model on symbolic inputs and score its output, without changing its state.

        Parameters
        ----------
        replacements
            Layer path -> tensor that replaces this output of a layer call, or function of the
            output that returns this tensor.
        layers
            Paths of the layers that are recorded, if TensorFlow cannot trace the model.
        """
        tensors = self.get_explained(inputs)
        embeddings = {
            explained.embedding: tensor
            for explained, tensor in zip(self.explained, tensors, strict=True)
            if explained.embedding is not None
        }
        model_inputs = self.get_model_inputs(inputs)
        with keep_state():
            trace = trace_network(
                model, model_inputs, {**embeddings, **(replacements or {})}, layers
            )
        return SymbolicRun(
            tensors,
            tensorflow().nest.flatten(trace.outputs),
            read_target_scores(
                model,
                model_inputs,
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
    """Function that computes the target scores of samples."""

    reader: ScoreReader

    def __call__(self, model: Any, inputs: Any, target_classes: Any) -> TargetScores:
        return self.reader.run(model, inputs, target_classes).target_scores


@dataclass(frozen=True, eq=False)
class ExplainedBatch:
    """A batch of samples, their model, and the class to explain for each sample.

    A sample is an image, a sequence, a volume or a row of a table.

    Attributes
    ----------
    model
        The model that is explained.
    inputs
        Structure of the model's input tensors, of N samples each. If outputs of embeddings are
        explained: a list of this structure and of these outputs.
    target_classes
        (N,) int32: the class to explain for each sample, -1 for the predicted class.
    reader
        Computes the target scores.
    batch_size
        Maximum number of samples in one run of the model.
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
        return int(self.target_classes.shape[0])

    @property
    def explained_values(self) -> list[Any]:
        """The explained tensors, float32, of N samples each."""
        return self.reader.get_explained(self.inputs)

    @property
    def values(self) -> Any:
        """The first explained tensor."""
        return self.explained_values[0]

    @property
    def layout(self) -> ValueLayout:
        """The axes of the first explained tensor."""
        return self.get_layouts()[0]

    def get_layouts(self) -> list[ValueLayout]:
        """Return the axes of each explained tensor."""
        return self.reader.get_layouts(self.inputs)

    @property
    def sides(self) -> tuple[int, ...]:
        """Lengths of the first explained tensor's axes, such as (height, width)."""
        return tuple(self.values.shape[self.layout.spatial_slice])

    def split(self) -> Iterator[ExplainedBatch]:
        """Yield consecutive parts of the batch with at most `batch_size` images each."""
        for start in range(0, len(self), self.batch_size):
            part = slice(start, start + self.batch_size)
            with tensorflow().device("CPU"):  # the whole batch may not fit on the GPU
                inputs = map_tensors(itemgetter(part), self.inputs)
            yield replace(self, inputs=inputs, target_classes=self.target_classes[part])

    def split_explained(self) -> Iterator[ExplainedBatch]:
        """Yield the batch once for each explained tensor, which is then the only one."""
        for explained in self.reader.explained:
            yield replace(self, reader=replace(self.reader, explained=(explained,)))

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

    def with_values(self, *values: Any) -> ExplainedBatch:
        """Return a copy of the batch with other explained tensors."""
        return replace(self, inputs=self.reader.replace_explained(self.inputs, values))

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
        """Convert the option `baseline` to a tensor that broadcasts over the first tensor.

        See `make_baselines`.
        """
        return self.make_baselines(value)[0]

    def make_baselines(self, value: Any) -> list[Any]:
        """Convert the option `baseline` to a tensor for each explained tensor.

        Parameters
        ----------
        value
            A number or one number for each channel, in the model's units; ``"mean"``: the mean of
            each sample over its positions, 0 for a table, which has no positions; one input, or one
            for each sample. For several explained tensors, a dict of these by name is possible.

        Returns
        -------
        list of tensor
            Float32 tensors that broadcast over the explained tensors, with N or 1 rows.

        Raises
        ------
        OptionError
            If the value is not numeric and not ``"mean"``, or is not finite.
        ShapeError
            If the value cannot be broadcast to an explained tensor.
        """
        names = [explained.name for explained in self.reader.explained]
        values = [value] * len(names)
        if isinstance(value, Mapping):
            if set(value) != set(names):
                raise OptionError(
                    f"baseline must have an entry for each explained input, {', '.join(names)}, "
                    f"not {', '.join(map(str, value))}"
                )
            values = [value[name] for name in names]
        return [
            make_baseline(entry, tensor, layout)
            for entry, tensor, layout in zip(
                values, self.explained_values, self.get_layouts(), strict=True
            )
        ]


class BatchAttribution(NamedTuple):
    """Attribution maps of a batch of samples, computed by one method.

    Attributes
    ----------
    values
        Float32 maps of N samples, with the axes that `axes` names.
    target_scores
        Target scores of the samples.
    axes
        Names of the axes of a map; None: those of the explained tensor, see `ValueLayout.names`.
    signed
        Whether values below zero contribute against the target.
    layer
        Path of the layer whose activations were used; "" for the model's input.
    details
        Further results by name, with an entry for each sample.
    zero_reasons
        Reason that each map would be zero everywhere, for warnings; empty: the gradient is zero.
    """

    values: npt.NDArray[np.float32]
    target_scores: TargetScores
    axes: tuple[str, ...] | None = None
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


def gather_baseline(baseline: Any, rows: Any) -> Any:
    """Return the baseline of each sample index. A single baseline is used for all."""
    tf = tensorflow()
    return tf.gather(baseline, tf.minimum(rows, tf.shape(baseline)[0] - 1))
