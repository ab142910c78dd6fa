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


def time_interleaved(
    cases: Mapping[str, Prepare],
    rounds: int,
    *,
    has_warmup: bool = True,
    is_done: Callable[[Mapping[str, Sequence[float]]], bool] = lambda seconds: False,
) -> dict[str, list[float]]:
    """Time benchmark cases once in each of several rounds, so that noise affects all.

    Each case is prepared again for each round. Every second round has the reverse order, so that
    the predecessor of a case varies.

    Parameters
    ----------
    cases : dict
        Name -> function that prepares the case and returns the function to time.
    rounds : int
        Maximum number of rounds.
    has_warmup : bool
        Whether an additional first round is not counted.
    is_done : callable
        Returns for the seconds of each case in the rounds so far whether no more rounds are needed.

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
        for is_warmup in [True] * has_warmup + [False] * rounds:
            if not is_warmup and is_done(seconds):
                break
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
