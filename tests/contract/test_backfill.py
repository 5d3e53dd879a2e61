"""What every journal promises a relay that backfills a stream: one at a time, and all of it."""

from actors.ports import Span
from tests.contract.conftest import Store
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, a_transfer
from tests.support.writes import WriteInTheMaking
from wallet.state import TransferStatus


async def test_nothing_is_backfilled_before_anybody_did_it(store: Store) -> None:
    assert await store.backfill().port.filled() is None


async def test_one_relay_at_a_time_may_backfill(store: Store) -> None:
    one, other = store.backfill().port, store.backfill().port
    assert await one.begin()
    assert not await other.begin()
    await one.end(None)
    assert await other.begin()
    assert not await one.begin()


async def test_a_relay_ends_only_its_own_backfill(store: Store) -> None:
    one, other = store.backfill().port, store.backfill().port
    assert await one.begin()
    await other.end(None)
    assert not await other.begin()


async def test_a_lost_connection_lets_another_relay_backfill(store: Store) -> None:
    one, other = store.backfill(), store.backfill()
    assert await one.port.begin()
    await one.disconnect()
    assert await other.port.begin()


async def test_the_incarnation_is_known_to_all_once_it_is_backfilled(store: Store) -> None:
    one, other = store.backfill().port, store.backfill().port
    for incarnation in ("first", "second"):
        assert await one.begin()
        await one.end(incarnation)
        assert await other.filled() == incarnation


async def test_a_backfill_that_failed_leaves_the_former_incarnation(store: Store) -> None:
    one = store.backfill().port
    assert await one.begin()
    await one.end("first")
    assert await one.begin()
    await one.end(None)
    assert await one.filled() == "first"


async def test_all_events_of_each_wallet_come_in_pages_by_wallet(store: Store) -> None:
    making = WriteInTheMaking()
    for wallet_id in (WALLET_ID, OTHER_WALLET_ID):
        making.create(wallet_id)
    making.transfer(WALLET_ID, a_transfer(status=TransferStatus.COMPLETED))
    await store.journal.commit(making.write)
    await store.outbox.delete(await store.outbox.unpublished(limit=10))
    port = store.backfill().port
    first, second = sorted([Span(WALLET_ID, 1, 2), Span(OTHER_WALLET_ID, 1, 1)])
    assert await port.written(after=None, limit=10) == [first, second]
    assert await port.written(after=None, limit=1) == [first]
    assert await port.written(after=first.wallet_id, limit=10) == [second]
    assert await port.written(after=second.wallet_id, limit=10) == []
