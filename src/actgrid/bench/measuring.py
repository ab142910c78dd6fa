"""Times that can be compared on a noisy machine: taken in turn, and paired."""

from __future__ import annotations

import gc
import operator
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter

__all__ = ["Prepare", "Run", "interleaved", "paired"]

Run = Callable[[], object]
# Prepares what a run needs, untimed, and returns the run.
Prepare = Callable[[], Run]


def interleaved(cases: Mapping[str, Prepare], rounds: int) -> dict[str, list[float]]:
    """Time all cases in turn, round after round, so that whatever disturbs one disturbs all.

    Each case is prepared anew for each round. One more round, before the others, warms up and is
    not counted. Every second round runs backwards: no case always follows the same one.

    Returns
    -------
    dict
        Case -> its seconds in each round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    order = list(cases)
    with _no_garbage_collection():
        for warming in [True] + [False] * rounds:
            for name in order:
                run = cases[name]()
                start = perf_counter()
                run()
                took = perf_counter() - start
                if not warming:
                    seconds[name].append(took)
            order.reverse()
    return seconds


def paired(
    ours: Sequence[float],
    theirs: Sequence[float],
    how: Callable[[float, float], float] = operator.truediv,
) -> float:
    """Return the median over rounds of ours against theirs: their ratio, or what `how` makes.

    Examples
    --------
    >>> paired([2.0, 3.0, 4.0], [1.0, 1.0, 4.0])
    2.0
    """
    return statistics.median(map(how, ours, theirs))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
