"""Long computations of the viewer: turns at the model, progress and cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

__all__ = ["LongTask", "Scheduler"]

T = TypeVar("T")

# Each holds a thread and its inputs; further ones wait until another ends.
_MAX_TASKS = 64
# Every so many turns the task goes that waits longest: short ones that keep coming would otherwise
# hold up a long one for good.
_LONGEST_WAIT_EVERY = 8


class _Cancelled(Exception):  # noqa: N818  (nobody waits for the task any more)
    """The task was cancelled."""


class LongTask:
    """A computation that runs the model many times, in a thread of its own.

    Attributes
    ----------
    done, total : int
        Samples or steps that are finished, and how many there are; `total` is 0 until it is known.
    started : bool
        Whether the computation has had its first turn.
    seconds : float
        Time of all its turns.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.done = 0
        self.total = 0
        self.started = False
        self.seconds = 0.0
        self.is_cancelled = False

    def report(self, done: int, total: int) -> None:
        """Report progress, and let another task run if it has used less time.

        A computation calls this between two runs of the model. It does not return if the task
        was cancelled.

        Parameters
        ----------
        done, total
            Finished samples and all samples of the current pass over the model. The pass with
            the most samples is the one whose progress is shown: others take one or two runs.
        """
        if total >= self.total:
            self.done, self.total = done, total
        self._scheduler.yield_turn(self)


class Scheduler:
    """Run long computations so that short ones do not wait for them.

    One task uses the model at a time. After each run of the model the turn goes to the waiting
    task that has used the least time so far (least attained service), so a computation of a few
    runs overtakes one of hundreds, and tasks of equal length alternate. Every eighth turn goes to
    the task that has waited longest.

    Examples
    --------
    >>> scheduler = Scheduler()
    >>> await scheduler.run("rise", lambda task: compute(progress=task.report))
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_MAX_TASKS, thread_name_prefix="actgrid-slow")
        self._changed = threading.Condition()
        self._tasks: dict[Hashable, LongTask] = {}
        self._waiting: list[LongTask] = []
        self._current: LongTask | None = None
        self._turns = 0
        self._turn_start = 0.0

    def find(self, key: Hashable) -> LongTask | None:
        """Return the unfinished task of a key, or None."""
        return self._tasks.get(key)

    async def run(self, key: Hashable, function: Callable[[LongTask], T]) -> T:
        """Run a function in turns with other tasks; cancel it if the caller is cancelled.

        Parameters
        ----------
        key
            Name of the task for `find`. No two unfinished tasks may have the same.
        function
            Is called in a thread with its task, whose `report` it calls between runs of the model.
        """
        task = LongTask(self)
        self._tasks[key] = task
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._perform, task, function)
        finally:
            del self._tasks[key]
            with self._changed:
                task.is_cancelled = True
                self._changed.notify_all()

    def close(self) -> None:
        """Cancel all tasks."""
        with self._changed:
            for task in self._tasks.values():
                task.is_cancelled = True
            self._changed.notify_all()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _perform(self, task: LongTask, function: Callable[[LongTask], T]) -> T:
        try:
            self._take_turn(task)
            task.started = True
            return function(task)
        finally:
            self._end_turn(task)

    def yield_turn(self, task: LongTask) -> None:
        """End the turn of a task and wait for its next one; raise if the task was cancelled."""
        self._end_turn(task)
        self._take_turn(task)

    def _take_turn(self, task: LongTask) -> None:
        def is_next() -> bool:
            return self._current is None and task is self._next()

        with self._changed:
            self._waiting.append(task)
            try:
                self._changed.wait_for(lambda: task.is_cancelled or is_next())
            finally:
                self._waiting.remove(task)
                # Another task may be the next one now.
                self._changed.notify_all()
            if task.is_cancelled:
                raise _Cancelled
            self._current = task
            self._turns += 1
            self._turn_start = monotonic()

    def _next(self) -> LongTask:
        if self._turns % _LONGEST_WAIT_EVERY == 0:
            return self._waiting[0]
        return min(self._waiting, key=lambda task: task.seconds)

    def _end_turn(self, task: LongTask) -> None:
        with self._changed:
            if self._current is task:
                task.seconds += monotonic() - self._turn_start
                self._current = None
                self._changed.notify_all()
