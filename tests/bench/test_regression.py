from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from actgrid.bench import (
    Timing,
    Turn,
    alternate_builds,
    alternate_with_yardstick,
    get_this_build,
    is_clear,
    is_steady,
    measure,
)


class Processes:
    """A substitute for the worker processes of each round, with given times."""

    def __init__(self, **ratios: list[float]) -> None:
        self.ratios = {
            name: itertools.chain(values, itertools.repeat(values[-1]))
            for name, values in ratios.items()
        }
        self.started = 0
        self.turns: list[tuple[str, bool]] = []

    @contextmanager
    def __call__(self) -> Iterator[Turn]:
        self.started += 1
        current: dict[str, float] = {}

        def turn(case: str, is_reversed: bool) -> tuple[float, float]:
            if case not in current:
                current[case] = next(self.ratios[case])
            self.turns.append((case, is_reversed))
            return 0.002, 0.002 * current[case]

        yield turn

    def count_rounds(self, case: str) -> int:
        return sum(name == case for name, _ in self.turns) // 8


def find_slower_cases(processes: Processes, tolerance: float = 0.15, rounds: int = 25) -> list[str]:
    timings = measure(list(processes.ratios), processes, rounds, is_clear(tolerance))
    return [name for name, timing in timings.items() if timing.ratio > 1 + tolerance]


# --- measuring ---


def test_timing_contains_ratio_and_both_times() -> None:
    timing = measure(["a"], Processes(a=[0.5]), 25, is_steady)["a"]
    assert timing == Timing(0.5, 0.0, 2.0, 1.0)


def test_cases_take_turns_and_every_second_turn_is_reversed() -> None:
    processes = Processes(a=[1.0], b=[1.0])
    measure(["a", "b"], processes, 1, is_steady)
    once = [("a", False), ("b", False), ("a", True), ("b", True)]
    assert processes.turns == once * 4


def test_clear_cases_stop_early_and_others_use_all_rounds() -> None:
    noise = np.random.default_rng(0).uniform(1, 2, 30).tolist()
    processes = Processes(steady=[1.0], wild=noise)
    ticks: list[None] = []
    timings = measure(["steady", "wild"], processes, 20, is_steady, lambda: ticks.append(None))
    assert (processes.count_rounds("steady"), processes.count_rounds("wild")) == (5, 20)
    assert processes.started == 20
    assert len(ticks) == 2 * 20
    assert timings["wild"].ratio == pytest.approx(np.median(noise[:20]))
    assert 0.01 < timings["wild"].error < 0.2


def test_few_rounds_have_infinite_error() -> None:
    assert measure(["a"], Processes(a=[2.0]), 1, is_steady)["a"].error == np.inf


# --- comparing ---


def test_slower_kernel_is_found_and_equal_kernel_passes() -> None:
    processes = Processes(equal=[1.0], slower=[1.2], faster=[0.5], little=[1.14])
    assert find_slower_cases(processes) == ["slower"]
    # Only cases that seem slower run for more rounds.
    assert [processes.count_rounds(name) for name in processes.ratios] == [5, 15, 5, 5]


def test_disturbed_first_rounds_are_not_reported_as_slower() -> None:
    processes = Processes(disturbed=[1.6, 1.7, 1.6, 1.6, 1.7, 1.6, 1.0])
    assert find_slower_cases(processes) == []
    assert processes.count_rounds("disturbed") > 15


def test_noise_adds_rounds_and_is_not_reported_as_slower() -> None:
    rng = np.random.default_rng(1)
    luck = {f"case {i}": rng.lognormal(0, 0.05, 25).tolist() for i in range(420)}
    luck["disturbed"] = [1.0, 1.6, 1.0, 1.7, 1.0, 1.0]
    processes = Processes(**luck)
    assert find_slower_cases(processes) == []
    assert processes.count_rounds("disturbed") > 5


def test_slowdown_of_a_fifth_is_found_among_noise() -> None:
    rng = np.random.default_rng(2)
    ratios = {f"case {i}": rng.lognormal(np.log(1.2), 0.05, 25).tolist() for i in range(20)}
    processes = Processes(**ratios)
    assert len(find_slower_cases(processes)) == 20
    assert max(processes.count_rounds(f"case {i}") for i in range(20)) > 5


@pytest.mark.parametrize(("tolerance", "found"), [(0.0, ["a"]), (0.24, ["a"]), (0.25, [])])
def test_slower_is_more_than_the_tolerance(tolerance: float, found: list[str]) -> None:
    assert find_slower_cases(Processes(a=[1.25]), tolerance) == found


# --- processes ---


def test_both_builds_are_timed_in_given_order(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[tuple[str, str]] = []
    processors: list[int | None] = []

    class Fake:
        def __init__(self, build: str) -> None:
            self.build = build

        def describe(self) -> None:
            pass

        def time(self, case: str, part: str = "ours") -> float:
            timed.append((self.build, part))
            return {"old": 4.0, "new": 5.0}[self.build] / (2 if part == "yardstick" else 1)

    @contextmanager
    def start_fake(build: Any, processor: int | None = None) -> Iterator[Fake]:
        processors.append(processor)
        yield Fake(build)

    monkeypatch.setattr("actgrid.bench.regression.start_worker", start_fake)
    sides: Any = ("old", "new")
    with alternate_builds(*sides) as turn:
        assert turn("a", False) == turn("a", True) == (4.0, 5.0)
    assert [build for build, _ in timed] == ["old", "new", "new", "old"]
    assert processors[0] == processors[1]  # both builds suffer the same disturbances
    timed.clear()
    with alternate_with_yardstick(sides[1], {"a": 3.0}) as turn:
        assert turn("a", False) == turn("a", True) == (7.5, 5.0)
    assert [part for _, part in timed] == ["yardstick", "ours", "ours", "yardstick"]


def test_comparison_of_a_build_with_itself() -> None:
    with alternate_builds(get_this_build(), get_this_build()) as turn:
        before, now = turn("measure, 7 px", True)
    assert 1e-6 < before < 0.1
    assert 1e-6 < now < 0.1
