"""Tests of the cache: limits, shared computations and cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actgrid.web.cache import Cache, estimate_size


class FakeComputation:
    """A computation that finishes on command and counts its calls."""

    def __init__(self, value: Any = b"value") -> None:
        self.value = value
        self.started_count = self.cancelled_count = 0
        self.may_finish = asyncio.Event()

    async def __call__(self) -> Any:
        self.started_count += 1
        try:
            await self.may_finish.wait()
        except asyncio.CancelledError:
            self.cancelled_count += 1
            raise
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


async def run_pending_tasks() -> None:
    """Run all tasks until they wait for an event."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_find_returns_stored_value() -> None:
    cache = Cache(100)
    cache.put("a", np.zeros(3, np.float32))
    assert "a" in cache
    assert cache.find("a").shape == (3,)
    assert cache.find("b") is None
    assert (len(cache), cache.size) == (1, 12)


def test_remove_deletes_all_keys_with_an_element() -> None:
    async def run() -> None:
        cache = Cache(1000)
        for key in [("a", 1), ("b", 1), ("c", "a", 2), "a"]:
            cache.put(key, np.zeros(10, np.uint8))
        computation = FakeComputation(np.zeros(10, np.uint8))
        request = asyncio.ensure_future(cache.get(("d", "a"), computation))
        await run_pending_tasks()
        assert cache.is_pending(("d", "a"))
        cache.remove("a")
        assert not cache.is_pending(("d", "a"))
        assert [key for key in [("a", 1), ("b", 1), ("c", "a", 2), "a"] if key in cache] == [
            *(("b", 1), "a")
        ]
        assert cache.size == 20
        # The value is returned to the request but not stored; a later request computes it again.
        computation.may_finish.set()
        assert (await request).size == 10
        assert ("d", "a") not in cache
        await cache.get(("d", "a"), computation)
        assert (computation.started_count, cache.size) == (2, 30)

    asyncio.run(run())


def test_least_recently_used_value_is_evicted_first() -> None:
    cache = Cache(24)
    for name in "abc":
        cache.put(name, np.zeros(8, np.uint8))
    cache.find("a")
    cache.put("d", np.zeros(8, np.uint8))
    assert [name for name in "abcd" if name in cache] == ["a", "c", "d"]
    assert cache.size == 24


def test_put_replaces_value_and_its_size() -> None:
    cache = Cache(24)
    cache.put("a", np.zeros(20, np.uint8))
    cache.put("a", np.zeros(10, np.uint8))
    assert cache.size == 10
    cache.put("a", np.zeros(25, np.uint8))  # too large to be stored; the previous value is removed
    assert (len(cache), cache.size) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_size_never_exceeds_limit(puts: list[tuple[int, int]]) -> None:
    cache = Cache(64)
    for key, size in puts:
        cache.put(key, np.zeros(size, np.uint8))
        assert cache.size <= 64
        assert cache.size == sum(cache.find(key).nbytes for key in range(6) if key in cache)
    if puts:
        assert puts[-1][0] in cache


def test_estimated_sizes_of_arrays_bytes_and_json() -> None:
    assert estimate_size(np.zeros((2, 3), np.float64)) == 48
    assert 1000 <= estimate_size(b"x" * 1000) <= 1100
    numbers = [float(number) for number in range(1000)]
    assert 24_000 <= estimate_size(numbers) <= 40_000
    assert estimate_size({"a": numbers, "b": numbers}) >= 2 * estimate_size(numbers)
    assert estimate_size((np.zeros(10), b"")) >= 80
    assert estimate_size([None, "text"]) > estimate_size([])


def test_concurrent_requests_share_computation() -> None:
    async def run() -> None:
        cache, computation = Cache(1000), FakeComputation(np.zeros(3))
        requests = [asyncio.ensure_future(cache.get("key", computation)) for _ in range(5)]
        await run_pending_tasks()
        computation.may_finish.set()
        values = await asyncio.gather(*requests)
        assert computation.started_count == 1
        assert all(value is values[0] for value in values)
        assert await cache.get("key", computation) is values[0]
        assert computation.started_count == 1

    asyncio.run(run())


def test_too_large_value_is_returned_but_not_stored() -> None:
    async def run() -> None:
        cache, computation = Cache(10), FakeComputation(np.zeros(100))
        computation.may_finish.set()
        assert (await cache.get("key", computation)).shape == (100,)
        assert len(cache) == 0
        await cache.get("key", computation)
        assert computation.started_count == 2

    asyncio.run(run())


def test_error_is_raised_in_all_requests_and_not_stored() -> None:
    async def run() -> None:
        cache, computation = Cache(1000), FakeComputation(ValueError("no"))
        computation.may_finish.set()
        requests = [asyncio.ensure_future(cache.get("key", computation)) for _ in range(3)]
        errors = await asyncio.gather(*requests, return_exceptions=True)
        assert [str(error) for error in errors] == ["no"] * 3
        assert computation.started_count == 1
        computation.value = b"better"
        assert await cache.get("key", computation) == b"better"

    asyncio.run(run())


def test_cancelled_request_does_not_cancel_other_requests() -> None:
    async def run() -> None:
        cache, computation = Cache(1000), FakeComputation()
        cancelled, other = (asyncio.ensure_future(cache.get("key", computation)) for _ in range(2))
        await run_pending_tasks()
        cancelled.cancel()
        await run_pending_tasks()
        assert computation.cancelled_count == 0
        computation.may_finish.set()
        assert await other == b"value"
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    asyncio.run(run())


def test_computation_is_cancelled_with_last_request() -> None:
    async def run() -> None:
        cache, computation = Cache(1000), FakeComputation()
        requests = [asyncio.ensure_future(cache.get("key", computation)) for _ in range(2)]
        await run_pending_tasks()
        for request in requests:
            request.cancel()
        await run_pending_tasks()
        assert computation.cancelled_count == 1
        computation.may_finish.set()
        assert await cache.get("key", computation) == b"value"  # starts again
        assert computation.started_count == 2

    asyncio.run(run())


def test_request_during_cancellation_starts_new_computation() -> None:
    async def run() -> None:
        cache, computation = Cache(1000), FakeComputation()
        first = asyncio.ensure_future(cache.get("key", computation))
        await run_pending_tasks()
        first.cancel()
        second = asyncio.ensure_future(cache.get("key", computation))
        await run_pending_tasks()
        computation.may_finish.set()
        assert await second == b"value"

    asyncio.run(run())


def test_cancellation_reaches_nested_computation() -> None:
    async def run() -> None:
        cache, computation = Cache(1000), FakeComputation()

        async def outer() -> Any:
            return (await cache.get("inner", computation)) + b"!"

        request = asyncio.ensure_future(cache.get("outer", outer))
        await run_pending_tasks()
        request.cancel()
        await run_pending_tasks()
        assert (computation.started_count, computation.cancelled_count) == (1, 1)
        computation.may_finish.set()
        assert await cache.get("outer", outer) == b"value!"

    asyncio.run(run())


def test_close_cancels_computations_and_removes_values() -> None:
    async def run() -> None:
        cache, computation = Cache(1000), FakeComputation()
        cache.put("a", b"b")
        request = asyncio.ensure_future(cache.get("key", computation))
        await run_pending_tasks()
        cache.close()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (computation.cancelled_count, len(cache), cache.size) == (1, 0, 0)

    asyncio.run(run())
