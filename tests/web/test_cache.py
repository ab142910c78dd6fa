"""What is kept, what is made once, and what stops when nobody waits."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actgrid.web.cache import Cache, size_of


class Maker:
    """Makes a value when told to, and counts."""

    def __init__(self, value: Any = b"made") -> None:
        self.value = value
        self.begun = self.cancelled = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> Any:
        self.begun += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_what_was_put_is_found() -> None:
    cache = Cache(100)
    cache.put("a", np.zeros(3, np.float32))
    assert "a" in cache
    assert cache.find("a").shape == (3,)
    assert cache.find("b") is None
    assert (len(cache), cache.size) == (1, 12)


def test_all_that_has_a_part_in_its_key_is_forgotten() -> None:
    async def run() -> None:
        cache = Cache(1000)
        for key in [("a", 1), ("b", 1), ("c", "a", 2), "a"]:
            cache.put(key, np.zeros(10, np.uint8))
        maker = Maker(np.zeros(10, np.uint8))
        waiting = asyncio.ensure_future(cache.get(("d", "a"), maker))
        await settled()
        assert cache.is_pending(("d", "a"))
        cache.forget("a")
        assert not cache.is_pending(("d", "a"))
        assert [key for key in [("a", 1), ("b", 1), ("c", "a", 2), "a"] if key in cache] == [
            *(("b", 1), "a")
        ]
        assert cache.size == 20
        # Who waits gets the value, which is not kept; who comes later has another made.
        maker.go_on.set()
        assert (await waiting).size == 10
        assert ("d", "a") not in cache
        await cache.get(("d", "a"), maker)
        assert (maker.begun, cache.size) == (2, 30)

    asyncio.run(run())


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = Cache(24)
    for name in "abc":
        cache.put(name, np.zeros(8, np.uint8))
    cache.find("a")
    cache.put("d", np.zeros(8, np.uint8))
    assert [name for name in "abcd" if name in cache] == ["a", "c", "d"]
    assert cache.size == 24


def test_a_value_in_place_of_another_takes_its_room() -> None:
    cache = Cache(24)
    cache.put("a", np.zeros(20, np.uint8))
    cache.put("a", np.zeros(10, np.uint8))
    assert cache.size == 10
    cache.put("a", np.zeros(25, np.uint8))  # too large to be kept: nor is what it replaces
    assert (len(cache), cache.size) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60))
def test_never_keeps_more_than_it_may(puts: list[tuple[int, int]]) -> None:
    cache = Cache(64)
    for key, size in puts:
        cache.put(key, np.zeros(size, np.uint8))
        assert cache.size <= 64
        assert cache.size == sum(cache.find(key).nbytes for key in range(6) if key in cache)
    if puts:
        assert puts[-1][0] in cache


def test_sizes_are_those_of_arrays_and_about_those_of_json() -> None:
    assert size_of(np.zeros((2, 3), np.float64)) == 48
    assert 1000 <= size_of(b"x" * 1000) <= 1100
    listed = [float(number) for number in range(1000)]
    assert 24_000 <= size_of(listed) <= 40_000
    assert size_of({"a": listed, "b": listed}) >= 2 * size_of(listed)
    assert size_of((np.zeros(10), b"")) >= 80
    assert size_of([None, "text"]) > size_of([])


def test_a_value_is_made_once_however_many_ask() -> None:
    async def run() -> None:
        cache, maker = Cache(1000), Maker(np.zeros(3))
        asked = [asyncio.ensure_future(cache.get("key", maker)) for _ in range(5)]
        await settled()
        maker.go_on.set()
        found = await asyncio.gather(*asked)
        assert maker.begun == 1
        assert all(value is found[0] for value in found)
        assert await cache.get("key", maker) is found[0]
        assert maker.begun == 1

    asyncio.run(run())


def test_what_is_too_large_is_handed_out_and_not_kept() -> None:
    async def run() -> None:
        cache, maker = Cache(10), Maker(np.zeros(100))
        maker.go_on.set()
        assert (await cache.get("key", maker)).shape == (100,)
        assert len(cache) == 0
        await cache.get("key", maker)
        assert maker.begun == 2

    asyncio.run(run())


def test_an_error_reaches_all_and_is_forgotten() -> None:
    async def run() -> None:
        cache, maker = Cache(1000), Maker(ValueError("no"))
        maker.go_on.set()
        asked = [asyncio.ensure_future(cache.get("key", maker)) for _ in range(3)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(error) for error in found] == ["no"] * 3
        assert maker.begun == 1
        maker.value = b"better"
        assert await cache.get("key", maker) == b"better"

    asyncio.run(run())


def test_one_who_is_cancelled_does_not_stop_it_for_others() -> None:
    async def run() -> None:
        cache, maker = Cache(1000), Maker()
        one, other = (asyncio.ensure_future(cache.get("key", maker)) for _ in range(2))
        await settled()
        one.cancel()
        await settled()
        assert maker.cancelled == 0
        maker.go_on.set()
        assert await other == b"made"
        with pytest.raises(asyncio.CancelledError):
            await one

    asyncio.run(run())


def test_it_stops_when_the_last_one_is_cancelled() -> None:
    async def run() -> None:
        cache, maker = Cache(1000), Maker()
        asked = [asyncio.ensure_future(cache.get("key", maker)) for _ in range(2)]
        await settled()
        for one in asked:
            one.cancel()
        await settled()
        assert maker.cancelled == 1
        maker.go_on.set()
        assert await cache.get("key", maker) == b"made"  # and begins anew
        assert maker.begun == 2

    asyncio.run(run())


def test_one_who_asks_while_it_is_being_stopped_gets_a_new_one() -> None:
    async def run() -> None:
        cache, maker = Cache(1000), Maker()
        first = asyncio.ensure_future(cache.get("key", maker))
        await settled()
        first.cancel()
        second = asyncio.ensure_future(cache.get("key", maker))
        await settled()
        maker.go_on.set()
        assert await second == b"made"

    asyncio.run(run())


def test_what_is_made_of_something_else_stops_that_too() -> None:
    async def run() -> None:
        cache, maker = Cache(1000), Maker()

        async def outer() -> Any:
            return (await cache.get("inner", maker)) + b"!"

        asked = asyncio.ensure_future(cache.get("outer", outer))
        await settled()
        asked.cancel()
        await settled()
        assert (maker.begun, maker.cancelled) == (1, 1)
        maker.go_on.set()
        assert await cache.get("outer", outer) == b"made!"

    asyncio.run(run())


def test_closing_cancels_and_forgets() -> None:
    async def run() -> None:
        cache, maker = Cache(1000), Maker()
        cache.put("a", b"b")
        asked = asyncio.ensure_future(cache.get("key", maker))
        await settled()
        cache.close()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (maker.cancelled, len(cache), cache.size) == (1, 0, 0)

    asyncio.run(run())
