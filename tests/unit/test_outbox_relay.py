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
from wallet.slots import ALL_SLOTS


@pytest_asyncio.fixture
async def fixture() -> AsyncIterator[RelayFixture]:
    made = RelayFixture()
    yield made
    await made.close()


async def test_a_committed_event_is_published_and_then_forgotten(fixture: RelayFixture) -> None:
    fixture.start()
    write = await fixture.commit_and_add(WALLET_ID)
    assert fixture.relay.backlog == 1
    await fixture.until_empty()
    await asyncio.sleep(0)
    (message,) = fixture.stream.stored
    (recorded,) = write.events
    assert message.id == recorded.id == f"{WALLET_ID}:1:{recorded.wallet_after.hash.hex()}"
    assert message.subject.startswith("wallet.events.")
    assert message.subject.endswith(f".{WALLET_ID}.wallet.created")
    assert bytes(decode_envelope(message.payload).data) == recorded.body
    assert (fixture.relay.backlog, fixture.relay.published) == (0, 1)


async def test_a_range_that_does_not_match_its_events_is_not_queued(fixture: RelayFixture) -> None:
    write = await fixture.commit(WALLET_ID, 1)
    (event_range,) = write.spans()
    for wrong in (event_range._replace(last=3), event_range._replace(first=2)):
        with pytest.raises(AssertionError, match="INV-10 a range is its events"):
            fixture.relay.add(wrong, write.events)
    assert fixture.relay.backlog == 0


async def test_a_journal_that_lacks_an_event_is_not_published(fixture: RelayFixture) -> None:
    await fixture.commit(WALLET_ID, 1, 2)
    del fixture.outbox.database.events_by_wallet[WALLET_ID][1]
    fixture.relay.add_from_journal([EventRange(WALLET_ID, 1, 3)])
    with pytest.raises(AssertionError, match="INV-10 the journal has no gaps"):
        await fixture.relay.run()
    assert fixture.stream.stored == []


async def test_commits_are_published_in_their_order_and_together(fixture: RelayFixture) -> None:
    await fixture.commit_and_add(WALLET_ID, 1)
    await fixture.commit_and_add(OTHER_WALLET_ID)
    await fixture.commit_and_add(WALLET_ID, 2, 3)
    fixture.start()
    await fixture.until_empty()
    assert fixture.stream.calls == [
        [*ids(WALLET_ID, 1, 2), *ids(OTHER_WALLET_ID, 1), *ids(WALLET_ID, 3, 4)]
    ]


async def test_a_publish_is_no_larger_than_allowed(fixture: RelayFixture) -> None:
    await fixture.commit_and_add(WALLET_ID, *range(5))
    await fixture.commit_and_add(WALLET_ID, *range(5, 10))
    await fixture.commit_and_add(WALLET_ID, *range(10, 35))
    fixture.start()
    await fixture.until_empty()
    assert [len(call) for call in fixture.stream.calls] == [6, 5, 10, 10, 5]
    assert fixture.stream.ids == ids(WALLET_ID, *range(1, 37))


async def test_events_added_while_publishing_are_queued(fixture: RelayFixture) -> None:
    fixture.stream.gate.clear()
    fixture.start()
    await fixture.commit_and_add(WALLET_ID)
    await fixture.stream.until_called(1)
    await fixture.commit_and_add(WALLET_ID, 1)
    await fixture.commit_and_add(WALLET_ID, 2)
    assert fixture.relay.backlog == 3
    fixture.stream.gate.set()
    await fixture.until_empty()
    assert fixture.stream.calls == [ids(WALLET_ID, 1), ids(WALLET_ID, 2, 3)]


@pytest.mark.parametrize("fault", StreamFault)
async def test_a_failed_publish_is_repeated_before_anything_newer(
    fixture: RelayFixture, fault: StreamFault
) -> None:
    fixture.stream.faults.extend([fault, fault])
    await fixture.commit_and_add(WALLET_ID, 1)
    fixture.start()
    await fixture.stream.until_called(1)
    await fixture.commit_and_add(WALLET_ID, 2)
    await fixture.until_empty()
    assert fixture.stream.calls[:3] == [ids(WALLET_ID, 1, 2)] * 3
    assert fixture.stream.ids == ids(WALLET_ID, 1, 2, 3)
    assert fixture.relay.publish_failures == 2
    assert fixture.relay.stream_ready


