"""The API key cache of a replica: bounded in time and size, with one query at a time per key."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from itertools import chain

import pytest

from serve_app.auth import cache as cache_module
from serve_app.auth.cache import CacheLimits, KeyCache
from serve_app.auth.store import KeysUnavailable
from tests.support.keys import MADE_AT, Clock, InMemoryKeySource

STALENESS_S = 4.0


class World:
    def __init__(self, *, keys_max: int = 100) -> None:
        self.keys = InMemoryKeySource()
        self.clock = Clock()
        limits = CacheLimits(staleness_s=STALENESS_S, keys_max=keys_max)
        self.cache = KeyCache(self.keys, limits, clock=self.clock)

    def revoke(self, key_id: str) -> None:
        revoked_at = MADE_AT + timedelta(days=1)
        self.keys.records[key_id] = replace(self.keys.records[key_id], revoked_at=revoked_at)

    async def is_revoked(self, key_id: str) -> bool:
        held = await self.cache.find(key_id)
        assert held is not None
        return held.record.revoked_at is not None


async def background(world: World) -> None:
    """Let the background query of a request finish."""
    if world.cache._query is not None:
        await world.cache._query


async def test_a_key_is_read_once_and_then_remembered() -> None:
    world = World()
    key = world.keys.make()

    for _ in range(5):
        assert await world.cache.find(key.key_id) is not None
    assert world.keys.queries == [[key.key_id]]


async def test_a_revoked_key_is_known_as_such_within_the_staleness() -> None:
    world = World()
    key = world.keys.make()
    assert not await world.is_revoked(key.key_id)

    world.revoke(key.key_id)
    world.clock.now_s += STALENESS_S
    assert await world.is_revoked(key.key_id)


async def test_the_staleness_counts_from_the_question_and_not_from_the_answer() -> None:
    world = World()
    key = world.keys.make()
    world.keys.may_answer.clear()
    asking = asyncio.create_task(world.cache.find(key.key_id))
    await asyncio.sleep(0.01)
    world.revoke(key.key_id)  # after the query was sent
    world.clock.now_s += 3.0
    world.keys.may_answer.set()
    held = await asking
    assert held is not None
    assert held.record.revoked_at is None

    world.clock.now_s += 1.0
    assert await world.is_revoked(key.key_id)


async def test_a_key_in_use_is_refreshed_before_a_request_has_to_wait() -> None:
    world = World()
    key = world.keys.make()
    await world.cache.find(key.key_id)

    world.clock.now_s += STALENESS_S * 0.6
    world.keys.may_answer.clear()
    await asyncio.wait_for(world.cache.find(key.key_id), 1)  # answered from the cache
    await asyncio.sleep(0)
    assert len(world.keys.queries) == 2
    world.keys.may_answer.set()
    await background(world)

    world.clock.now_s += STALENESS_S * 0.6  # beyond the TTL of the first answer
    await world.cache.find(key.key_id)
    await background(world)
    assert len(world.keys.queries) == 3


async def test_a_herd_is_one_query() -> None:
    world = World()
    key = world.keys.make()
    unknown = [f"{number:016x}" for number in range(50)]
    world.keys.may_answer.clear()

    herd = [asyncio.create_task(world.cache.find(key.key_id)) for _ in range(100)]
    await asyncio.sleep(0)
    others = [asyncio.create_task(world.cache.find(one)) for one in unknown * 2]
    await asyncio.sleep(0.01)
    world.keys.may_answer.set()

    assert all(await asyncio.gather(*herd))
    assert not any(await asyncio.gather(*others))
    assert len(world.keys.queries) <= 2
    assert sorted(chain.from_iterable(world.keys.queries)) == sorted([key.key_id, *unknown])


async def test_what_does_not_exist_is_remembered_too() -> None:
    world = World()

    for _ in range(3):
        assert await world.cache.find("0" * 16) is None
    assert len(world.keys.queries) == 1


async def test_many_made_up_keys_are_bounded_and_evict_no_real_key() -> None:
    world = World(keys_max=10)
    key = world.keys.make()
    await world.cache.find(key.key_id)

    for number in range(200):
        await world.cache.find(f"{number:016x}")

    assert len(world.cache) <= 11
    before = len(world.keys.queries)
    assert await world.cache.find(key.key_id) is not None
    assert len(world.keys.queries) == before


async def test_no_more_real_keys_are_remembered_than_the_bound() -> None:
    world = World(keys_max=10)
    for _ in range(30):
        await world.cache.find(world.keys.make().key_id)

    assert len(world.cache) == 10


async def test_only_so_many_unknown_keys_wait_for_a_query(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache_module, "PENDING_LOOKUPS_MAX", 3)
    world = World()
    world.keys.may_answer.clear()
    first = asyncio.create_task(world.cache.find("f" * 16))
    await asyncio.sleep(0.01)  # its query is running
    waiting = [asyncio.create_task(world.cache.find(f"{n:016x}")) for n in range(3)]
    await asyncio.sleep(0)

    with pytest.raises(KeysUnavailable):
        await world.cache.find("e" * 16)
    world.keys.may_answer.set()
    assert await asyncio.gather(first, *waiting) == [None] * 4


async def test_without_postgres_a_known_key_is_valid_until_it_is_too_old() -> None:
    world = World()
    key = world.keys.make()
    await world.cache.find(key.key_id)
    world.keys.is_away = True

    world.clock.now_s += STALENESS_S - 0.1
    assert await world.cache.find(key.key_id) is not None
    await background(world)
    world.clock.now_s += 1.0
    with pytest.raises(KeysUnavailable):
        await world.cache.find(key.key_id)

    world.keys.is_away = False
    world.clock.now_s += 1.0
    assert await world.cache.find(key.key_id) is not None


async def test_after_a_failure_postgres_is_left_alone_for_a_moment() -> None:
    world = World()
    world.keys.is_away = True
    for _ in range(20):
        with pytest.raises(KeysUnavailable):
            await world.cache.find("0" * 16)
    assert len(world.keys.queries) == 1

    world.clock.now_s += cache_module.RETRY_S
    with pytest.raises(KeysUnavailable):
        await world.cache.find("0" * 16)
    assert len(world.keys.queries) == 2


async def test_a_request_that_is_given_up_does_not_take_the_others_answer_away() -> None:
    world = World()
    key = world.keys.make()
    world.keys.may_answer.clear()
    given_up, other = (asyncio.create_task(world.cache.find(key.key_id)) for _ in range(2))
    await asyncio.sleep(0.01)
    given_up.cancel()
    world.keys.may_answer.set()

    assert await other is not None
