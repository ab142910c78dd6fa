"""Declaration of metrics of attribution maps, and the samples that they are computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from actgrid.attribution.batches import ExplainedBatch
from actgrid.attribution.declaration import Declaration, make_checked
from actgrid.attribution.scores import TargetScores
from actgrid.options import MetricOptions

__all__ = [
    "DECLARED_METRICS",
    "EvaluatedMaps",
    "Metric",
    "MetricCurve",
    "MetricNeed",
    "MetricResult",
    "ScoreType",
    "metric",
]

Array = npt.NDArray[Any]

# What a metric needs beside the maps: "model": runs of the model; "method": the method that
# computes the maps of other inputs; "region": masks or boxes of the explained objects.
MetricNeed = Literal["model", "method", "region"]

ScoreType = Literal["probability", "logit"]

_Result = TypeVar("_Result")
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class EvaluatedMaps:
    """Attribution maps of a batch of samples, with what metrics compute their values from.

    Attributes
    ----------
    batch
        The samples, with fixed target classes.
    target_scores
        Target scores of the samples.
    values
        (N, *sides) float32: the maps in the size of the explained tensor, one value for each
        position.
    maps
        (N, ...) float32: the maps in their own size.
    explain
        Function that returns the maps, as in `values`, of a batch of the same samples with other
        values; None if only the maps are known, and not their method.
    regions
        (N, *sides) bool: positions of the explained objects; None if they are not given.
    """

    batch: ExplainedBatch
    target_scores: TargetScores
    values: npt.NDArray[np.float32]
    maps: npt.NDArray[np.float32]
    explain: Callable[[ExplainedBatch], npt.NDArray[np.float32]] | None
    regions: npt.NDArray[np.bool_] | None
    _results: dict[Any, Any] = field(default_factory=dict, init=False)

    def compute_once(self, compute: Callable[..., _Result], *arguments: Any) -> _Result:
        """Return ``compute(self, *arguments)``; metrics that ask for the same share the result."""
        key = compute, *arguments
        try:
            hash(key)
        except TypeError:  # a baseline may be an array
            return compute(self, *arguments)
        if key not in self._results:
            self._results[key] = compute(self, *arguments)
        result: _Result = self._results[key]
        return result

    def uses_probabilities(self, score_type: ScoreType) -> bool:
        """Return whether to use probabilities: those of a softmax or sigmoid, if there is one."""
        return score_type == "probability" and bool(self.target_scores.is_logit)

    def get_scores(self, score_type: ScoreType) -> npt.NDArray[np.float32]:
        """Return the scores of the unmodified samples, (N,)."""
        is_probability = self.uses_probabilities(score_type)
        scores = self.target_scores
        values = scores.probabilities if is_probability else scores.scores
        return np.asarray(values, np.float32)


class MetricCurve(NamedTuple):
    """Curve of a metric for each sample.

    Attributes
    ----------
    x
        (S,) float32: abscissae, increasing.
    values
        (N, S) float32: ordinates for each sample.
    x_label, y_label
        Names of the axes.
    """

    x: npt.NDArray[np.float32]
    values: npt.NDArray[np.float32]
    x_label: str
    y_label: str


class MetricResult(NamedTuple):
    """Values of a metric for a batch of samples.

    Attributes
    ----------
    values
        (N,) float64, NaN where the metric is not defined.
    curve
        The curve of which the values are a summary; None for metrics without a curve.
    """

    values: npt.NDArray[np.float64]
    curve: MetricCurve | None = None


@dataclass(frozen=True)
class Metric(Declaration):
    """A metric of attribution maps.

    Attributes
    ----------
    name
        Name in the option `metrics` of `actgrid.evaluate`.
    run
        Function that takes `EvaluatedMaps` and options, and returns a `MetricResult`.
    source
        Author, year and URL of the paper.
    is_higher_better
        Whether larger values are better; None if the metric describes a map without judging it.
    needs
        What the metric needs beside the maps.
    """

    is_higher_better: bool | None
    needs: tuple[MetricNeed, ...] = ()

    @property
    def direction(self) -> str:
        """Name of the better direction: ``"higher"``, ``"lower"``, or ``""`` if there is none."""
        return {True: "higher", False: "lower", None: ""}[self.is_higher_better]


# Declared metrics by the name of their module, in the order of declaration.
DECLARED_METRICS: dict[str, list[Metric]] = {}


def metric(
    name: str,
    source: str,
    *,
    is_higher_better: bool | None,
    needs: Iterable[MetricNeed] = ("model",),
) -> Callable[[_Function], _Function]:
    """Return a decorator that declares a function as a metric of attribution maps.

    The decorated function checks its options. For the parameters see `Metric`.
    """

    def declare(function: _Function) -> _Function:
        run = make_checked(function, MetricOptions)
        declared = Metric(name, run, source, is_higher_better, tuple(needs))
        DECLARED_METRICS.setdefault(function.__module__, []).append(declared)
        return run

    return declare
