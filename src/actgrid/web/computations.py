"""Long computations whose results are kept: `Computations`."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

from actgrid.web.cache import Cache
from actgrid.web.scheduling import LongTask, Scheduler

__all__ = ["Computations"]

T = TypeVar("T")


class Computations:
    """Computes values in turns at the model, keeps them, and tells how far each one is.

    Parameters
    ----------
    cache
        What keeps the values.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._scheduler = Scheduler()

    async def get(self, key: Hashable, compute: Callable[[LongTask], T]) -> T:
        """Return the value of a key, computed in a thread unless it is kept."""
        return await self._cache.get(key, partial(self._scheduler.run, key, compute))

    async def run(self, key: Hashable, compute: Callable[[LongTask], T]) -> T:
        """Compute the value of a key in a thread; the caller keeps it."""
        return await self._scheduler.run(key, compute)

    def progress(self, key: Hashable) -> dict[str, Any]:
        """Return how far the computation of the value of a key is."""
        task = self._scheduler.find(key)
        if task is not None:
            state = "running" if task.started else "waiting"
            return {"state": state, "done": task.done, "total": task.total}
        if key in self._cache:
            return {"state": "ready", "done": 0, "total": 0}
        state = "waiting" if self._cache.is_pending(key) else "none"
        return {"state": state, "done": 0, "total": 0}

    def close(self) -> None:
        """Cancel all computations."""
        self._scheduler.close()
