"""A cache with a memory limit for values that are computed asynchronously."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np

__all__ = ["Cache", "estimate_size"]

T = TypeVar("T")

_NUMBER_BYTES = 32  # a Python number and its pointer in a list


def estimate_size(value: Any) -> int:
    """Return the approximate memory of an array, bytes object or JSON value in bytes.

    Examples
    --------
    >>> estimate_size(np.zeros((2, 3), np.float32))
    24
    """
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(estimate_size(key) + estimate_size(entry) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], (int, float)):
            return _NUMBER_BYTES * len(value)  # long lists of numbers are not iterated
        return sys.getsizeof(value) + sum(map(estimate_size, value))
    return sys.getsizeof(value)


@dataclass(eq=False)
class _Computation:
    """A running computation of a value.

    Parameters
    ----------
    task
        Task that computes the value.
    waiter_count
        Number of callers that wait for the value.
    is_stored
        Whether to store the value when the task ends.
    """

    task: asyncio.Task[Any]
    waiter_count: int = 0
    is_stored: bool = True


class Cache:
    """A least-recently-used cache that limits memory and shares running computations.

    The least recently used values are removed first. Callers share a value and must not modify it.
    All methods must be called in one event loop.

    Parameters
    ----------
    max_bytes
        Maximum memory of all values, see `estimate_size`. A larger value is returned, not stored.
    can_store
        Function that takes a key and returns whether its value may be stored; None: always.

    Attributes
    ----------
    max_bytes : int
        Maximum memory of all values.
    size : int
        Current memory of all values in bytes.

    Examples
    --------
    >>> cache = Cache(max_bytes=1 << 20)
    >>> async def compute():
    ...     return np.zeros(10, np.float32)
    >>> asyncio.run(cache.get("zeros", compute)).shape
    (10,)
    >>> cache.size
    40
    """

    def __init__(self, max_bytes: int, can_store: Callable[[Hashable], bool] | None = None) -> None:
        self.max_bytes = max_bytes
        self._can_store = can_store
        self.size = 0
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._computations: dict[Hashable, _Computation] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def is_pending(self, key: Hashable) -> bool:
        """Return whether the cached value of a key is still being computed."""
        return key in self._computations

    def find(self, key: Hashable) -> Any:
        """Return the stored value of a key, or None if no value is stored."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key][0]

    def put(self, key: Hashable, value: Any) -> None:
        """Store a value, replacing the previous value of the key.

        A value that is larger than the cache, or that may not be stored, is dropped.
        """
        _, previous_size = self._entries.pop(key, (None, 0))
        self.size -= previous_size
        size = estimate_size(value)
        if size > self.max_bytes or not (self._can_store is None or self._can_store(key)):
            return
        self._entries[key] = value, size
        self.size += size
        while self.size > self.max_bytes:
            _, (_, removed_size) = self._entries.popitem(last=False)
            self.size -= removed_size

    async def get(self, key: Hashable, compute: Callable[[], Awaitable[T]]) -> T:
        """Return the value of a key; compute and store the value if it is missing.

        Concurrent calls with the same key share one computation, which is cancelled when all of
        these calls are cancelled. An exception is raised in all of them and is not stored.

        Parameters
        ----------
        key
            Key of the value.
        compute
            Function without parameters that returns an awaitable, which runs in its own task.
        """
        value = self.find(key)
        if value is not None:
            return cast(T, value)
        computation = self._computations.get(key)
        if computation is None:
            computation = _Computation(asyncio.ensure_future(compute()))
            computation.task.add_done_callback(partial(self._store_result, key, computation))
            self._computations[key] = computation
        computation.waiter_count += 1
        try:
            return cast(T, await asyncio.shield(computation.task))
        finally:
            computation.waiter_count -= 1
            if not computation.waiter_count:
                self._end_computation(key, computation)

    def remove(self, part: Hashable) -> None:
        """Remove all values whose key is a tuple that contains an element.

        Running computations of such values continue, but their results are not stored.

        Parameters
        ----------
        part
            Element of the keys.
        """
        for key in [key for key in self._entries if isinstance(key, tuple) and part in key]:
            self.size -= self._entries.pop(key)[1]
        for key in [key for key in self._computations if isinstance(key, tuple) and part in key]:
            self._computations.pop(key).is_stored = False

    def _store_result(
        self, key: Hashable, computation: _Computation, task: asyncio.Task[Any]
    ) -> None:
        if computation.is_stored and not task.cancelled() and task.exception() is None:
            self.put(key, task.result())

    def _end_computation(self, key: Hashable, computation: _Computation) -> None:
        # Later calls must not join a computation that is being cancelled.
        if self._computations.get(key) is computation:
            del self._computations[key]
        computation.task.cancel()

    def close(self) -> None:
        """Cancel all running computations and remove all values of the cache."""
        for computation in self._computations.values():
            computation.task.cancel()
        self._computations.clear()
        self._entries.clear()
        self.size = 0