async def test_nothing_is_forgotten_before_it_is_acknowledged(fixture: RelayFixture) -> None:
    fixture.stream.gate.clear()
    fixture.start()
    await fixture.commit_and_add(WALLET_ID)
    await fixture.stream.until_called(1)
    assert fixture.outbox.rows
    assert fixture.relay.backlog == 1
    fixture.stream.gate.set()
    await fixture.until_empty()


async def test_a_stream_that_is_away_is_waited_for(fixture: RelayFixture) -> None:
    fixture.stream.unreachable = True
    fixture.start()
    await fixture.commit_and_add(WALLET_ID, 1)
    await until(lambda: fixture.relay.publish_failures >= 2)
    assert not fixture.relay.stream_ready
    assert (fixture.relay.backlog, fixture.stream.stored) == (2, [])
    fixture.stream.unreachable = False
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 1, 2)
    assert fixture.relay.stream_ready


# -- memory --------------------------------------------------------------------------------------


async def test_warm_events_are_never_read_back(fixture: RelayFixture) -> None:
    fixture.start()
    await fixture.commit_and_add(WALLET_ID, 1, 2)
    await fixture.until_empty()
    assert fixture.outbox.ranges_read == []


async def test_events_beyond_the_memory_s_bound_are_read_from_the_journal() -> None:
    fixture = RelayFixture(
        RelayLimits(
            publish_batch_max=4, outbox_memory_events_max=4, outbox_sweep_interval_s=1, partitions=4
        )
    )
    await fixture.commit_and_add(WALLET_ID, 1, 2)  # 3 events: in memory
    await fixture.commit_and_add(WALLET_ID, 3, 4)  # 2 more exceed the limit
    await fixture.commit_and_add(WALLET_ID, 5)  # 1 fits
    fixture.start()
    await fixture.until_empty()
    await asyncio.sleep(0)
    assert fixture.outbox.ranges_read == [EventRange(WALLET_ID, 4, 5)]
    assert fixture.stream.ids == ids(WALLET_ID, 1, 2, 3, 4, 5, 6)

    await fixture.commit_and_add(WALLET_ID, 6, 7, 8, 9)  # The memory for all 4 is free again.
    await fixture.until_empty()
    assert fixture.outbox.ranges_read == [EventRange(WALLET_ID, 4, 5)]
    await fixture.close()


async def test_a_range_read_back_is_published_as_from_memory(
    fixture: RelayFixture,
) -> None:
    write = await fixture.commit(WALLET_ID, 1)
    fixture.relay.add_from_journal([EventRange(WALLET_ID, 1, 2)])
    fixture.start()
    await fixture.until_empty()
    data = [bytes(decode_envelope(message.payload).data) for message in fixture.stream.stored]
    assert data == [recorded.body for recorded in write.events]


async def test_what_one_publish_needs_is_read_in_one_query(fixture: RelayFixture) -> None:
    wallets = [wallet_id(number) for number in range(30)]
    for wallet in wallets:
        await fixture.commit(wallet)
    fixture.relay.add_from_journal([EventRange(wallet, 1, 1) for wallet in wallets])
    fixture.start()
    await fixture.until_empty()
    assert [len(call) for call in fixture.stream.calls] == [10, 10, 10]
    assert fixture.outbox.reads == 3
    assert fixture.stream.ids == [f"{wallet}:1" for wallet in wallets]


async def test_the_next_publish_is_read_while_this_one_is_under_way(fixture: RelayFixture) -> None:
    wallets = [wallet_id(number) for number in range(30)]
    for wallet in wallets:
        await fixture.commit(wallet)
    fixture.relay.add_from_journal([EventRange(wallet, 1, 1) for wallet in wallets])
    fixture.stream.gate.clear()
    fixture.start()
    await fixture.stream.until_called(1)
    await until(lambda: fixture.outbox.reads == 2)
    assert len(fixture.stream.calls) == 1
    fixture.stream.gate.set()
    await fixture.until_empty()


