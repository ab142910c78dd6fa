"""Registry of the metrics that the modules of this package declare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from actgrid.attribution.declaration import check_option_names, check_values, import_families
from actgrid.errors import OptionError, suggest
from actgrid.evaluation.metric import DECLARED_METRICS, Metric
from actgrid.options import MetricOptions

__all__ = ["find_metric", "get_metrics", "parse_metrics"]


@lru_cache(maxsize=1)
def get_metrics() -> dict[str, Metric]:
    """Return all metrics by name, grouped by module."""
    families = import_families(str(__package__), DECLARED_METRICS)
    families.sort(key=lambda family: (-len(_list_needs(family)), min(m.year for m in family)))
    return {metric.name: metric for family in families for metric in family}


def _list_needs(family: Iterable[Metric]) -> set[str]:
    return {need for metric in family for need in metric.needs if need != "region"}


def find_metric(name: object) -> Metric:
    """Return the metric of a name.

    Raises
    ------
    OptionError
        If no metric has this name.
    """
    metrics = get_metrics()
    if not isinstance(name, str) or name not in metrics:
        hint = suggest(name, metrics) if isinstance(name, str) else ""
        raise OptionError(f"metrics must be of {', '.join(metrics)}, not {name!r}{hint}")
    return metrics[name]


def parse_metrics(metrics: Any, options: Mapping[str, Any]) -> dict[Metric, dict[str, Any]]:
    """Convert the option `metrics` to a dict: metric -> its options.

    Parameters
    ----------
    metrics
        The name of a metric, a list of names, or a dict from names to options.
    options
        Options for all metrics that take them.

    Raises
    ------
    OptionError
        If a metric is unknown, or an option is unknown or belongs to none of the metrics.
    """
    if isinstance(metrics, str) or not isinstance(metrics, Iterable):
        metrics = [metrics]
    own_options = metrics if isinstance(metrics, Mapping) else {name: {} for name in metrics}
    result: dict[Metric, dict[str, Any]] = {}
    for name, values in own_options.items():
        found = find_metric(name)
        if not isinstance(values, Mapping):
            raise OptionError(f"the options of {name} must be a dict, not {values!r}")
        check_option_names([found], values)
        check_values(values, MetricOptions)
        shared = {key: value for key, value in options.items() if key in found.options}
        result[found] = {**shared, **values}
    check_option_names(result, options)
    check_values(options, MetricOptions)
    return result
