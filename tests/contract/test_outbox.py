"""The contract of `Outbox`: every commit's events, in order, until they are deleted."""

from collections.abc import Sequence
from functools import partial

from actors.dispatch.ring import ring_of
from actors.journal.ports import EventRange, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import (
    OTHER_WALLET_ID,
    WALLET_ID,
    make_transfer,
    transfer_id,
    wallet_id,
)
from tests.support.fake_stream import event_position
from tests.support.writes import CommitRequestBuilder
from wallet.events import RecordedEvent
from wallet.ids import WalletId
from wallet.slots import SlotRange, slot_of
from wallet.state import TransferStatus, Wallet


async def write(store: Store, wallet: Wallet | None, *numbers: int, id: WalletId) -> Wallet:
    """A commit with one debit per number; a new wallet is created first."""
    making = CommitRequestBuilder(*([wallet] if wallet else []))
    if wallet is None:
        making.create(id)
    for number in numbers:
        making.transfer(id, make_transfer(id=transfer_id(number), status=TransferStatus.COMPLETED))
    await store.journal.commit(making.write)
    return making.write.wallets[id]


async def write_rows(store: Store, id: WalletId, number: int) -> list[EventRange]:
    """A new wallet with so many outbox rows, of one event each."""
    wallet = await write(store, None, id=id)
    for one in range(1, number):
        wallet = await write(store, wallet, one, id=id)
    return [EventRange(id, version, version) for version in range(1, number + 1)]


async def unpublished(store: Store, limit: int = 100) -> list[EventRange]:
    return list(await store.outbox.unpublished(limit=limit))


async def in_pages(store: Store, limit: int, slots: Sequence[SlotRange]) -> list[EventRange]:
    """All rows of ``slots``, read as a sweep does."""
    rows: list[EventRange] = []
    while True:
        page = await store.outbox.unpublished(
            limit=limit, slots=slots, after=rows[-1] if rows else None
        )
        rows += page
        if len(page) < limit:
            return rows


async def test_each_commit_leaves_a_row_a_changed_wallet(store: Store) -> None:
    wallet = await write(store, None, 1, 2, id=WALLET_ID)
    await write(store, None, id=OTHER_WALLET_ID)
    await write(store, wallet, 3, id=WALLET_ID)
    assert await unpublished(store) == [
        EventRange(OTHER_WALLET_ID, 1, 1),
        EventRange(WALLET_ID, 1, 3),
        EventRange(WALLET_ID, 4, 4),
    ]


async def test_a_range_s_events_are_read_back_in_version_order(store: Store) -> None:
    wallet = await write(store, None, 1, id=WALLET_ID)
    await write(store, wallet, 2, 3, id=WALLET_ID)
    recorded: list[RecordedEvent] = list(
        (await store.outbox.read([EventRange(WALLET_ID, 2, 4)]))[0]
    )
    assert [one.wallet_after.version for one in recorded] == [2, 3, 4]
    assert [one.wallet_after.balance for one in recorded] == [100, 200, 300]


async def test_many_ranges_are_read_at_once_each_as_requested(store: Store) -> None:
    await write(store, None, 1, 2, 3, id=WALLET_ID)
    await write(store, None, 4, id=OTHER_WALLET_ID)
    event_ranges = [
        EventRange(WALLET_ID, 3, 4),
        EventRange(OTHER_WALLET_ID, 1, 2),
        EventRange(WALLET_ID, 1, 1),
        EventRange(WALLET_ID, 3, 4),
    ]
    read = await store.outbox.read(event_ranges)
    assert [[event_position(one.id) for one in events] for events in read] == [
        [
            f"{event_range.wallet_id}:{version}"
            for version in range(event_range.first, event_range.last + 1)
        ]
        for event_range in event_ranges
    ]


async def test_deleted_rows_are_gone_and_their_events_stay_in_the_journal(store: Store) -> None:
    wallet = await write(store, None, 1, id=WALLET_ID)
    wallet = await write(store, wallet, 2, id=WALLET_ID)
    await write(store, wallet, 3, id=WALLET_ID)
    await store.outbox.delete([EventRange(WALLET_ID, 1, 2), EventRange(WALLET_ID, 4, 4)])
    assert await unpublished(store) == [EventRange(WALLET_ID, 3, 3)]
    assert [len(one) for one in await store.outbox.read([EventRange(WALLET_ID, 1, 4)])] == [4]


