"""A scheduler for long computations that share a model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

__all__ = ["LongTask", "Scheduler"]

T = TypeVar("T")

# Each task occupies a thread and the memory of its inputs. Further tasks wait.
_MAX_TASKS = 64
# Every eighth turn goes to the task that has waited longest. Otherwise, a continuous stream of
# short tasks would block a long task forever.
_LONGEST_WAIT_EVERY = 8


class _Cancelled(Exception):  # noqa: N818  (ends the thread; no caller receives the exception)
    """Raised in a background task that was cancelled."""


class LongTask:
    """A computation in its own thread that runs the model many times.

    Attributes
    ----------
    done, total : int
        Number of finished and of all samples or steps; `total` is 0 until it is known.
    is_started : bool
        Whether the computation has had its first turn.
    seconds : float
        Total duration of its turns.
    is_cancelled : bool
        Whether the computation was cancelled.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.done = 0
        self.total = 0
        self.is_started = False
        self.seconds = 0.0
        self.is_cancelled = False

    def report(self, done: int, total: int) -> None:
        """Report progress, and let another task run if it has used less time.

        A computation calls this method between two runs of the model. If the task was cancelled,
        the method raises an exception, which ends the computation.

        Parameters
        ----------
        done, total
            Number of finished and of all samples of the current pass over the model. The pass with
            the most samples determines the progress; other passes take one or two runs.
        """
        if total >= self.total:
            self.done, self.total = done, total
        self._scheduler.yield_turn(self)


class Scheduler:
    """Runs long computations in turns so that short computations finish early.

    One task uses the model at a time. After each run of the model, the turn goes to the waiting
    task that has used the least time so far (least attained service). A computation of a few runs
    therefore overtakes a computation of hundreds of runs, and tasks of equal length alternate.
    Every eighth turn goes to the task that has waited longest.

    Examples
    --------
    >>> scheduler = Scheduler()
    >>> def compute(task):
    ...     for step in range(3):
    ...         task.report(step, 3)
    ...     return "finished"
    >>> asyncio.run(scheduler.run("key", compute))
    'finished'
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
        """Return the unfinished task of a key, or None if there is no such task."""
        return self._tasks.get(key)

    async def run(self, key: Hashable, function: Callable[[LongTask], T]) -> T:
        """Run a function in a thread, in turns with other tasks, and return its result.

        The function is cancelled if the caller is cancelled.

        Parameters
        ----------
        key
            Name of the task for `find`, unique among unfinished tasks.
        function
            Function that takes its task and calls `task.report` between runs of the model.
        """
        task = LongTask(self)
        self._tasks[key] = task
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, self._run_task, task, function)
        finally:
            del self._tasks[key]
            with self._changed:
                task.is_cancelled = True
                self._changed.notify_all()

    def close(self) -> None:
        """Cancel all background tasks."""
        with self._changed:
            for task in self._tasks.values():
                task.is_cancelled = True
            self._changed.notify_all()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run_task(self, task: LongTask, function: Callable[[LongTask], T]) -> T:
        try:
            self._take_turn(task)
            task.is_started = True
            return function(task)
        finally:
            self._end_turn(task)

    def yield_turn(self, task: LongTask) -> None:
        """Let other background tasks run, and wait for the next turn of this task.

        Raise an exception that ends the task if the task was cancelled.
        """
        # The task must be waiting before another task may choose who is next.
        with self._changed:
            self._end_turn(task)
            self._take_turn(task)

    def _take_turn(self, task: LongTask) -> None:
        def is_next() -> bool:
            return self._current is None and task is self._choose_next()

        with self._changed:
            self._waiting.append(task)
            try:
                self._changed.wait_for(lambda: task.is_cancelled or is_next())
            finally:
                self._waiting.remove(task)
                # Another task may now be next.
                self._changed.notify_all()
            if task.is_cancelled:
                raise _Cancelled
            self._current = task
            self._turns += 1
            self._turn_start = monotonic()

    def _choose_next(self) -> LongTask:
        if self._turns % _LONGEST_WAIT_EVERY == 0:
            return self._waiting[0]
        return min(self._waiting, key=lambda task: task.seconds)

    def _end_turn(self, task: LongTask) -> None:
        with self._changed:
            if self._current is task:
                task.seconds += monotonic() - self._turn_start
                self._current = None
                self._changed.notify_all()
