"""The relay: every committed event reaches the stream once and in order, whatever fails."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from actors.journal.ports import EventRange
from actors.outbox.relay import OutboxRelay, RelayLimits
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, wallet_id
from tests.support.fake_stream import StreamFault
from tests.support.relays import LIMITS, RelayFixture, ids
from tests.support.waiting import until
from wallet.event_codec import decode_envelope
from wallet.representation import encode_recorded


@pytest_asyncio.fixture
async def desk() -> AsyncIterator[RelayFixture]:
    made = RelayFixture()
    yield made
    await made.close()


async def test_a_committed_event_is_published_and_then_forgotten(desk: RelayFixture) -> None:
    desk.start()
    write = await desk.commit_and_add(WALLET_ID)
    assert desk.relay.backlog == 1
    await desk.until_empty()
    await asyncio.sleep(0)
    (message,) = desk.stream.stored
    (recorded,) = write.events
    assert message.id == recorded.id == f"{WALLET_ID}:1"
    assert message.subject.startswith("wallet.events.")
    assert message.subject.endswith(f".{WALLET_ID}.wallet.created")
    assert bytes(decode_envelope(message.payload).data) == encode_recorded(recorded)
    assert (desk.relay.backlog, desk.relay.published) == (0, 1)


async def test_a_span_that_is_not_its_events_is_not_queued(desk: RelayFixture) -> None:
    write = await desk.commit(WALLET_ID, 1)
    (span,) = write.spans()
    for wrong in (span._replace(last=3), span._replace(first=2)):
        with pytest.raises(AssertionError, match="INV-10 a range is its events"):
            desk.relay.add(wrong, write.events, [b"{}", b"{}"])
    assert desk.relay.backlog == 0


async def test_a_journal_that_lacks_an_event_is_not_published(desk: RelayFixture) -> None:
    await desk.commit(WALLET_ID, 1, 2)
    del desk.outbox.database.events_by_wallet[WALLET_ID][1]
    desk.relay.add_from_journal([EventRange(WALLET_ID, 1, 3)])
    with pytest.raises(AssertionError, match="INV-10 the journal has no gaps"):
        await desk.relay.run()
    assert desk.stream.stored == []


async def test_commits_are_published_in_their_order_and_together(desk: RelayFixture) -> None:
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.commit_and_add(OTHER_WALLET_ID)
    await desk.commit_and_add(WALLET_ID, 2, 3)
    desk.start()
    await desk.until_empty()
    assert desk.stream.calls == [
        [*ids(WALLET_ID, 1, 2), *ids(OTHER_WALLET_ID, 1), *ids(WALLET_ID, 3, 4)]
    ]


async def test_a_publish_is_no_larger_than_allowed(desk: RelayFixture) -> None:
    await desk.commit_and_add(WALLET_ID, *range(5))
    await desk.commit_and_add(WALLET_ID, *range(5, 10))
    await desk.commit_and_add(WALLET_ID, *range(10, 35))
    desk.start()
    await desk.until_empty()
    assert [len(call) for call in desk.stream.calls] == [6, 5, 10, 10, 5]
    assert desk.stream.ids == ids(WALLET_ID, *range(1, 37))


async def test_what_comes_while_publishing_waits_for_its_turn(desk: RelayFixture) -> None:
    desk.stream.gate.clear()
    desk.start()
    await desk.commit_and_add(WALLET_ID)
    await desk.stream.until_called(1)
    await desk.commit_and_add(WALLET_ID, 1)
    await desk.commit_and_add(WALLET_ID, 2)
    assert desk.relay.backlog == 3
    desk.stream.gate.set()
    await desk.until_empty()
    assert desk.stream.calls == [ids(WALLET_ID, 1), ids(WALLET_ID, 2, 3)]


@pytest.mark.parametrize("fault", StreamFault)
async def test_a_failed_publish_is_repeated_before_anything_newer(
    desk: RelayFixture, fault: StreamFault
) -> None:
    desk.stream.faults.extend([fault, fault])
    await desk.commit_and_add(WALLET_ID, 1)
    desk.start()
    await desk.stream.until_called(1)
    await desk.commit_and_add(WALLET_ID, 2)
    await desk.until_empty()
    assert desk.stream.calls[:3] == [ids(WALLET_ID, 1, 2)] * 3
    assert desk.stream.ids == ids(WALLET_ID, 1, 2, 3)
    assert desk.relay.publish_failures == 2
    assert desk.relay.stream_ready


async def test_nothing_is_forgotten_before_it_is_acknowledged(desk: RelayFixture) -> None:
    desk.stream.gate.clear()
    desk.start()
    await desk.commit_and_add(WALLET_ID)
    await desk.stream.until_called(1)
    assert desk.outbox.rows
    assert desk.relay.backlog == 1
    desk.stream.gate.set()
    await desk.until_empty()


async def test_a_stream_that_is_away_is_waited_for(desk: RelayFixture) -> None:
    desk.stream.unreachable = True
    desk.start()
    await desk.commit_and_add(WALLET_ID, 1)
    await until(lambda: desk.relay.publish_failures >= 2)
    assert not desk.relay.stream_ready
    assert (desk.relay.backlog, desk.stream.stored) == (2, [])
    desk.stream.unreachable = False
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 1, 2)
    assert desk.relay.stream_ready


# -- memory --------------------------------------------------------------------------------------


async def test_warm_events_are_never_read_back(desk: RelayFixture) -> None:
    desk.start()
    await desk.commit_and_add(WALLET_ID, 1, 2)
    await desk.until_empty()
    assert desk.outbox.spans_read == []


async def test_events_beyond_the_memory_s_bound_are_read_from_the_journal() -> None:
    desk = RelayFixture(
        RelayLimits(
            publish_batch_max=4, outbox_memory_events_max=4, outbox_sweep_interval_s=1, partitions=4
        )
    )
    await desk.commit_and_add(WALLET_ID, 1, 2)  # 3 events: in memory
    await desk.commit_and_add(WALLET_ID, 3, 4)  # 2 more would be too many
    await desk.commit_and_add(WALLET_ID, 5)  # 1 fits
    desk.start()
    await desk.until_empty()
    await asyncio.sleep(0)
    assert desk.outbox.spans_read == [EventRange(WALLET_ID, 4, 5)]
    assert desk.stream.ids == ids(WALLET_ID, 1, 2, 3, 4, 5, 6)

    await desk.commit_and_add(WALLET_ID, 6, 7, 8, 9)  # All 4 places are free again.
    await desk.until_empty()
    assert desk.outbox.spans_read == [EventRange(WALLET_ID, 4, 5)]
    await desk.close()


async def test_a_span_read_back_is_published_as_it_would_have_been_from_memory(
    desk: RelayFixture,
) -> None:
    write = await desk.commit(WALLET_ID, 1)
    desk.relay.add_from_journal([EventRange(WALLET_ID, 1, 2)])
    desk.start()
    await desk.until_empty()
    data = [bytes(decode_envelope(message.payload).data) for message in desk.stream.stored]
    assert data == [encode_recorded(recorded) for recorded in write.events]


async def test_what_one_publish_needs_is_read_in_one_query(desk: RelayFixture) -> None:
    wallets = [wallet_id(number) for number in range(30)]
    for wallet in wallets:
        await desk.commit(wallet)
    desk.relay.add_from_journal([EventRange(wallet, 1, 1) for wallet in wallets])
    desk.start()
    await desk.until_empty()
    assert [len(call) for call in desk.stream.calls] == [10, 10, 10]
    assert desk.outbox.reads == 3
    assert desk.stream.ids == [f"{wallet}:1" for wallet in wallets]


async def test_the_next_publish_is_read_while_this_one_is_under_way(desk: RelayFixture) -> None:
    wallets = [wallet_id(number) for number in range(30)]
    for wallet in wallets:
        await desk.commit(wallet)
    desk.relay.add_from_journal([EventRange(wallet, 1, 1) for wallet in wallets])
    desk.stream.gate.clear()
    desk.start()
    await desk.stream.until_called(1)
    await until(lambda: desk.outbox.reads == 2)
    assert len(desk.stream.calls) == 1
    desk.stream.gate.set()
    await desk.until_empty()


async def test_what_could_not_be_read_ahead_is_read_in_its_turn(desk: RelayFixture) -> None:
    wallets = [wallet_id(number) for number in range(20)]
    for wallet in wallets:
        await desk.commit(wallet)
    desk.relay.add_from_journal([EventRange(wallet, 1, 1) for wallet in wallets])
    desk.stream.gate.clear()
    desk.start()
    await desk.stream.until_called(1)
    desk.outbox.reads_unavailable = 1
    await until(lambda: desk.outbox.reads_unavailable == 0 or desk.outbox.reads == 2)
    desk.stream.gate.set()
    await desk.until_empty()
    assert desk.stream.ids == [f"{wallet}:1" for wallet in wallets]


async def test_a_journal_that_is_away_is_waited_for(desk: RelayFixture) -> None:
    await desk.commit(WALLET_ID, 1)
    desk.outbox.reads_unavailable = 2
    desk.relay.add_from_journal([EventRange(WALLET_ID, 1, 2)])
    desk.start()
    await desk.until_empty()
    assert desk.stream.calls == [ids(WALLET_ID, 1, 2)]


# -- ranges of the table --------------------------------------------------------------------------


async def test_what_loading_a_wallet_found_goes_before_anything_new(desk: RelayFixture) -> None:
    await desk.commit(WALLET_ID, 1)
    desk.relay.add_from_journal([EventRange(WALLET_ID, 1, 2)])
    await desk.commit_and_add(WALLET_ID, 2)
    desk.start()
    await desk.until_empty()
    assert desk.stream.ids == ids(WALLET_ID, 1, 2, 3)


async def test_a_span_that_is_queued_is_not_queued_again(desk: RelayFixture) -> None:
    write = await desk.commit_and_add(WALLET_ID, 1)
    desk.relay.add_from_journal(write.spans() * 2)
    assert desk.relay.backlog == 2
    desk.start()
    await desk.until_empty()
    assert desk.stream.calls == [ids(WALLET_ID, 1, 2)]


async def test_consecutive_rows_of_a_wallet_are_read_and_deleted_as_one(
    desk: RelayFixture,
) -> None:
    other = wallet_id(7)
    for number in range(1, 13):
        await desk.commit(WALLET_ID, number)
    await desk.commit(other)
    rows = await desk.outbox.unpublished(limit=100)
    assert len(rows) == 13
    desk.relay.add_from_journal(rows)
    desk.relay.add_from_journal(rows)  # All known by now, wherever they begin.
    desk.start()
    await desk.until_empty()
    assert desk.outbox.spans_read == sorted(
        [EventRange(WALLET_ID, 1, 10), EventRange(WALLET_ID, 11, 13), EventRange(other, 1, 1)]
    )
    assert desk.stream.ids == [
        one for span in desk.outbox.spans_read for one in ids(span[0], *range(span[1], span[2] + 1))
    ]
    desk.relay.add_from_journal(
        rows
    )  # Rows that come back, after a crash of Postgres, are not known.
    assert desk.relay.backlog == 14


# -- several relays -------------------------------------------------------------------------------


async def test_many_wallets_of_several_relays_keep_their_version_order() -> None:
    one, other = RelayFixture(), RelayFixture()
    other.outbox, other.stream = one.outbox, one.stream
    other.relay = OutboxRelay(
        outbox=one.outbox, stream=one.stream, limits=LIMITS, owns=lambda _: True
    )
    one.start(sweeping=True)
    other.start(sweeping=True)
    wallets = [wallet_id(number) for number in range(5)]
    for round_number in range(6):
        for wallet in wallets:
            owner = (one, other)[(round_number + wallets.index(wallet)) % 2]
            # As a shard does when another has written: what is unpublished goes first.
            owner.relay.add_from_journal(
                [span for span in await one.outbox.unpublished(limit=100) if span[0] == wallet]
            )
            await owner.commit_and_add(wallet, round_number)
    await one.until_empty()
    await one.close()
    await other.close()
    for wallet in wallets:
        versions = len(one.outbox.database.events_by_wallet[wallet])
        of_wallet = [message for message in one.stream.ids if message.startswith(wallet)]
        assert of_wallet == ids(wallet, *range(1, versions + 1))
