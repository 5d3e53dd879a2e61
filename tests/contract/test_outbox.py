"""The contract of `Outbox`: every commit's events, in order, until they are deleted."""

from actors.journal.ports import EventRange, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, make_transfer, transfer_id
from tests.support.fake_stream import event_position
from tests.support.writes import CommitRequestBuilder
from wallet.events import RecordedEvent
from wallet.ids import WalletId
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


async def unpublished(store: Store, limit: int = 100) -> list[EventRange]:
    return list(await store.outbox.unpublished(limit=limit))


async def test_each_commit_leaves_a_row_a_changed_wallet(store: Store) -> None:
    wallet = await write(store, None, 1, 2, id=WALLET_ID)
    await write(store, None, id=OTHER_WALLET_ID)
    await write(store, wallet, 3, id=WALLET_ID)
    assert await unpublished(store) == [
        EventRange(WALLET_ID, 1, 3),
        EventRange(WALLET_ID, 4, 4),
        EventRange(OTHER_WALLET_ID, 1, 1),
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


async def test_loading_a_wallet_returns_its_unpublished_ranges_in_order(store: Store) -> None:
    wallet = await write(store, None, 1, id=WALLET_ID)
    await write(store, None, id=OTHER_WALLET_ID)
    wallet = await write(store, wallet, 2, 3, id=WALLET_ID)
    await write(store, wallet, 4, id=WALLET_ID)
    await store.outbox.delete([EventRange(WALLET_ID, 1, 2)])
    loaded = await store.journal.load(ReadSet(wallets={WALLET_ID}))
    assert loaded.unpublished == [EventRange(WALLET_ID, 3, 4), EventRange(WALLET_ID, 5, 5)]
