"""A shard writes only to a database that is known to have the whole history."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from actors.history.guard import HistoryGuard
from actors.history.ports import DatabaseIdentity, StreamEvent, StreamUnreadable
from actors.journal.ports import JournalBusy, JournalUnavailable, SessionLost
from tests.support.waiting import until
from tests.unit.test_history_comparison import Tail, steady

FIRST = DatabaseIdentity("7001", "00000001", 5)
PROMOTED = DatabaseIdentity("7001", "00000002", 5)


class Store:
    """A database in memory that knows ``known`` and has lost the events from ``lost_from`` on."""

    def __init__(self, identity: DatabaseIdentity = FIRST, *, lost_from: int = 10**9) -> None:
        self.here = identity
        self.known = {FIRST}
        self.lost_from = lost_from
        self.stored: list[int] = []
        self.is_locked = False
        self.locked_by_another = False
        self.session = 1

    def _require(self, session: int) -> None:
        if session != self.session:
            raise SessionLost(f"session {session} has ended")

    async def identity(self, session: int) -> DatabaseIdentity:
        self._require(session)
        return self.here

    async def is_known(self, identity: DatabaseIdentity, session: int) -> bool:
        self._require(session)
        return identity in self.known

    async def try_begin(self, session: int) -> bool:
        self._require(session)
        self.is_locked = not self.locked_by_another
        return self.is_locked

    async def give_up(self, session: int) -> None:
        self._require(session)
        self.is_locked = False

    async def lost(self, events: Sequence[StreamEvent], session: int) -> Sequence[StreamEvent]:
        self._require(session)
        return [event for event in events if event.sequence >= self.lost_from]

    async def adopt(
        self, identity: DatabaseIdentity, lost: Sequence[StreamEvent], session: int
    ) -> int:
        self._require(session)
        assert self.is_locked, "only who has the lock decides"
        self.is_locked = False
        self.known.add(identity)
        found = [event.sequence for event in lost if event.sequence not in self.stored]
        self.stored += found
        return len(found)

    async def forked_wallets(self, session: int) -> int:
        self._require(session)
        return int(bool(self.stored))


class UnreadableTail(Tail):
    async def last_sequence(self) -> int:
        raise StreamUnreadable("injected")


@pytest.fixture
async def guards() -> AsyncIterator[list[HistoryGuard]]:
    """Guards that are closed at the end."""
    made: list[HistoryGuard] = []
    yield made
    for guard in made:
        await guard.close()


def guard_of(
    guards: list[HistoryGuard], store: Store, tail: Tail | None = None, *, stops_all: bool = False
) -> HistoryGuard:
    guard = HistoryGuard(store, tail or Tail(steady(30)), forked_stops_all=stops_all)
    guards.append(guard)
    return guard


async def test_a_known_database_is_used_at_once_and_compared_beside(
    guards: list[HistoryGuard],
) -> None:
    store = Store(lost_from=25)
    guard = guard_of(guards, store)
    await guard.require(1)
    assert (store.stored, guard.problem) == ([], None)
    # A snapshot of its disk has the same identity, and may lack the last commits.
    await until(lambda: bool(store.stored))
    assert store.stored == list(range(25, 31))


async def test_an_unknown_database_is_compared_first(guards: list[HistoryGuard]) -> None:
    store = Store(PROMOTED, lost_from=29)
    guard = guard_of(guards, store)
    await guard.require(1)
    assert store.stored == [29, 30]
    assert PROMOTED in store.known
    assert (store.is_locked, guard.problem) == (False, None)


async def test_while_another_shard_compares_nothing_is_written(
    guards: list[HistoryGuard],
) -> None:
    store = Store(PROMOTED)
    store.locked_by_another = True
    guard = guard_of(guards, store)
    for _ in range(2):
        with pytest.raises(JournalUnavailable):
            await guard.require(1)
    assert guard.problem is not None
    store.known.add(PROMOTED)
    await guard.require(1)
    assert guard.problem is None


async def test_requests_wait_for_the_comparison_of_another_shard(
    guards: list[HistoryGuard],
) -> None:
    store = Store(PROMOTED)
    store.locked_by_another = True
    guard = guard_of(guards, store, UnreadableTail([]))
    waiting = asyncio.create_task(guard.require(1))
    await asyncio.sleep(1)
    assert not waiting.done(), "it is not known yet"
    store.known.add(PROMOTED)
    await waiting
    assert (store.is_locked, guard.problem) == (False, None)


class LateStore(Store):
    """Another shard's comparison ends just before this one gets the lock."""

    async def try_begin(self, session: int) -> bool:
        self.known.add(PROMOTED)
        return await super().try_begin(session)


async def test_a_database_that_became_known_is_not_compared_again(
    guards: list[HistoryGuard],
) -> None:
    store = LateStore(PROMOTED)
    guard = guard_of(guards, store, UnreadableTail([]))
    await guard.require(1)
    assert (store.is_locked, guard.problem) == (False, None)


async def test_an_unknown_database_waits_for_a_stream_that_can_be_read(
    guards: list[HistoryGuard],
) -> None:
    store = Store(PROMOTED)
    guard = guard_of(guards, store, UnreadableTail([]))
    with pytest.raises(JournalUnavailable, match="stream can't be read"):
        await guard.require(1)
    assert not store.is_locked, "another shard may try"
    assert PROMOTED not in store.known


class BusyStore(Store):
    """Its queries are cancelled by the server's time-out, and its session goes on."""

    async def lost(self, events: Sequence[StreamEvent], session: int) -> Sequence[StreamEvent]:
        raise JournalBusy("injected: 57014")


async def test_a_comparison_that_takes_too_long_keeps_no_lock(guards: list[HistoryGuard]) -> None:
    store = BusyStore(PROMOTED)
    with pytest.raises(JournalBusy):
        await guard_of(guards, store).require(1)
    assert not store.is_locked, "another shard may try"
    assert PROMOTED not in store.known


async def test_a_known_database_does_not_wait_for_the_stream(guards: list[HistoryGuard]) -> None:
    store = Store()
    guard = guard_of(guards, store, UnreadableTail([]))
    await guard.require(1)
    await until(lambda: not store.is_locked)
    assert guard.problem is None


async def test_every_session_is_asked_for_its_database(guards: list[HistoryGuard]) -> None:
    store = Store()
    guard = guard_of(guards, store)
    await guard.require(1)
    store.here, store.session, store.lost_from = PROMOTED, 2, 30
    with pytest.raises(SessionLost):
        await guard_of(guards, store).require(1)
    await guard.require(2)
    assert store.stored == [30]


async def test_a_setting_stops_every_write_until_recovery(guards: list[HistoryGuard]) -> None:
    store = Store(PROMOTED, lost_from=30)
    guard = guard_of(guards, store, stops_all=True)
    for _ in range(2):
        with pytest.raises(JournalUnavailable, match="wallet recover"):
            await guard.require(1)
    store.stored.clear()
    await guard.require(1)
    assert guard.problem is None
