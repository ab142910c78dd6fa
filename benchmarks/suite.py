"""What a group of benchmarks is, and how it is measured."""

from __future__ import annotations

import operator
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from actgrid.bench import Prepare, interleaved, paired

__all__ = ["Group", "Measured", "Target", "written"]


@dataclass(frozen=True)
class Target:
    """What one case of a group must be beside another: `of` over `over`, or as `how` says."""

    figure: str
    of: str
    over: str
    must: float
    aim: float | None = None
    least: bool = False
    how: Callable[[float, float], float] = operator.truediv
    unit: str = "x"

    def holds(self, reached: float) -> bool:
        return reached >= self.must if self.least else reached <= self.must

    def written(self, value: float) -> str:
        return f"{written(value)}{'' if self.unit == 'x' else ' '}{self.unit}"

    def bound(self, value: float | None) -> str:
        return "" if value is None else f"{'>=' if self.least else '<='} {self.written(value)}"


def written(value: float) -> str:
    """Return a number with three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True)
class Group:
    """Cases that are measured in turn, and what is wanted of them.

    A case that needs what is not installed raises ImportError when it is prepared, and is left
    out.
    """

    title: str
    cases: Mapping[str, Prepare]
    targets: tuple[Target, ...] = ()
    # Of ms: the time of a run. Of anything else: what a run returns.
    unit: str = "ms"
    # How many of what the figure is for, such as images, a case does in one run.
    count: Mapping[str, float] = field(default_factory=dict)
    most_rounds: int = 1000

    def measure(self, rounds: int) -> Measured:
        rounds = min(rounds, self.most_rounds)
        missing = {name: problem for name in self.cases if (problem := self._problem(name))}
        cases = {name: case for name, case in self.cases.items() if name not in missing}
        if self.unit == "ms":
            seconds = interleaved(cases, rounds)
            values = {name: [one * 1e3 for one in times] for name, times in seconds.items()}
        else:
            values = {name: [] for name in cases}
            for _ in range(rounds):
                for name, case in cases.items():
                    values[name].append(float(case()()))  # type: ignore[arg-type]
        for name, count in self.count.items():
            if name in values:
                values[name] = [value / count for value in values[name]]
        return Measured(self, values, missing)

    def _problem(self, name: str) -> str | None:
        try:
            self.cases[name]()
        except ImportError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class Measured:
    """Figures of a group: the values of each case, round by round."""

    group: Group
    values: dict[str, list[float]]
    missing: dict[str, str]

    def median(self, name: str) -> float:
        return statistics.median(self.values[name])

    def reached(self, target: Target) -> float | None:
        if not {target.of, target.over} <= set(self.values):
            return None
        return paired(self.values[target.of], self.values[target.over], target.how)