async def test_one_range_deletes_all_rows_that_begin_in_it(store: Store) -> None:
    wallet = await write(store, None, id=WALLET_ID)
    for number in (1, 2, 3):
        wallet = await write(store, wallet, number, id=WALLET_ID)
    await store.outbox.delete([EventRange(WALLET_ID, 2, 3)])
    assert await unpublished(store) == [EventRange(WALLET_ID, 1, 1), EventRange(WALLET_ID, 4, 4)]


async def test_deleting_a_row_that_is_gone_is_no_error(store: Store) -> None:
    await write(store, None, 1, id=WALLET_ID)
    for _ in range(2):
        await store.outbox.delete([EventRange(WALLET_ID, 1, 2)])
    assert await unpublished(store) == []


async def test_a_limit_keeps_the_oldest(store: Store) -> None:
    wallet = await write(store, None, id=WALLET_ID)
    for number in (1, 2, 3):
        wallet = await write(store, wallet, number, id=WALLET_ID)
    assert await unpublished(store, limit=2) == [
        EventRange(WALLET_ID, 1, 1),
        EventRange(WALLET_ID, 2, 2),
    ]


async def test_only_rows_of_a_requested_age_and_those_before_them_are_returned(
    store: Store,
) -> None:
    wallet = await write(store, None, id=WALLET_ID)
    await write(store, wallet, 1, id=WALLET_ID)
    assert await store.outbox.unpublished(limit=10, older_than_s=60.0) == []
    assert await store.outbox.unpublished(limit=10, older_than_s=-60.0) == [
        EventRange(WALLET_ID, 1, 1),
        EventRange(WALLET_ID, 2, 2),
    ]


async def test_a_young_row_before_an_old_one_of_its_wallet_is_returned(store: Store) -> None:
    rows = await write_rows(store, WALLET_ID, 6)
    await write_rows(store, OTHER_WALLET_ID, 2)
    # The clock was set back between the writes.
    await store.age(rows[2], 60.0)
    await store.age(rows[4], 60.0)
    read = partial(store.outbox.unpublished, older_than_s=30.0)
    assert await read(limit=10) == rows[:5]
    assert await read(limit=10, after=rows[2]) == rows[3:5]
    assert await read(limit=10, after=rows[4]) == []
    # A page has so many old rows.
    assert await read(limit=1) == rows[:3]


async def test_only_rows_of_the_requested_slots_are_returned(store: Store) -> None:
    rows = {wallet: await write_rows(store, wallet, 2) for wallet in map(wallet_id, range(40))}
    for shard in range(3):
        slots = ring_of(3).slots_of(shard)
        owned = [wallet for wallet in rows if ring_of(3).shard_of(wallet) == shard]
        expected = [row for wallet in sorted(owned, key=slot_of) for row in rows[wallet]]
        assert expected
        assert await store.outbox.unpublished(limit=100, slots=slots) == expected
    assert await store.outbox.unpublished(limit=100, slots=()) == []


async def test_pages_of_any_size_have_each_row_once_and_in_order(store: Store) -> None:
    rows = {wallet: await write_rows(store, wallet, 3) for wallet in map(wallet_id, range(12))}
    slots = ring_of(2).slots_of(1)
    owned = [wallet for wallet in rows if ring_of(2).shard_of(wallet) == 1]
    expected = [row for wallet in sorted(owned, key=slot_of) for row in rows[wallet]]
    for limit in (1, 2, 4, len(expected), 100):
        assert await in_pages(store, limit, slots) == expected


async def test_wallets_of_one_slot_are_in_order_of_their_ids(store: Store) -> None:
    # Found by a search: no two wallets of the other tests share a slot.
    numbers = [number for number in range(60_000) if slot_of(wallet_id(number)) == 7][:3]
    wallets = [wallet_id(number) for number in numbers]
    rows = {wallet: await write_rows(store, wallet, 2) for wallet in reversed(wallets)}
    expected = [row for wallet in sorted(wallets) for row in rows[wallet]]
    for limit in (1, 2, 3, 10):
        assert await in_pages(store, limit, [SlotRange(7, 7)]) == expected


async def test_loading_a_wallet_returns_its_unpublished_ranges_in_order(store: Store) -> None:
    wallet = await write(store, None, 1, id=WALLET_ID)
    await write(store, None, id=OTHER_WALLET_ID)
    wallet = await write(store, wallet, 2, 3, id=WALLET_ID)
    await write(store, wallet, 4, id=WALLET_ID)
    await store.outbox.delete([EventRange(WALLET_ID, 1, 2)])
    loaded = await store.journal.load(ReadSet(wallets={WALLET_ID}))
    assert loaded.unpublished == [EventRange(WALLET_ID, 3, 4), EventRange(WALLET_ID, 5, 5)]
