"""The performance regression check.

Two builds are timed in turns, or one beside its recorded figures.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from actgrid.bench.builds import Build, any_processor, started_worker
from actgrid.errors import BackendError, OptionError

__all__ = [
    "Figure",
    "Turn",
    "check_builds",
    "is_clear",
    "is_steady",
    "measure",
    "turns_of_builds",
    "turns_with_yardsticks",
]

_TURNS = 8  # of each case in a round
_FEWEST_ROUNDS = 5
_ROUNDS_TO_BE_SLOWER = 15  # a busy machine may disturb some rounds in a row, but not most of these
_CLEAR = 3.0  # standard errors from the tolerance at which a case needs no more rounds
_STEADY = 0.01  # standard error of a ratio at which it is recorded

# Times a case twice, next to each other: seconds before and now, in the order asked for.
Turn = Callable[[str, bool], tuple[float, float]]


@dataclass(frozen=True)
class Figure:
    """Times of a case now and before, or of the case and its yardstick.

    Attributes
    ----------
    ratio
        Now over before: the median over rounds of the median over turns.
    error
        Standard error of the ratio, relative.
    before, now
        Milliseconds: medians over all turns.
    """

    ratio: float
    error: float
    before: float
    now: float


def measure(
    cases: Collection[str],
    start: Callable[[], AbstractContextManager[Turn]],
    rounds: int,
    is_settled: Callable[[list[float]], bool],
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Figure]:
    """Time cases in turns, in `rounds` rounds at most, until each ratio is settled.

    A turn times both sides next to each other, so that what disturbs one disturbs the other.
    Every second turn has them the other way round. A round has processes of its own: where code
    and data lie in memory makes one process faster than another by several per cent. They share
    one processor: another one may be disturbed by other work, or be of another kind.

    Parameters
    ----------
    cases
        Names of cases.
    start
        Starts the processes of a round.
    rounds
        The most rounds.
    is_settled
        Whether the ratios of all rounds so far suffice.
    advance
        Called once for each case and round, whether the case still needs it or not.
    """
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}

    for _ in range(rounds):
        names = [name for name in cases if not is_settled(ratios[name])]
        if names:
            with start() as turn:
                pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
                for i in range(_TURNS):
                    for name in names:
                        pairs[name].append(turn(name, i % 2 == 1))
            for name, timed in pairs.items():
                ratios[name].append(statistics.median(now / before for before, now in timed))
                seconds[name] += timed
        for _ in cases:
            advance()
    return {
        name: Figure(
            statistics.median(ratios[name]),
            _relative_error(ratios[name]),
            *(statistics.median(side) * 1e3 for side in zip(*seconds[name], strict=True)),
        )
        for name in cases
    }


def _relative_error(ratios: list[float]) -> float:
    """Return the relative standard error of the median of ratios."""
    if len(ratios) < 2:
        return math.inf
    # 1.2533: from the error of a mean to that of a median.
    return 1.2533 * statistics.stdev(map(math.log, ratios)) / math.sqrt(len(ratios))


def is_clear(tolerance: float) -> Callable[[list[float]], bool]:
    """Return whether ratios of rounds are so far from the tolerance that it cannot be chance."""
    limit = math.log1p(tolerance)

    def is_settled(ratios: list[float]) -> bool:
        seems_slower = len(ratios) > 0 and statistics.median(ratios) > 1 + tolerance
        if len(ratios) < (_ROUNDS_TO_BE_SLOWER if seems_slower else _FEWEST_ROUNDS):
            return False
        distance = abs(math.log(statistics.median(ratios)) - limit)
        return distance > _CLEAR * _relative_error(ratios)

    return is_settled


def is_steady(ratios: list[float]) -> bool:
    """Return whether ratios of rounds are exact enough for their median to be recorded."""
    return len(ratios) >= _FEWEST_ROUNDS and _relative_error(ratios) <= _STEADY


@contextmanager
def turns_of_builds(before: Build, now: Build) -> Iterator[Turn]:
    """Start a process for each of two builds, and yield what times both."""
    processor = any_processor()
    with started_worker(before, processor) as old, started_worker(now, processor) as new:
        for worker in (old, new):
            worker.describe()

        def turn(case: str, is_reversed: bool) -> tuple[float, float]:
            if is_reversed:
                seconds = new.time(case)
                return old.time(case), seconds
            return old.time(case), new.time(case)

        yield turn


@contextmanager
def turns_with_yardsticks(build: Build, ratios: Mapping[str, float]) -> Iterator[Turn]:
    """Start a process for a build, and yield what times a case and its yardstick.

    Parameters
    ----------
    ratios
        Case -> recorded ratio to the yardstick: so often the yardstick's time is what the case
        took before.
    """
    with started_worker(build) as worker:
        worker.describe()

        def turn(case: str, is_reversed: bool) -> tuple[float, float]:
            if is_reversed:
                seconds = worker.time(case)
                return worker.time(case, "yardstick") * ratios[case], seconds
            return worker.time(case, "yardstick") * ratios[case], worker.time(case)

        yield turn


def check_builds(before: Build, now: Build, cases: Collection[str]) -> dict[str, str]:
    """Return the cases that only this build can run, and why the other one cannot.

    Raises
    ------
    OptionError
        If the builds draw with different backends, or none of the cases can be compared.
    BackendError
        If a case cannot run on this build.
    """
    left_out: dict[str, str] = {}
    with started_worker(before) as old, started_worker(now) as new:
        facts_before, facts_now = old.describe(), new.describe()
        for fact in ("backend", "simd"):
            if facts_before[fact] != facts_now[fact]:
                raise OptionError(
                    f"the builds cannot be compared: the other one's {fact} is "
                    f"{facts_before[fact]}, this one's is {facts_now[fact]}"
                )
        for name in cases:
            new.time(name)
            try:
                old.time(name)
            except BackendError as problem:
                left_out[name] = str(problem)
    if len(left_out) == len(cases):
        reason = next(iter(left_out.values()))
        raise OptionError(f"the other build runs none of the cases: {reason}")
    return left_out
