"""Tests of the scheduler: turns, progress, errors and cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import sleep

import pytest

from actgrid.web.scheduling import LongTask, Scheduler


def run(test: Callable[[Scheduler], Awaitable[None]]) -> None:
    async def main() -> None:
        scheduler = Scheduler()
        await asyncio.wait_for(test(scheduler), 60)
        scheduler.close()

    asyncio.run(main())


async def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(4000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError("the condition was never met")


def make_computation(
    log: list[str], name: str, runs: int, seconds: float = 0.002
) -> Callable[[LongTask], str]:
    """Return a computation that simulates model runs and appends its name to a log."""

    def compute(task: LongTask) -> str:
        for done in range(runs):
            task.report(done, runs)
            log.append(name)
            sleep(seconds)
        return name

    return compute


def test_a_short_computation_overtakes_long_ones() -> None:
    log: list[str] = []

    async def test(scheduler: Scheduler) -> None:
        long = [
            asyncio.ensure_future(scheduler.run(name, make_computation(log, name, 10_000)))
            for name in ("first", "second")
        ]
        await wait_until(lambda: log.count("first") > 100 and log.count("second") > 100)
        assert await scheduler.run("short", make_computation(log, "short", 70, 0)) == "short"
        # Only the runs after the first one are counted: a thread may start late.
        del log[: log.index("short")]
        last = len(log) - log[::-1].index("short")
        # Every eighth turn goes to the task that has waited longest.
        assert last - 70 <= 70 / 7
        assert not any(task.done() for task in long)
        for task in long:
            task.cancel()

    run(test)


def test_equal_computations_alternate() -> None:
    log: list[str] = []

    async def test(scheduler: Scheduler) -> None:
        tasks = [
            scheduler.run(name, make_computation(log, name, 60, 0.005))
            for name in ("first", "second")
        ]
        assert await asyncio.gather(*tasks) == ["first", "second"]

    run(test)
    # While both run, they have about the same number of turns.
    shared = log[: max(log.index("first"), log.index("second")) + 80]
    assert abs(shared.count("first") - shared.count("second")) < 20


def test_long_computation_progresses_among_many_short_ones() -> None:
    log: list[str] = []

    async def test(scheduler: Scheduler) -> None:
        long = asyncio.ensure_future(scheduler.run("long", make_computation(log, "long", 10_000)))
        await wait_until(lambda: len(log) > 20)
        log.clear()

        async def run_short_tasks(name: str) -> None:
            for number in range(30):
                await scheduler.run((name, number), make_computation(log, "short", 4))

        # Several tasks that have used less time always exist.
        await asyncio.gather(*(run_short_tasks(name) for name in "abcd"))
        assert log.count("short") == 480
        assert log.count("long") > 20
        long.cancel()

    run(test)


def test_one_computation_runs_at_a_time() -> None:
    running: list[str] = []
    counts: list[int] = []

    def compute(task: LongTask) -> None:
        for done in range(50):
            task.report(done, 50)
            running.append("run")
            counts.append(len(running))
            sleep(0.001)
            running.pop()

    async def test(scheduler: Scheduler) -> None:
        await asyncio.gather(*(scheduler.run(number, compute) for number in range(6)))

    run(test)
    assert max(counts) == 1
    assert len(counts) == 300


@pytest.mark.parametrize("closed", [False, True], ids=["cancelled", "closed"])
def test_cancelled_computations_end(closed: bool) -> None:
    log: list[str] = []

    async def test(scheduler: Scheduler) -> None:
        names = ("first", "second", "third")
        tasks = [
            asyncio.ensure_future(scheduler.run(name, make_computation(log, name, 10**6)))
            for name in names
        ]
        await wait_until(lambda: set(log) == set(names))
        for task in tasks:
            task.cancel()
        if closed:
            scheduler.close()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task
        assert all(scheduler.find(name) is None for name in names)
        threads = list(scheduler._threads._threads)
        scheduler._threads.shutdown()  # returns when the threads have ended
        assert not any(thread.is_alive() for thread in threads)
        count = len(log)
        await asyncio.sleep(0.02)
        assert len(log) == count

    run(test)


def test_error_reaches_the_caller_and_ends_the_turn() -> None:
    def fail(task: LongTask) -> None:
        task.report(0, 1)
        raise ValueError("it failed")

    async def test(scheduler: Scheduler) -> None:
        with pytest.raises(ValueError, match="it failed"):
            await scheduler.run("failing", fail)
        assert await scheduler.run("next", make_computation([], "next", 2)) == "next"

    run(test)


def test_progress_is_that_of_the_longest_pass() -> None:
    states: list[tuple[bool, int, int]] = []

    def compute(task: LongTask) -> None:
        for done, total in [(0, 1), (0, 8), (4, 8), (0, 1)]:
            task.report(done, total)
            states.append((task.is_started, task.done, task.total))

    async def test(scheduler: Scheduler) -> None:
        await scheduler.run("task", compute)

    run(test)
    assert states == [(True, 0, 1), (True, 0, 8), (True, 4, 8), (True, 4, 8)]
