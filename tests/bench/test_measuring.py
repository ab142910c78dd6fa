from __future__ import annotations

import gc
import operator
from functools import partial
from typing import Any

from actgrid.bench import compare_pairs, time_interleaved
from actgrid.bench.measuring import Run


def test_interleaved_runs_cases_forwards_and_backwards() -> None:
    done: list[str] = []

    def prepare(name: str) -> Run:
        done.append(f"prepare {name}")
        return partial(done.append, name)

    seconds = time_interleaved({name: partial(prepare, name) for name in "abc"}, 2)
    assert [name for name in done if len(name) == 1] == list("abc" + "cba" + "abc")
    assert done[:4] == ["prepare a", "a", "prepare b", "b"]
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_preparation_and_first_round_are_not_timed(clock: Any) -> None:
    first = [100.0]

    def prepare() -> Run:
        clock.now += 50
        return clock.work(first.pop() if first else 2.0)  # type: ignore[no-any-return]

    assert time_interleaved({"a": prepare}, 3) == {"a": [2.0, 2.0, 2.0]}


def test_rounds_end_when_done(clock: Any) -> None:
    cases = {"a": lambda: clock.work(2.0), "b": lambda: clock.work(3.0)}
    seconds = time_interleaved(cases, 9, is_done=lambda seconds: len(seconds["b"]) == 2)
    assert seconds == {"a": [2.0, 2.0], "b": [3.0, 3.0]}


def test_first_round_is_counted_without_warmup(clock: Any) -> None:
    work = [1.0, 2.0]
    seconds = time_interleaved({"a": lambda: clock.work(work.pop(0))}, 2, has_warmup=False)
    assert seconds == {"a": [1.0, 2.0]}


def test_garbage_collection_is_disabled_while_timing() -> None:
    seen: list[bool] = []
    time_interleaved({"a": lambda: lambda: seen.append(gc.isenabled())}, 1)
    assert seen == [False, False]
    assert gc.isenabled()


def test_disturbed_round_does_not_change_ratio() -> None:
    assert compare_pairs([2.0, 20.0, 2.2, 2.0], [1.0, 10.0, 1.1, 1.0]) == 2.0
    assert compare_pairs([5.0, 7.0, 90.0], [4.0, 4.0, 4.0], operator.sub) == 3.0
