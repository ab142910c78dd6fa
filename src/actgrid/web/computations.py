"""Long computations with cached results and progress."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from actgrid.web.cache import Cache
from actgrid.web.scheduling import LongTask, Scheduler

__all__ = ["Computations"]

T = TypeVar("T")


class Computations:
    """Runs long computations in threads, caches the results, and reports progress.

    Parameters
    ----------
    cache
        Cache for the results.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._scheduler = Scheduler()

    async def get(self, key: Hashable, compute: Callable[[LongTask], T]) -> T:
        """Return the cached result of a key, or compute the result in a thread."""
        return await self._cache.get(key, partial(self._scheduler.run, key, compute))

    async def run(self, key: Hashable, compute: Callable[[LongTask], T]) -> T:
        """Compute the result of a key in a thread without caching the result."""
        return await self._scheduler.run(key, compute)

    def get_progress(self, key: Hashable) -> dict[str, Any]:
        """Return the state, finished steps and total steps of a computation, for JSON."""
        task = self._scheduler.find(key)
        if task is not None:
            state = "running" if task.is_started else "waiting"
            return {"state": state, "done": task.done, "total": task.total}
        if key in self._cache:
            return {"state": "ready", "done": 0, "total": 0}
        state = "waiting" if self._cache.is_pending(key) else "none"
        return {"state": state, "done": 0, "total": 0}

    def close(self) -> None:
        """Cancel all background computations of the viewer."""
        self._scheduler.close()
