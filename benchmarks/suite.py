"""Groups of benchmark cases, their targets, and their measurement."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from actgrid.bench import Prepare, compare_pairs, time_interleaved

__all__ = ["Group", "GroupResult", "Target", "format_number"]


@dataclass(frozen=True)
class Target:
    """A bound on the ratio, or another comparison, of two cases of a group.

    Parameters
    ----------
    name
        Description of the compared value.
    case, reference
        Names of the cases; the value is the case over the reference.
    must
        Bound that is required.
    aim
        Better bound that is desired.
    is_minimum
        Whether the bounds are minima; otherwise maxima.
    compare
        Compares the values of the two cases.
    unit
        Unit of the compared value.
    """

    name: str
    case: str
    reference: str
    must: float
    aim: float | None = None
    is_minimum: bool = False
    compare: Callable[[float, float], float] = operator.truediv
    unit: str = "x"

    def is_met(self, value: float) -> bool:
        return value >= self.must if self.is_minimum else value <= self.must

    def format(self, value: float) -> str:
        return f"{format_number(value)}{'' if self.unit == 'x' else ' '}{self.unit}"

    def format_bound(self, bound: float | None) -> str:
        sign = ">=" if self.is_minimum else "<="
        return "" if bound is None else f"{sign} {self.format(bound)}"


def format_number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Group:
    """A group of benchmark cases that are timed in turn, and their targets.

    A case whose preparation raises ImportError is skipped.
    """

    title: str
    cases: Mapping[str, Prepare]
    targets: tuple[Target, ...] = ()
    # If the unit is ms, a value is the time of a run, otherwise its return value.
    unit: str = "ms"
    # Case -> number of items, such as images, that a run processes; values are per item.
    count: Mapping[str, float] = field(default_factory=dict)
    max_rounds: int = 1000

    def measure(self, rounds: int) -> GroupResult:
        rounds = min(rounds, self.max_rounds)
        missing = {name: problem for name in self.cases if (problem := self._find_problem(name))}
        cases = {name: case for name, case in self.cases.items() if name not in missing}
        if self.unit == "ms":
            seconds = time_interleaved(cases, rounds)
            values = {name: [time * 1e3 for time in times] for name, times in seconds.items()}
        else:
            values = {name: [] for name in cases}
            for _ in range(rounds):
                for name, case in cases.items():
                    values[name].append(float(case()()))  # type: ignore[arg-type]
        for name, count in self.count.items():
            if name in values:
                values[name] = [value / count for value in values[name]]
        return GroupResult(self, values, missing)

    def _find_problem(self, name: str) -> str | None:
        try:
            self.cases[name]()
        except ImportError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class GroupResult:
    """The result of a group: values of each case by round, and skipped cases."""

    group: Group
    values: dict[str, list[float]]
    missing: dict[str, str]

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def value(self, target: Target) -> float | None:
        if not {target.case, target.reference} <= set(self.values):
            return None
        return compare_pairs(
            self.values[target.case], self.values[target.reference], target.compare
        )
