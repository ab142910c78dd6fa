"""Groups of benchmark cases, their targets, and their measurement."""

from __future__ import annotations

import operator
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from actgrid.bench import Prepare, compare_pairs, is_steady, time_interleaved

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

    Parameters
    ----------
    title
        Description of what is measured.
    cases
        Name -> function that prepares the case.
    targets
        Bounds on comparisons of cases.
    unit
        ``"ms"``: values are times of runs in milliseconds; otherwise, values are what runs return.
    count
        Name -> number of items, such as images, that a run processes. Values are per item.
    max_rounds
        Maximum number of rounds. With 1, there is also no round that warms up.
    sizes
        Name -> size of the problem, such as a number of images, in increasing order, for cases
        that differ only in size. Empty: other cases.
    """

    title: str
    cases: Mapping[str, Prepare]
    targets: tuple[Target, ...] = ()
    unit: str = "ms"
    count: Mapping[str, float] = field(default_factory=dict)
    max_rounds: int = 1000
    sizes: Mapping[str, float] = field(default_factory=dict)

    def measure(self, rounds: int, max_seconds: float) -> GroupResult:
        """Measure rounds until all medians are steady, or the next round would take too long."""
        rounds, start = min(rounds, self.max_rounds), time.perf_counter()

        def is_done(values: Mapping[str, Sequence[float]]) -> bool:
            elapsed = time.perf_counter() - start
            count = min(map(len, values.values()), default=0)
            is_late = count > 0 and elapsed * (count + 1) / count > max_seconds
            return is_late or all(is_steady(list(series)) for series in values.values())

        missing = {name: problem for name in self.cases if (problem := self._find_problem(name))}
        cases = {name: case for name, case in self.cases.items() if name not in missing}
        if self.unit == "ms":
            seconds = time_interleaved(
                cases, rounds, has_warmup=self.max_rounds > 1, is_done=is_done
            )
            values = {name: [time * 1e3 for time in times] for name, times in seconds.items()}
        else:
            values = {name: [] for name in cases}
            for _ in range(rounds):
                if is_done(values):
                    break
                for name, case in cases.items():
                    values[name].append(float(case()()))  # type: ignore[arg-type]
        for name, count in self.count.items():
            if name in values:
                values[name] = [value / count for value in values[name]]
        return GroupResult(self, values, missing, time.perf_counter() - start)

    def _find_problem(self, name: str) -> str | None:
        try:
            self.cases[name]()
        except ImportError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class GroupResult:
    """The result of a group: values of each case by round, skipped cases, duration."""

    group: Group
    values: dict[str, list[float]]
    missing: dict[str, str]
    seconds: float

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def value(self, target: Target) -> float | None:
        if not {target.case, target.reference} <= set(self.values):
            return None
        return compare_pairs(
            self.values[target.case], self.values[target.reference], target.compare
        )

    def exponent(self, largest: int = 0) -> float:
        """Return the least-squares exponent p of value = a * size ** p.

        Parameters
        ----------
        largest
            Number of sizes from the largest down that are fitted; 0: all.
        """
        names = list(self.group.sizes)[-largest:]
        sizes = [self.group.sizes[name] for name in names]
        slope, _ = np.polyfit(np.log(sizes), np.log([self.median(name) for name in names]), 1)
        return float(slope)
