"""Time functions so that the results are comparable on a machine with other load."""

from __future__ import annotations

import gc
import operator
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter

__all__ = ["Prepare", "Run", "compare_pairs", "time_interleaved"]

Run = Callable[[], object]
# Prepares a run, which is not timed, and returns the function to time.
Prepare = Callable[[], Run]


def time_interleaved(cases: Mapping[str, Prepare], rounds: int) -> dict[str, list[float]]:
    """Time benchmark cases once in each of several rounds, so that noise affects all.

    Each case is prepared again for each round. An additional first round warms up and is not
    counted. Every second round has the reverse order, so that the predecessor of a case varies.

    Parameters
    ----------
    cases : dict
        Name -> function that prepares the case and returns the function to time.
    rounds : int
        Number of rounds.

    Returns
    -------
    dict
        Name -> list of float, the seconds of the case in each round.

    Examples
    --------
    >>> seconds = actgrid.bench.time_interleaved({"sum": lambda: lambda: sum(range(100))}, rounds=3)
    >>> len(seconds["sum"])
    3
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    with _disable_garbage_collection():
        for is_warmup in [True] + [False] * rounds:
            for name in order:
                run = cases[name]()
                start = perf_counter()
                run()
                elapsed = perf_counter() - start
                if not is_warmup:
                    seconds[name].append(elapsed)
            order.reverse()
    return seconds


def compare_pairs(
    ours: Sequence[float],
    theirs: Sequence[float],
    compare: Callable[[float, float], float] = operator.truediv,
) -> float:
    """Return the median ratio, or another comparison, of two series of times.

    Parameters
    ----------
    ours, theirs : sequence of float
        Times of two cases in the same rounds.
    compare : callable
        Compares our time with their time of the same round; by default the ratio.

    Returns
    -------
    float
        Median over the rounds.

    Examples
    --------
    >>> actgrid.bench.compare_pairs([2.0, 3.0, 4.0], [1.0, 1.0, 4.0])
    2.0
    """
    return statistics.median(map(compare, ours, theirs))


@contextmanager
def _disable_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
