"""A stream that was lost is filled from the journal, once, before anything new goes to it."""

import msgspec
import pytest

from actors.journal.memory import MemoryBackfill
from actors.outbox import backfill as module
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, wallet_id
from tests.support.fake_stream import StreamFault
from tests.support.relays import LIMITS, RelayFixture, ids
from tests.support.waiting import until


def a_backfill(filled: str | None = None) -> MemoryBackfill:
    """On an empty journal; ``filled``: the incarnation that counts as filled."""
    refill = MemoryBackfill()
    refill.database.backfilled_incarnation = filled
    return refill


class CountingBackfill(MemoryBackfill):
    """Counts how often the right to backfill was asked for."""

    begun = 0

    async def try_begin(self) -> bool:
        self.begun += 1
        return await super().try_begin()


def state_of(refill: MemoryBackfill) -> tuple[str | None, bool]:
    """Which incarnation counts as filled, and whether a relay is filling one."""
    database = refill.database
    return database.backfilled_incarnation, database.backfill_owner is not None


async def a_desk(refill: MemoryBackfill) -> RelayFixture:
    """A relay on a stream that is new, with a journal of two wallets behind it."""
    desk = RelayFixture(refill=refill)
    desk.stream.incarnation = "new"
    await desk.commit(WALLET_ID, 1, 2)
    await desk.commit(OTHER_WALLET_ID, 3)
    desk.outbox.clear_rows()  # All of it was on the stream that was lost.
    return desk


FILLED = [*ids(WALLET_ID, 1, 2, 3), *ids(OTHER_WALLET_ID, 1, 2)]


async def test_a_new_stream_gets_the_journal_before_anything_new() -> None:
    refill = a_backfill(filled="old")
    desk = await a_desk(refill)
    desk.stream.gate.clear()
    desk.start()
    await desk.stream.until_called(1)
    await desk.commit_and_add(WALLET_ID, 4)
    desk.stream.gate.set()
    await desk.until_empty()
    assert desk.stream.ids == [*FILLED, *ids(WALLET_ID, 4)]
    assert state_of(refill) == ("new", False)
    await desk.close()


async def test_a_stream_is_known_to_be_full_once_its_disk_must_have_the_journal() -> None:
    refill = a_backfill(filled="old")
    desk = RelayFixture(msgspec.structs.replace(LIMITS, outbox_retention_s=60.0), refill=refill)
    desk.stream.incarnation = "new"
    await desk.commit(WALLET_ID, 1, 2)
    await desk.commit(OTHER_WALLET_ID, 3)
    desk.start()
    await desk.stream.until_stored(len(FILLED))
    assert desk.stream.ids == FILLED
    assert state_of(refill) == ("old", True), "a loss of power now is a loss of all"
    await desk.close()


async def test_a_stream_that_has_the_journal_is_left_alone() -> None:
    desk = await a_desk(a_backfill(filled="new"))
    await desk.commit_and_add(WALLET_ID, 4)
    desk.start()
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 4)
    await desk.close()


async def test_while_another_relay_fills_the_stream_this_one_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_BACKFILL_POLL_INTERVAL_S", 0.001)
    refill = CountingBackfill()
    other = MemoryBackfill(refill.database)
    assert await other.try_begin()
    desk = await a_desk(refill)
    await desk.commit_and_add(WALLET_ID, 4)
    desk.start()
    await until(lambda: refill.begun >= 3)
    assert desk.stream.calls == []
    await other.finish("new")
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 4)
    await desk.close()


async def test_filling_that_fails_is_not_taken_for_done() -> None:
    refill = a_backfill()
    desk = await a_desk(refill)
    desk.stream.faults.append(StreamFault.NOT_STORED)
    desk.start()
    await desk.stream.until_called(1)
    assert refill.database.backfilled_incarnation is None
    await until(lambda: refill.database.backfilled_incarnation == "new")
    assert desk.stream.ids == FILLED
    assert state_of(refill) == ("new", False)
    await desk.close()


async def test_a_stream_that_is_lost_while_the_relay_runs_is_filled_again() -> None:
    refill = a_backfill(filled="new")
    desk = await a_desk(refill)
    desk.start()
    await desk.commit_and_add(WALLET_ID, 4)
    await desk.until_empty()

    desk.stream.stored.clear()
    desk.stream.incarnation = "newer"
    desk.stream.faults.append(StreamFault.NOT_STORED)
    await desk.commit_and_add(WALLET_ID, 5)
    await desk.until_empty()
    assert desk.stream.ids == [
        *ids(WALLET_ID, 1, 2, 3, 4, 5),
        *ids(OTHER_WALLET_ID, 1, 2),
    ]
    assert refill.database.backfilled_incarnation == "newer"
    await desk.close()


async def test_a_long_history_goes_in_pieces_that_fit_a_publish() -> None:
    refill = a_backfill()
    desk = RelayFixture(refill=refill)
    desk.stream.incarnation = "new"
    await desk.commit(WALLET_ID, *range(25))
    desk.outbox.clear_rows()
    desk.start()
    await until(lambda: refill.database.backfilled_incarnation == "new")
    assert [len(call) for call in desk.stream.calls] == [10, 10, 6]
    assert desk.stream.ids == ids(WALLET_ID, *range(1, 27))
    await desk.close()


async def test_many_wallets_are_read_and_published_together() -> None:
    wallets = [wallet_id(number) for number in range(25)]
    refill = a_backfill()
    desk = RelayFixture(refill=refill)
    desk.stream.incarnation = "new"
    for wallet in wallets:
        await desk.commit(wallet)
    desk.outbox.clear_rows()
    desk.start()
    await until(lambda: refill.database.backfilled_incarnation == "new")
    assert [len(call) for call in desk.stream.calls] == [10, 10, 5]
    assert desk.outbox.reads == 3
    assert desk.stream.ids == [f"{wallet}:1" for wallet in sorted(wallets)]
    await desk.close()


async def test_who_has_not_noticed_the_loss_gets_nothing_in_before_the_journal() -> None:
    refill = a_backfill(filled="old")
    desk = await a_desk(refill)
    desk.stream.incarnation = "old"
    desk.start()
    await until(lambda: desk.relay.stream_ready)

    desk.stream.incarnation = "new"  # another relay made it
    await desk.commit_and_add(WALLET_ID, 4)
    await desk.until_empty()
    assert desk.stream.ids == [*ids(WALLET_ID, 1, 2, 3, 4), *ids(OTHER_WALLET_ID, 1, 2)]
    await desk.close()


async def test_a_stream_lost_during_its_backfill_gets_the_whole_journal() -> None:
    refill = a_backfill()
    desk = await a_desk(refill)
    desk.stream.gate.clear()
    desk.start()
    await desk.stream.until_called(1)
    desk.stream.incarnation = "newer"  # deleted, and made by another relay
    desk.stream.gate.set()
    await until(lambda: refill.database.backfilled_incarnation is not None)
    assert refill.database.backfilled_incarnation == "newer"
    assert desk.stream.ids == FILLED
    await desk.close()
