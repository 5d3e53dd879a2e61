"""One view of all shards for every probe of a second."""

import asyncio

import pytest

from serve_app.shard_view import SharedView


class Shards:
    def __init__(self) -> None:
        self.asked = 0
        self.now_s = 100.0
        self.fails = False
        self.answer = asyncio.Event()
        self.answer.set()
        self.view = SharedView(self.collect, clock=lambda: self.now_s, max_age_s=1.0)

    async def collect(self) -> int:
        self.asked += 1
        await self.answer.wait()
        if self.fails:
            raise TimeoutError
        return self.asked


async def test_probes_within_a_second_ask_once() -> None:
    shards = Shards()
    assert [await shards.view() for _ in range(5)] == [1] * 5
    shards.now_s += 1.0
    assert await shards.view() == 1


async def test_an_old_view_is_renewed() -> None:
    shards = Shards()
    await shards.view()
    shards.now_s += 1.1
    assert await shards.view() == 2


async def test_probes_during_a_renewal_share_it() -> None:
    shards = Shards()
    shards.answer.clear()
    probes = [asyncio.create_task(shards.view()) for _ in range(5)]
    await asyncio.sleep(0)
    shards.now_s += 10
    probes.append(asyncio.create_task(shards.view()))
    await asyncio.sleep(0)
    shards.answer.set()
    assert await asyncio.gather(*probes) == [1] * 6


async def test_a_failure_is_told_and_not_kept() -> None:
    shards = Shards()
    shards.fails = True
    with pytest.raises(TimeoutError):
        await shards.view()
    shards.fails = False
    assert await shards.view() == 2


async def test_a_probe_that_gives_up_does_not_end_the_others_view() -> None:
    shards = Shards()
    shards.answer.clear()
    first, second = asyncio.create_task(shards.view()), asyncio.create_task(shards.view())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    shards.answer.set()
    assert await second == 1
