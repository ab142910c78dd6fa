"""What was worked out lately, as much of it as may be kept."""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np

__all__ = ["Cache", "size_of"]

T = TypeVar("T")

_NUMBER = 32  # bytes of a Python number, with the place that a list has for it


def size_of(value: Any) -> int:
    """Return about how many bytes a value takes: an array, bytes, or what JSON has of them.

    Examples
    --------
    >>> size_of(np.zeros((2, 3), np.float32))
    24
    """
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(size_of(key) + size_of(entry) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        if value and isinstance(value[0], (int, float)):
            return _NUMBER * len(value)  # of which there may be very many
        return sys.getsizeof(value) + sum(map(size_of, value))
    return sys.getsizeof(value)


@dataclass(eq=False)
class _Flight:
    """A value on its way, and how many wait for it."""

    task: asyncio.Task[Any]
    waiting: int = 0
    is_kept: bool = True


class Cache:
    """Keeps values up to so many bytes, and makes each at most once at a time.

    What was not used for longest goes first. Values are shared: they must not be changed. It
    belongs to one event loop, in which all of its methods are to be called.

    Parameters
    ----------
    most_bytes
        How much may be kept, see `size_of`. A value that is larger is handed out, not kept.
    is_current
        Returns whether the value of a key may still be kept, once it is there; None: always.

    Attributes
    ----------
    most_bytes : int
        As given.
    size : int
        Bytes of all that is kept.

    Examples
    --------
    >>> cache = Cache(1 << 20)
    >>> async def make():
    ...     return await asyncio.to_thread(render)
    >>> picture = await cache.get("picture", make)
    """

    def __init__(
        self, most_bytes: int, is_current: Callable[[Hashable], bool] | None = None
    ) -> None:
        self.most_bytes = most_bytes
        self._is_current = is_current
        self.size = 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def is_pending(self, key: Hashable) -> bool:
        """Return whether the value of a key is being made."""
        return key in self._flights

    def find(self, key: Hashable) -> Any:
        """Return what is kept for a key; None if nothing is."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Hashable, value: Any) -> None:
        """Keep a value, in place of any that the key had, for as long as there is room.

        A value that may no longer be kept is left out.
        """
        _, before = self._kept.pop(key, (None, 0))
        self.size -= before
        size = size_of(value)
        if size > self.most_bytes or not (self._is_current is None or self._is_current(key)):
            return
        self._kept[key] = value, size
        self.size += size
        while self.size > self.most_bytes:
            _, (_, freed) = self._kept.popitem(last=False)
            self.size -= freed

    async def get(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T:
        """Return what is kept for a key, or else what `make` makes, which is kept then.

        However many ask for it meanwhile, it is made once. When all of them were cancelled, so is
        the making. What it raises reaches all who wait, and is forgotten.

        Parameters
        ----------
        key
            What it is kept by.
        make
            Called without arguments, in a task of its own.
        """
        found = self.find(key)
        if found is not None:
            return cast(T, found)
        flight = self._flights.get(key)
        if flight is None:
            flight = _Flight(asyncio.ensure_future(make()))
            flight.task.add_done_callback(partial(self._keep, key, flight))
            self._flights[key] = flight
        flight.waiting += 1
        try:
            return cast(T, await asyncio.shield(flight.task))
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                self._land(key, flight)

    def forget(self, part: Hashable) -> None:
        """Forget the values whose key is a tuple that contains `part`.

        Values that are being made are handed to those who wait for them, and not kept.
        """
        for key in [key for key in self._kept if isinstance(key, tuple) and part in key]:
            self.size -= self._kept.pop(key)[1]
        for key in [key for key in self._flights if isinstance(key, tuple) and part in key]:
            self._flights.pop(key).is_kept = False

    def _keep(self, key: Hashable, flight: _Flight, task: asyncio.Task[Any]) -> None:
        if flight.is_kept and not task.cancelled() and task.exception() is None:
            self.put(key, task.result())

    def _land(self, key: Hashable, flight: _Flight) -> None:
        # Whoever asks from now on is not to be given what is being cancelled.
        if self._flights.get(key) is flight:
            del self._flights[key]
        flight.task.cancel()

    def close(self) -> None:
        """Cancel what is being made, and forget all that was."""
        for flight in self._flights.values():
            flight.task.cancel()
        self._flights.clear()
        self._kept.clear()
        self.size = 0