async def test_ranges_that_could_not_be_read_ahead_are_read_in_order(fixture: RelayFixture) -> None:
    wallets = [wallet_id(number) for number in range(20)]
    for wallet in wallets:
        await fixture.commit(wallet)
    fixture.relay.add_from_journal([EventRange(wallet, 1, 1) for wallet in wallets])
    fixture.stream.gate.clear()
    fixture.start()
    await fixture.stream.until_called(1)
    fixture.outbox.reads_unavailable = 1
    await until(lambda: fixture.outbox.reads_unavailable == 0 or fixture.outbox.reads == 2)
    fixture.stream.gate.set()
    await fixture.until_empty()
    assert fixture.stream.ids == [f"{wallet}:1" for wallet in wallets]


async def test_a_journal_that_is_away_is_waited_for(fixture: RelayFixture) -> None:
    await fixture.commit(WALLET_ID, 1)
    fixture.outbox.reads_unavailable = 2
    fixture.relay.add_from_journal([EventRange(WALLET_ID, 1, 2)])
    fixture.start()
    await fixture.until_empty()
    assert fixture.stream.calls == [ids(WALLET_ID, 1, 2)]


# -- ranges of the table --------------------------------------------------------------------------


async def test_what_loading_a_wallet_found_goes_before_anything_new(fixture: RelayFixture) -> None:
    await fixture.commit(WALLET_ID, 1)
    fixture.relay.add_from_journal([EventRange(WALLET_ID, 1, 2)])
    await fixture.commit_and_add(WALLET_ID, 2)
    fixture.start()
    await fixture.until_empty()
    assert fixture.stream.ids == ids(WALLET_ID, 1, 2, 3)


async def test_a_queued_range_is_not_queued_again(fixture: RelayFixture) -> None:
    write = await fixture.commit_and_add(WALLET_ID, 1)
    fixture.relay.add_from_journal(write.spans() * 2)
    assert fixture.relay.backlog == 2
    fixture.start()
    await fixture.until_empty()
    assert fixture.stream.calls == [ids(WALLET_ID, 1, 2)]


async def test_consecutive_rows_of_a_wallet_are_read_and_deleted_as_one(
    fixture: RelayFixture,
) -> None:
    other = wallet_id(7)
    for number in range(1, 13):
        await fixture.commit(WALLET_ID, number)
    await fixture.commit(other)
    rows = await fixture.outbox.unpublished(limit=100)
    assert len(rows) == 13
    fixture.relay.add_from_journal(rows)
    fixture.relay.add_from_journal(rows)  # All tracked by now, wherever they begin.
    fixture.start()
    await fixture.until_empty()
    assert fixture.outbox.ranges_read == sorted(
        [EventRange(WALLET_ID, 1, 10), EventRange(WALLET_ID, 11, 13), EventRange(other, 1, 1)]
    )
    assert fixture.stream.ids == [
        one
        for event_range in fixture.outbox.ranges_read
        for one in ids(event_range[0], *range(event_range[1], event_range[2] + 1))
    ]
    fixture.relay.add_from_journal(
        rows
    )  # Rows that reappear after a crash of Postgres are not tracked.
    assert fixture.relay.backlog == 14


# -- several relays -------------------------------------------------------------------------------


async def test_many_wallets_of_several_relays_keep_their_version_order() -> None:
    one, other = RelayFixture(), RelayFixture()
    other.outbox, other.stream = one.outbox, one.stream
    other.relay = OutboxRelay(outbox=one.outbox, stream=one.stream, limits=LIMITS, slots=ALL_SLOTS)
    one.start(sweeping=True)
    other.start(sweeping=True)
    wallets = [wallet_id(number) for number in range(5)]
    for round_number in range(6):
        for wallet in wallets:
            owner = (one, other)[(round_number + wallets.index(wallet)) % 2]
            # As a shard does after another writer: unpublished events go first.
            owner.relay.add_from_journal(
                [
                    event_range
                    for event_range in await one.outbox.unpublished(limit=100)
                    if event_range[0] == wallet
                ]
            )
            await owner.commit_and_add(wallet, round_number)
    await one.until_empty()
    await one.close()
    await other.close()
    for wallet in wallets:
        versions = len(one.outbox.database.events_by_wallet[wallet])
        of_wallet = [message for message in one.stream.ids if message.startswith(wallet)]
        assert of_wallet == ids(wallet, *range(1, versions + 1))
