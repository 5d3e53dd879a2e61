"""The contract of `StreamBackfill`: one relay at a time, and a complete backfill."""

from actors.journal.ports import EventRange
from tests.contract.conftest import Store
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, make_transfer
from tests.support.writes import CommitRequestBuilder
from wallet.state import TransferStatus


async def test_nothing_is_backfilled_before_the_first_backfill(store: Store) -> None:
    assert await store.backfill().port.backfilled_incarnation() is None


async def test_one_relay_at_a_time_may_backfill(store: Store) -> None:
    one, other = store.backfill().port, store.backfill().port
    assert await one.try_begin()
    assert not await other.try_begin()
    await one.finish(None)
    assert await other.try_begin()
    assert not await one.try_begin()


async def test_a_relay_ends_only_its_own_backfill(store: Store) -> None:
    one, other = store.backfill().port, store.backfill().port
    assert await one.try_begin()
    await other.finish(None)
    assert not await other.try_begin()


async def test_a_lost_connection_lets_another_relay_backfill(store: Store) -> None:
    one, other = store.backfill(), store.backfill()
    assert await one.port.try_begin()
    await one.disconnect()
    assert await other.port.try_begin()


async def test_the_incarnation_is_known_to_all_once_it_is_backfilled(store: Store) -> None:
    one, other = store.backfill().port, store.backfill().port
    for incarnation in ("first", "second"):
        assert await one.try_begin()
        await one.finish(incarnation)
        assert await other.backfilled_incarnation() == incarnation


async def test_a_backfill_that_failed_leaves_the_former_incarnation(store: Store) -> None:
    one = store.backfill().port
    assert await one.try_begin()
    await one.finish("first")
    assert await one.try_begin()
    await one.finish(None)
    assert await one.backfilled_incarnation() == "first"


async def test_all_events_of_each_wallet_come_in_pages_by_wallet(store: Store) -> None:
    making = CommitRequestBuilder()
    for wallet_id in (WALLET_ID, OTHER_WALLET_ID):
        making.create(wallet_id)
    making.transfer(WALLET_ID, make_transfer(status=TransferStatus.COMPLETED))
    await store.journal.commit(making.write)
    await store.outbox.delete(await store.outbox.unpublished(limit=10))
    port = store.backfill().port
    first, second = sorted([EventRange(WALLET_ID, 1, 2), EventRange(OTHER_WALLET_ID, 1, 1)])
    assert await port.wallet_ranges(after=None, limit=10) == [first, second]
    assert await port.wallet_ranges(after=None, limit=1) == [first]
    assert await port.wallet_ranges(after=first.wallet_id, limit=10) == [second]
    assert await port.wallet_ranges(after=second.wallet_id, limit=10) == []
