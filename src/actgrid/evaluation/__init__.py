"""Metrics of attribution maps, and comparisons of attribution methods."""

from actgrid.evaluation.agreement import Agreement, measure_agreement
from actgrid.evaluation.comparison import MethodComparison, compare_methods
from actgrid.evaluation.evaluating import evaluate
from actgrid.evaluation.results import Evaluation, EvaluationCurve

__all__ = [
    "Agreement",
    "Evaluation",
    "EvaluationCurve",
    "MethodComparison",
    "compare_methods",
    "evaluate",
    "measure_agreement",
]
