"""A stream that lost messages in place is filled again before anything newer."""

import pytest

from actors.journal.memory import MemoryBackfill
from actors.journal.ports import StreamMark
from actors.outbox import sweep
from actors.outbox.stream_loss import StreamLoss
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID
from tests.support.fake_stream import StreamFault
from tests.support.relays import RelayFixture, ids
from tests.support.waiting import until


async def make_fixture() -> RelayFixture:
    """A relay on a filled stream, on whose disk are two wallets' events."""
    backfill = MemoryBackfill()
    backfill.database.backfilled_incarnation = "stream"
    fixture = RelayFixture(backfill=backfill)
    fixture.stream.incarnation = "stream"
    fixture.start(sweeping=True)
    await fixture.commit_and_add(WALLET_ID, 1, 2)
    await fixture.commit_and_add(OTHER_WALLET_ID, 3)
    await fixture.until_empty()
    return fixture


EVENTS = [*ids(WALLET_ID, 1, 2, 3), *ids(OTHER_WALLET_ID, 1, 2)]


async def test_deleted_rows_leave_a_mark() -> None:
    fixture = await make_fixture()
    marks = fixture.outbox.database.marks
    assert marks.acknowledged("stream").highest == 5
    await fixture.close()


async def test_a_rolled_back_stream_gets_the_end_of_each_history_first() -> None:
    fixture = await make_fixture()
    fixture.stream.lose_power(keeps=2)
    await fixture.commit_and_add(WALLET_ID, 4)
    await fixture.until_empty()
    assert fixture.stream.ids == [
        *ids(WALLET_ID, 1, 2),
        *ids(WALLET_ID, 3, 4),
        *ids(OTHER_WALLET_ID, 1, 2),
    ]
    assert fixture.relay.stream_fills[StreamLoss.ROLLED_BACK] == 1
    assert not fixture.relay.stream_refilling
    await fixture.close()


async def test_a_purged_stream_gets_everything_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_STREAM_CHECK_INTERVAL_S", 0.01)
    fixture = await make_fixture()
    fixture.stream.purge()
    await until(lambda: fixture.relay.stream_fills[StreamLoss.PURGED] == 1)
    assert fixture.stream.ids == EVENTS
    assert fixture.stream.purged == 5, "the sequences continue"
    await fixture.close()


async def test_a_fill_whose_events_were_dropped_as_duplicates_begins_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sweep, "_STREAM_CHECK_INTERVAL_S", 0.01)
    fixture = await make_fixture()
    fixture.stream.fills_that_forget_too_little = 2
    fixture.stream.purge()
    await until(lambda: fixture.relay.stream_fills[StreamLoss.PURGED] == 1)
    assert len(fixture.stream.fills) == 3
    assert fixture.stream.ids == EVENTS
    await fixture.close()


async def test_what_came_after_a_purge_comes_again_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fixture = await make_fixture()
    fixture.stream.purge()
    await fixture.commit_and_add(WALLET_ID, 4)
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 4), "not noticed yet"
    monkeypatch.setattr(sweep, "_STREAM_CHECK_INTERVAL_S", 0.01)
    await until(lambda: fixture.relay.stream_fills[StreamLoss.PURGED] == 1)
    assert fixture.stream.ids == [*ids(WALLET_ID, 1, 2, 3, 4), *ids(OTHER_WALLET_ID, 1, 2)]
    await fixture.close()


async def test_a_refill_that_fails_is_begun_again_from_the_same_place() -> None:
    fixture = await make_fixture()
    fixture.stream.lose_power(keeps=2)
    fixture.stream.faults.extend([StreamFault.STORED_BUT_NOT_ACKNOWLEDGED, StreamFault.NOT_STORED])
    await fixture.commit_and_add(WALLET_ID, 4)
    await fixture.until_empty()
    assert fixture.stream.fills[:2] == ["rolledback-2"] * 2
    assert sorted(fixture.stream.ids) == sorted([*EVENTS, *ids(WALLET_ID, 4)])
    assert fixture.outbox.database.backfilled_incarnation == fixture.stream.incarnation
    await fixture.close()


async def test_a_purge_that_was_interrupted_is_finished_by_another_relay() -> None:
    fixture = await make_fixture()
    await fixture.close()
    await fixture.stream.begin_fill(
        "purged", connection=fixture.stream.connection_epoch, purge=False
    )
    successor = RelayFixture(backfill=MemoryBackfill(fixture.outbox.database))
    successor.stream = fixture.stream
    successor.relay._stream = successor.relay._backfiller._stream = fixture.stream  # type: ignore[union-attr]
    successor.relay._publisher._stream = successor.relay._retention._stream = fixture.stream
    successor.start()
    await until(lambda: successor.relay.stream_ready)
    assert fixture.stream.ids == EVENTS
    assert fixture.stream.purged == 5
    await successor.close()


async def test_a_stream_without_a_rolled_back_event_is_left_alone() -> None:
    fixture = await make_fixture()
    fixture.stream.lose_power(keeps=5)
    await fixture.commit_and_add(WALLET_ID, 4)
    await fixture.until_empty()
    assert fixture.stream.fills == []
    await fixture.close()


async def test_newer_events_wait_for_the_refill() -> None:
    fixture = await make_fixture()
    fixture.stream.lose_power(keeps=0)
    fixture.stream.gate.clear()
    await fixture.commit_and_add(WALLET_ID, 4)
    await until(lambda: fixture.relay.stream_refilling)
    assert not fixture.relay.stream_ready
    fixture.stream.gate.set()
    await fixture.until_empty()
    assert fixture.stream.ids == [*ids(WALLET_ID, 1, 2, 3, 4), *ids(OTHER_WALLET_ID, 1, 2)]
    await fixture.close()


async def test_a_mark_of_another_incarnation_is_not_believed() -> None:
    fixture = await make_fixture()
    fixture.outbox.database.marks.add(StreamMark("another", 99), 0.0)
    fixture.stream.lose_power(keeps=5)
    await fixture.commit_and_add(WALLET_ID, 4)
    await fixture.until_empty()
    assert fixture.stream.fills == []
    await fixture.close()
