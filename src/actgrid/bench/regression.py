"""Time cases on two builds, or on a build and against its saved timings."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from actgrid.bench.builds import Build, choose_processor, start_worker
from actgrid.errors import BackendError, OptionError

__all__ = [
    "Timing",
    "Turn",
    "alternate_builds",
    "alternate_with_yardstick",
    "check_builds",
    "is_clear",
    "is_steady",
    "measure",
]

_TURNS = 8  # for each case in a round
_MIN_ROUNDS = 5
# A case that seems slower needs more rounds: other load can disturb several rounds in a row.
_MIN_ROUNDS_IF_SLOWER = 15
_CLEAR_DISTANCE = 3.0  # standard errors between a clear ratio and the tolerance
_MAX_SAVED_ERROR = 0.01  # relative standard error at which a ratio is saved

# turn(case, is_reversed): times both builds one after the other; seconds before and now.
Turn = Callable[[str, bool], tuple[float, float]]


@dataclass(frozen=True)
class Timing:
    """Record of times of a benchmark case on two builds, or of a case and yardstick.

    Parameters
    ----------
    ratio : float
        Time now over time before: median over rounds of the median over turns.
    error : float
        Relative standard error of the ratio.
    before : float
        Milliseconds of the other build or the yardstick: median over all turns.
    now : float
        Milliseconds of this build: median over all turns.

    Examples
    --------
    >>> actgrid.bench.Timing(ratio=1.5, error=0.01, before=2.0, now=3.0).ratio
    1.5
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
) -> dict[str, Timing]:
    """Time benchmark cases on two builds until each ratio of times is precise enough.

    A turn times both builds one after the other, so that other load affects both; every second
    turn has the reverse order. Each round starts new processes, because the layout of code and data
    in memory changes the speed of a process by several per cent. Both processes share one
    processor, because processors differ in load and kind.

    Parameters
    ----------
    cases : collection of str
        Names of the cases.
    start : callable
        Returns a context manager that starts the processes of a round and yields a function
        ``turn(case, is_reversed)``, which returns the seconds before and now.
    rounds : int
        Maximum number of rounds.
    is_settled : callable
        Returns for a list of ratios, one from each round, whether no more rounds are needed.
    advance : callable
        Called once for each case and round, also if the case is already settled.

    Returns
    -------
    dict
        Name -> Timing.

    Examples
    --------
    >>> from contextlib import nullcontext
    >>> start = lambda: nullcontext(lambda case, is_reversed: (0.002, 0.003))
    >>> timings = actgrid.bench.measure(["encode"], start, 25, actgrid.bench.is_steady)
    >>> round(timings["encode"].ratio, 6)
    1.5
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
            for name, times in pairs.items():
                ratios[name].append(statistics.median(now / before for before, now in times))
                seconds[name] += times
        for _ in cases:
            advance()
    return {
        name: Timing(
            statistics.median(ratios[name]),
            _estimate_relative_error(ratios[name]),
            *(statistics.median(times) * 1e3 for times in zip(*seconds[name], strict=True)),
        )
        for name in cases
    }


def _estimate_relative_error(ratios: list[float]) -> float:
    """Estimate the relative standard error of the median of timing ratios.

    It is infinite for fewer than two ratios.
    """
    if len(ratios) < 2:
        return math.inf
    # The standard error of a median is 1.2533 times that of a mean (normal distribution).
    return 1.2533 * statistics.stdev(map(math.log, ratios)) / math.sqrt(len(ratios))


def is_clear(tolerance: float) -> Callable[[list[float]], bool]:
    """Return a function that checks if ratios lie clearly above or below a tolerance.

    Parameters
    ----------
    tolerance : float
        Slowdown as a fraction: 0.15 is 15%.

    Returns
    -------
    callable
        Takes a list of ratios, one from each round, and returns a bool.

    Examples
    --------
    >>> is_settled = actgrid.bench.is_clear(0.15)
    >>> is_settled([1.0, 1.01, 0.99, 1.0, 1.0])
    True
    """
    limit = math.log1p(tolerance)

    def is_settled(ratios: list[float]) -> bool:
        seems_slower = len(ratios) > 0 and statistics.median(ratios) > 1 + tolerance
        if len(ratios) < (_MIN_ROUNDS_IF_SLOWER if seems_slower else _MIN_ROUNDS):
            return False
        distance = abs(math.log(statistics.median(ratios)) - limit)
        return distance > _CLEAR_DISTANCE * _estimate_relative_error(ratios)

    return is_settled


def is_steady(ratios: list[float]) -> bool:
    """Return whether the median of ratios is precise enough to be saved.

    Parameters
    ----------
    ratios : list of float
        A ratio from each round.

    Returns
    -------
    bool
        Whether there are at least 5 ratios and their relative standard error is at most 1%.

    Examples
    --------
    >>> actgrid.bench.is_steady([1.0, 1.01, 0.99, 1.0, 1.0])
    True
    """
    return len(ratios) >= _MIN_ROUNDS and _estimate_relative_error(ratios) <= _MAX_SAVED_ERROR


@contextmanager
def alternate_builds(before: Build, now: Build) -> Iterator[Turn]:
    """Start a process for each of two builds, and yield a function that times both.

    Parameters
    ----------
    before, now : Build
        The other build and this build.

    Yields
    ------
    callable
        ``turn(case, is_reversed)`` times a case on both builds, and returns the seconds before and
        now.

    Examples
    --------
    >>> build = actgrid.bench.get_this_build()
    >>> with actgrid.bench.alternate_builds(build, build) as turn:
    ...     before, now = turn("paint, 7 px", False)
    >>> before > 0 and now > 0
    True
    """
    processor = choose_processor()
    with start_worker(before, processor) as old, start_worker(now, processor) as new:
        for worker in (old, new):
            worker.describe()

        def turn(case: str, is_reversed: bool) -> tuple[float, float]:
            if is_reversed:
                seconds = new.time(case)
                return old.time(case), seconds
            return old.time(case), new.time(case)

        yield turn


@contextmanager
def alternate_with_yardstick(build: Build, ratios: Mapping[str, float]) -> Iterator[Turn]:
    """Start a process for a build; yield a function that times a case and yardstick.

    Parameters
    ----------
    build : Build
        The build.
    ratios : dict
        Name of the case -> saved ratio of the times of case and yardstick. The time of the
        yardstick times this ratio is the expected time of the case.

    Yields
    ------
    callable
        ``turn(case, is_reversed)`` returns the expected and the measured seconds of a case.

    Examples
    --------
    >>> build = actgrid.bench.get_this_build()
    >>> with actgrid.bench.alternate_with_yardstick(build, {"paint, 7 px": 1.0}) as turn:
    ...     expected, measured = turn("paint, 7 px", False)
    >>> expected > 0 and measured > 0
    True
    """
    with start_worker(build) as worker:
        worker.describe()

        def turn(case: str, is_reversed: bool) -> tuple[float, float]:
            if is_reversed:
                seconds = worker.time(case)
                return worker.time(case, "yardstick") * ratios[case], seconds
            return worker.time(case, "yardstick") * ratios[case], worker.time(case)

        yield turn


def check_builds(before: Build, now: Build, cases: Collection[str]) -> dict[str, str]:
    """Find the benchmark cases that this build can run and another build cannot.

    Parameters
    ----------
    before, now : Build
        The other build and this build.
    cases : collection of str
        Names of the cases.

    Returns
    -------
    dict
        Name of the case -> reason why the other build cannot run it.

    Raises
    ------
    OptionError
        If the builds render with different backends, or no case can be compared.
    BackendError
        If a case cannot run on this build.

    Examples
    --------
    >>> build = actgrid.bench.get_this_build()
    >>> actgrid.bench.check_builds(build, build, ["paint, 7 px"])
    {}
    """
    skipped: dict[str, str] = {}
    with start_worker(before) as old, start_worker(now) as new:
        facts_before, facts_now = old.describe(), new.describe()
        for fact in ("backend", "simd"):
            if facts_before[fact] != facts_now[fact]:
                raise OptionError(
                    f"the builds cannot be compared: the {fact} of the other build is "
                    f"{facts_before[fact]}, of this build {facts_now[fact]}"
                )
        for name in cases:
            new.time(name)
            try:
                old.time(name)
            except BackendError as problem:
                skipped[name] = str(problem)
    if len(skipped) == len(cases):
        reason = next(iter(skipped.values()))
        raise OptionError(f"the other build cannot run any of the cases: {reason}")
    return skipped
