"""Attribution methods that propagate the score back to the input by rules of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from actgrid.attribution.batches import (
    BatchAttribution,
    ExplainedBatch,
    ScoreReader,
    gather_baseline,
    gather_rows,
)
from actgrid.attribution.deeplift_rules import set_deeplift_rules
from actgrid.attribution.input_gradients import (
    Reduction,
    differentiate,
    reduce_channels,
    sum_rows,
)
from actgrid.attribution.lrp_rules import RelevanceRule, set_lrp_rules
from actgrid.attribution.method import method
from actgrid.attribution.scores import TargetScores
from actgrid.models.frameworks import tensorflow

__all__ = ["deeplift", "lrp"]


@dataclass(frozen=True)
class _DeepliftFunction:
    """Function that returns contributions of the explained tensors, and scores.

    The scores are those of the reference.
    """

    reader: ScoreReader

    def __call__(
        self, model: Any, inputs: Any, target_classes: Any, row: Any, sample: Any, baselines: Any
    ) -> tuple[list[Any], Any]:
        tf = tensorflow()
        inputs, target_classes = gather_rows((inputs, target_classes), row)
        samples, references = [], []
        for values, baseline in zip(self.reader.get_explained(inputs), baselines, strict=True):
            reference = tf.broadcast_to(gather_baseline(baseline, row), tf.shape(values))
            references.append(tf.ensure_shape(reference, values.shape))
            samples.append(tf.identity(values))
        runs = [
            self.reader.run(model, self.reader.replace_explained(inputs, tensors), target_classes)
            for tensors in (samples, references)
        ]
        operations = tf.compat.v1.get_default_graph().get_operations()
        set_deeplift_rules(operations, runs[0], samples, runs[1], references)
        multipliers = differentiate(runs[0].target_scores.scores, samples)
        contributions = [
            multiplier * (values - reference)
            for multiplier, values, reference in zip(multipliers, samples, references, strict=True)
        ]
        return contributions, runs[1].target_scores.scores


@method(
    "deeplift",
    "Shrikumar 2017, https://arxiv.org/abs/1704.02685",
    needs=["gradients"],
    explains_several=True,
)
def deeplift(
    batch: ExplainedBatch, *, baseline: Any = 0.0, reduce: Reduction = "sum"
) -> list[BatchAttribution]:
    """Propagate the score's difference from that of a baseline; sums to this difference."""
    target_scores = batch.compute_scores()
    batch = batch.with_classes_of(target_scores)
    body = _DeepliftFunction(batch.reader)
    parts = list(batch.run_samples(body, 1, batch.make_baselines(baseline)))
    contributions = [
        np.concatenate([np.asarray(part) for part in tensors])
        for tensors in zip(*(tensors for tensors, _ in parts), strict=True)
    ]
    baseline_scores = np.concatenate([np.asarray(scores) for _, scores in parts])
    change = target_scores.scores - baseline_scores
    details = {
        "baseline_score": baseline_scores,
        "convergence_delta": change - sum_rows(contributions),
    }
    return [
        attribution._replace(details=details)
        for attribution in reduce_channels(contributions, batch, reduce, target_scores)
    ]


@dataclass(frozen=True)
class _LrpFunction:
    """Function that returns the relevance of the explained tensors, and the target scores."""

    reader: ScoreReader
    rule: RelevanceRule
    epsilon: float
    gamma: float

    def __call__(
        self, model: Any, inputs: Any, target_classes: Any
    ) -> tuple[list[Any], TargetScores]:
        tf = tensorflow()
        samples = [tf.identity(values) for values in self.reader.get_explained(inputs)]
        inputs = self.reader.replace_explained(inputs, samples)
        run = self.reader.run(model, inputs, target_classes)
        operations = tf.compat.v1.get_default_graph().get_operations()
        set_lrp_rules(operations, run, samples, self.rule, self.epsilon, self.gamma)
        gradients = differentiate(run.target_scores.scores, samples)
        relevances = [
            gradient * values for gradient, values in zip(gradients, samples, strict=True)
        ]
        return relevances, run.target_scores


@method(
    "lrp",
    "Bach 2015, https://doi.org/10.1371/journal.pone.0130140",
    needs=["gradients"],
    explains_several=True,
)
def lrp(
    batch: ExplainedBatch,
    *,
    rule: RelevanceRule = "composite",
    epsilon: float = 0.05,
    gamma: float = 0.25,
    reduce: Reduction = "sum",
) -> list[BatchAttribution]:
    """Propagate the score back by layer-wise relevance propagation rules."""
    body = _LrpFunction(batch.reader, rule, float(epsilon), float(gamma))
    relevances, target_scores = batch.run(body)
    arrays = [np.asarray(relevance) for relevance in relevances]
    return reduce_channels(arrays, batch, reduce, batch.check_scores(target_scores))
