"""Attribution methods that average gradients between background samples and the input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actgrid.attribution.batches import (
    BatchAttribution,
    ExplainedBatch,
    ScoreReader,
    expand_to_rank,
    gather_rows,
)
from actgrid.attribution.input_gradients import (
    SEED_LIMIT,
    Reduction,
    add_noise,
    differentiate,
    reduce_channels,
)
from actgrid.attribution.method import method
from actgrid.errors import OptionError, ShapeError
from actgrid.models.array_files import read_npy
from actgrid.models.frameworks import tensorflow

__all__ = ["expected_gradients", "gradient_shap"]


@dataclass(frozen=True)
class _ExpectedGradientFunction:
    """Function that sums gradient times difference over points between input and background.

    Attributes
    ----------
    has_noise
        Whether noise is added to the input before the points are chosen.
    """

    reader: ScoreReader
    has_noise: bool

    def __call__(
        self,
        model: Any,
        inputs: Any,
        target_classes: Any,
        row: Any,
        sample: Any,
        backgrounds: Any,
        choices: Any,
        fractions: Any,
        noise: Any,
    ) -> list[Any]:
        tf = tensorflow()
        count = tf.shape(target_classes)[0]
        inputs, target_classes = gather_rows((inputs, target_classes), row)
        samples, differences = [], []
        for index, values in enumerate(self.reader.get_explained(inputs)):
            background = tf.gather(backgrounds[index], tf.gather(choices, sample))
            differences.append(values - background)
            end = values
            if self.has_noise:
                end = add_noise(values, None, sample, noise, index * SEED_LIMIT)
            fraction = expand_to_rank(tf.gather(fractions, sample), values)
            point = background + fraction * (end - background)
            samples.append(tf.ensure_shape(point, values.shape))
        inputs = self.reader.replace_explained(inputs, samples)
        run = self.reader.run(model, inputs, target_classes)
        gradients = differentiate(run.target_scores.scores, samples)
        return [
            tf.math.unsorted_segment_sum(gradient * difference, row, count)
            for gradient, difference in zip(gradients, differences, strict=True)
        ]


def _make_backgrounds(value: Any, batch: ExplainedBatch) -> list[Any]:
    """Convert the option `background` to arrays (B, ...) of each explained tensor.

    Raises
    ------
    OptionError
        If the value is not numeric and finite, or has no entry for an explained tensor.
    ShapeError
        If the samples do not have the shape of the input, or their numbers differ.
    """
    names = [explained.name for explained in batch.reader.explained]
    shapes = [tuple(values.shape[1:]) for values in batch.explained_values]
    if value is None:
        return [np.zeros((1, *shape), np.float32) for shape in shapes]
    if isinstance(value, (str, Path)):
        value = read_npy(Path(value))
    if isinstance(value, Mapping):
        if set(value) != set(names):
            raise OptionError(
                f"background must have an entry for each explained input, {', '.join(names)}, "
                f"not {', '.join(map(str, value))}"
            )
        entries = [value[name] for name in names]
    elif len(names) > 1:
        raise OptionError(
            f"background must be a dict with samples of each explained input, {', '.join(names)}"
        )
    else:
        entries = [value]
    arrays = []
    for entry, shape in zip(entries, shapes, strict=True):
        try:
            array = np.asarray(entry, np.float32)
        except (TypeError, ValueError):
            array = np.array(np.nan)
        if not np.isfinite(array).all():
            raise OptionError(f"background must be finite numbers, not {entry!r}")
        array = array[None] if array.shape == shape else array
        if array.shape[1:] != shape or not len(array):
            raise ShapeError(
                f"background must be samples of shape {shape}, with an axis of samples before: got "
                f"{array.shape}"
            )
        arrays.append(array)
    if len({len(array) for array in arrays}) > 1:
        raise ShapeError(
            "background must have one number of samples for all inputs: got "
            f"{', '.join(str(len(array)) for array in arrays)}"
        )
    return arrays


def _average(
    batch: ExplainedBatch, background: Any, samples: int, noise: float, seed: int, reduce: str
) -> list[BatchAttribution]:
    """Average gradient times difference over random points between background and input.

    Points and background samples are stratified: each of equal parts of the path has one point, and
    all background samples are used equally often, up to one time.
    """
    tf = tensorflow()
    backgrounds = _make_backgrounds(background, batch)
    count = len(backgrounds[0])
    random = np.random.default_rng(seed)
    fractions = (np.arange(samples) + random.random(samples)) / samples
    order = random.permutation(count)
    choices = random.permutation(order[np.arange(samples) % count])
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    totals = [tf.zeros_like(values) for values in batch.explained_values]
    for parts in batch.run_samples(
        _ExpectedGradientFunction(batch.reader, noise > 0),
        samples,
        [tf.constant(array) for array in backgrounds],
        tf.constant(choices, tf.int32),
        tf.constant(fractions, tf.float32),
        tf.constant([noise, seed % SEED_LIMIT], tf.float32),
    ):
        totals = [total + part for total, part in zip(totals, parts, strict=True)]
    contributions = [np.asarray(total) / samples for total in totals]
    return reduce_channels(contributions, batch, reduce, target_scores)


@method(
    "gradient_shap",
    "Lundberg 2017, https://arxiv.org/abs/1705.07874",
    needs=["gradients"],
    explains_several=True,
)
def gradient_shap(
    batch: ExplainedBatch,
    *,
    background: Any = None,
    samples: int = 50,
    noise: float = 0.15,
    seed: int = 0,
    reduce: Reduction = "sum",
) -> list[BatchAttribution]:
    """Compute expected_gradients, with noise added to the input at each point."""
    return _average(batch, background, samples, noise, seed, reduce)


@method(
    "expected_gradients",
    "Erion 2019, https://arxiv.org/abs/1906.10670",
    needs=["gradients"],
    explains_several=True,
)
def expected_gradients(
    batch: ExplainedBatch,
    *,
    background: Any = None,
    samples: int = 100,
    seed: int = 0,
    reduce: Reduction = "sum",
) -> list[BatchAttribution]:
    """Average the gradient between random background samples and the input."""
    return _average(batch, background, samples, 0.0, seed, reduce)
