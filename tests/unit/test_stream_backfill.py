"""A lost stream is backfilled from the journal once, before new events are published."""

import msgspec
import pytest

from actors.journal.memory import MemoryBackfill
from actors.journal.ports import FilledStream, creation_of
from actors.outbox import backfill as module
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, wallet_id
from tests.support.fake_stream import StreamFault
from tests.support.relays import LIMITS, RelayFixture, ids
from tests.support.waiting import until


def make_backfill(filled: str | None = None) -> MemoryBackfill:
    """On an empty journal; ``filled``: the incarnation that is backfilled."""
    backfill = MemoryBackfill()
    backfill.database.backfilled_incarnation = filled
    return backfill


class CountingBackfill(MemoryBackfill):
    """Counts the attempts to start a backfill."""

    begun = 0

    async def try_begin(self) -> bool:
        self.begun += 1
        return await super().try_begin()


def state_of(backfill: MemoryBackfill) -> tuple[str | None, bool]:
    """The backfilled incarnation, and whether a backfill is running."""
    database = backfill.database
    return filled(backfill), database.backfill_owner is not None


def filled(backfill: MemoryBackfill) -> str | None:
    """The stream that is backfilled, by its creation."""
    return creation_of(backfill.database.backfilled_incarnation)


async def make_fixture(backfill: MemoryBackfill) -> RelayFixture:
    """A relay on a new stream, with a journal of two wallets."""
    fixture = RelayFixture(backfill=backfill)
    fixture.stream.incarnation = "new"
    await fixture.commit(WALLET_ID, 1, 2)
    await fixture.commit(OTHER_WALLET_ID, 3)
    fixture.outbox.clear_rows()  # All events were on the lost stream.
    return fixture


FILLED = [*ids(WALLET_ID, 1, 2, 3), *ids(OTHER_WALLET_ID, 1, 2)]


async def test_a_new_stream_gets_the_journal_before_anything_new() -> None:
    backfill = make_backfill(filled="old")
    fixture = await make_fixture(backfill)
    fixture.stream.gate.clear()
    fixture.start()
    await fixture.stream.until_called(1)
    await fixture.commit_and_add(WALLET_ID, 4)
    fixture.stream.gate.set()
    await fixture.until_empty()
    assert fixture.stream.ids == [*FILLED, *ids(WALLET_ID, 4)]
    assert state_of(backfill) == ("new", False)
    await fixture.close()


async def test_a_stream_is_known_to_be_full_once_its_disk_must_have_the_journal() -> None:
    backfill = make_backfill(filled="old")
    fixture = RelayFixture(
        msgspec.structs.replace(LIMITS, outbox_retention_s=60.0), backfill=backfill
    )
    fixture.stream.incarnation = "new"
    await fixture.commit(WALLET_ID, 1, 2)
    await fixture.commit(OTHER_WALLET_ID, 3)
    fixture.start()
    await fixture.stream.until_stored(len(FILLED))
    assert fixture.stream.ids == FILLED
    assert state_of(backfill) == ("old", True), "a power failure now loses everything"
    await fixture.close()


async def test_a_stream_that_has_the_journal_is_left_alone() -> None:
    fixture = await make_fixture(make_backfill(filled="new"))
    await fixture.commit_and_add(WALLET_ID, 4)
    fixture.start()
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 4)
    await fixture.close()


async def test_while_another_relay_backfills_the_stream_this_one_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_BACKFILL_POLL_INTERVAL_S", 0.001)
    backfill = CountingBackfill()
    other = MemoryBackfill(backfill.database)
    assert await other.try_begin()
    fixture = await make_fixture(backfill)
    await fixture.commit_and_add(WALLET_ID, 4)
    fixture.start()
    await until(lambda: backfill.begun >= 3)
    assert fixture.stream.calls == []
    await other.finish(FilledStream("new"))
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 4)
    await fixture.close()


async def test_a_failed_backfill_is_not_marked_as_done() -> None:
    backfill = make_backfill()
    fixture = await make_fixture(backfill)
    fixture.stream.faults.append(StreamFault.NOT_STORED)
    fixture.start()
    await fixture.stream.until_called(1)
    assert filled(backfill) is None
    await until(lambda: filled(backfill) == "new")
    assert fixture.stream.ids == FILLED
    assert state_of(backfill) == ("new", False)
    await fixture.close()


async def test_a_stream_lost_while_the_relay_runs_is_backfilled() -> None:
    backfill = make_backfill(filled="new")
    fixture = await make_fixture(backfill)
    fixture.start()
    await fixture.commit_and_add(WALLET_ID, 4)
    await fixture.until_empty()

    fixture.stream.stored.clear()
    fixture.stream.incarnation = "newer"
    fixture.stream.faults.append(StreamFault.NOT_STORED)
    await fixture.commit_and_add(WALLET_ID, 5)
    await fixture.until_empty()
    assert fixture.stream.ids == [
        *ids(WALLET_ID, 1, 2, 3, 4, 5),
        *ids(OTHER_WALLET_ID, 1, 2),
    ]
    assert filled(backfill) == "newer"
    await fixture.close()


async def test_a_long_history_goes_in_pieces_that_fit_a_publish() -> None:
    backfill = make_backfill()
    fixture = RelayFixture(backfill=backfill)
    fixture.stream.incarnation = "new"
    await fixture.commit(WALLET_ID, *range(25))
    fixture.outbox.clear_rows()
    fixture.start()
    await until(lambda: filled(backfill) == "new")
    assert [len(call) for call in fixture.stream.calls] == [10, 10, 6]
    assert fixture.stream.ids == ids(WALLET_ID, *range(1, 27))
    await fixture.close()


async def test_many_wallets_are_read_and_published_together() -> None:
    wallets = [wallet_id(number) for number in range(25)]
    backfill = make_backfill()
    fixture = RelayFixture(backfill=backfill)
    fixture.stream.incarnation = "new"
    for wallet in wallets:
        await fixture.commit(wallet)
    fixture.outbox.clear_rows()
    fixture.start()
    await until(lambda: filled(backfill) == "new")
    assert [len(call) for call in fixture.stream.calls] == [10, 10, 5]
    assert fixture.outbox.reads == 3
    assert fixture.stream.ids == [f"{wallet}:1" for wallet in sorted(wallets)]
    await fixture.close()


async def test_who_has_not_noticed_the_loss_gets_nothing_in_before_the_journal() -> None:
    backfill = make_backfill(filled="old")
    fixture = await make_fixture(backfill)
    fixture.stream.incarnation = "old"
    fixture.start()
    await until(lambda: fixture.relay.stream_ready)

    fixture.stream.incarnation = "new"  # created by another relay
    await fixture.commit_and_add(WALLET_ID, 4)
    await fixture.until_empty()
    assert fixture.stream.ids == [*ids(WALLET_ID, 1, 2, 3, 4), *ids(OTHER_WALLET_ID, 1, 2)]
    await fixture.close()


async def test_a_stream_lost_during_its_backfill_gets_the_whole_journal() -> None:
    backfill = make_backfill()
    fixture = await make_fixture(backfill)
    fixture.stream.gate.clear()
    fixture.start()
    await fixture.stream.until_called(1)
    fixture.stream.incarnation = "newer"  # deleted and created again by another relay
    fixture.stream.gate.set()
    await until(lambda: filled(backfill) is not None)
    assert filled(backfill) == "newer"
    assert fixture.stream.ids == FILLED
    await fixture.close()
