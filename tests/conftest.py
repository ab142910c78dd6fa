"""Settings for the whole suite."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings

from actgrid.bench import Case, Run

# Before anything imports TensorFlow.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Examples include the first call of freshly compiled numba code: no deadline holds for those.
settings.register_profile(
    "actgrid", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("actgrid")


@dataclass
class Clock:
    """Stands in for `time.perf_counter` where actgrid.bench measures: only work moves it on."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, *seconds: float) -> Run:
        """Return a run that takes so long, one time after the other, over and over."""
        times = itertools.cycle(seconds)

        def run() -> None:
            self.now += next(times)

        return run

    def case(self, *ratios: float) -> Case:
        """Return a case that takes so many times its yardstick, one preparation after the other.

        The last ratio stays.
        """
        prepared = itertools.chain(ratios, itertools.repeat(ratios[-1]))
        return Case(lambda: self.work(next(prepared)), lambda: self.work(1.0))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("actgrid.bench.measuring.perf_counter", clock)
    return clock
