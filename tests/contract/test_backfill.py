"""The contract of `StreamBackfill`: one relay at a time, and a complete backfill."""

from datetime import UTC, datetime

from actors.journal.ports import (
    Acknowledged,
    EventRange,
    FilledStream,
    StreamBackfill,
    StreamMark,
)
from tests.contract.conftest import Store
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, make_transfer
from tests.support.writes import CommitRequestBuilder
from wallet.ids import WalletId
from wallet.state import TransferStatus


async def test_nothing_is_backfilled_before_the_first_backfill(store: Store) -> None:
    assert (await store.backfill().port.acknowledged()).incarnation is None


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
        await one.finish(FilledStream(incarnation))
        assert (await other.acknowledged()).incarnation == incarnation


async def test_a_backfill_that_failed_leaves_the_former_incarnation(store: Store) -> None:
    one = store.backfill().port
    assert await one.try_begin()
    await one.finish(FilledStream("first"))
    assert await one.try_begin()
    await one.finish(None)
    assert (await one.acknowledged()).incarnation == "first"


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


# -- marks: what the stream acknowledged -----------------------------------------------------------


async def commit_and_delete(
    store: Store, making: CommitRequestBuilder, *marks: StreamMark | None
) -> None:
    """Commit, and delete the rows with each of ``marks``."""
    await store.journal.commit(making.write)
    rows = await store.outbox.unpublished(limit=10)
    for mark in marks:
        await store.outbox.delete(rows, mark=mark)


def new_wallet(wallet_id: WalletId = WALLET_ID) -> CommitRequestBuilder:
    making = CommitRequestBuilder(now=datetime.now(UTC))
    making.create(wallet_id)
    return making


async def fill(port: StreamBackfill, filled: FilledStream) -> None:
    assert await port.try_begin()
    await port.finish(filled)


async def test_a_deletion_leaves_a_mark_of_its_incarnation(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created|fill"))
    assert await port.acknowledged() == Acknowledged("created|fill")
    await commit_and_delete(store, new_wallet(), StreamMark("created|fill", 9, lowest=7))
    assert await port.acknowledged() == Acknowledged("created|fill", 9, 7)
    await commit_and_delete(store, new_wallet(OTHER_WALLET_ID), StreamMark("created|other", 12))
    assert await port.acknowledged() == Acknowledged("created|fill", 9, 7)


async def test_a_deletion_that_finds_no_row_leaves_no_mark(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created"))
    await commit_and_delete(store, new_wallet(), None, StreamMark("created", 5))
    assert await port.acknowledged() == Acknowledged("created")


async def test_a_mark_can_be_left_twice(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created"))
    for wallet_id in (WALLET_ID, OTHER_WALLET_ID):
        await commit_and_delete(store, new_wallet(wallet_id), StreamMark("created", 5, lowest=5))
    assert await port.acknowledged() == Acknowledged("created", 5, 5)


async def test_an_old_mark_is_no_sign_of_a_purge_but_of_a_rollback(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created"))
    await commit_and_delete(store, new_wallet(), StreamMark("created", 5, age_s=95.0))
    await commit_and_delete(store, new_wallet(OTHER_WALLET_ID), StreamMark("created", 8, 80.0))
    assert await port.acknowledged() == Acknowledged("created", 8, 5)
    await port.limit_age(100.0)
    assert await port.acknowledged() == Acknowledged("created", 8, 8)
    await port.limit_age(1_000.0)
    assert await port.acknowledged() == Acknowledged("created", 8, 8), "they may have expired"
    await port.limit_age(50.0)
    assert await port.acknowledged() == Acknowledged("created", 8, None)


async def test_missing_events_are_of_wallets_that_changed_since(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created"))
    await commit_and_delete(store, new_wallet(), StreamMark("created", 5))
    assert await port.missing_since(5) is None, "no mark above it"
    since = await port.missing_since(4)
    assert since is not None
    assert await port.wallet_ranges(after=None, limit=10, since=since) == [
        EventRange(WALLET_ID, 1, 1)
    ]
    assert await port.wallet_ranges(after=None, limit=10, since=since + 3_600.0) == []


async def test_after_a_whole_fill_any_event_may_be_missing(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created", first=1, last=9))
    await commit_and_delete(store, new_wallet(), StreamMark("created", 12))
    assert await port.acknowledged() == Acknowledged("created", 12, 1)
    assert await port.missing_since(8) is None
    assert await port.missing_since(9) is not None


async def test_a_fill_in_place_keeps_the_marks_that_are_still_true(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created"))
    await commit_and_delete(store, new_wallet(), StreamMark("created", 5))
    await commit_and_delete(store, new_wallet(OTHER_WALLET_ID), StreamMark("created", 8))
    since = await port.missing_since(6)
    await fill(port, FilledStream("created|one", first=7, last=7, kept=6, since=since))
    assert await port.acknowledged() == Acknowledged("created|one", 7, 5)
    again = await port.missing_since(6)
    assert again is not None
    assert since is not None
    assert again <= since + 1e-3
    await fill(port, FilledStream("created|two", first=20, last=30))
    assert await port.acknowledged() == Acknowledged("created|two", 30, 20)


async def test_thinning_keeps_the_highest_mark_and_how_far_it_reaches(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created", first=2, last=4, took_s=3e6))
    await commit_and_delete(store, new_wallet(), StreamMark("created", 7))
    await port.thin_marks()
    assert await port.acknowledged() == Acknowledged("created", 7, 4)
    assert await port.missing_since(3) is None
    assert await port.missing_since(4) is not None


async def test_thinning_drops_the_marks_of_other_incarnations(store: Store) -> None:
    port = store.backfill().port
    await fill(port, FilledStream("created"))
    await commit_and_delete(store, new_wallet(), StreamMark("other", 7))
    await commit_and_delete(store, new_wallet(OTHER_WALLET_ID), StreamMark("created", 8))
    await port.thin_marks()
    assert await port.acknowledged() == Acknowledged("created", 8, 8)
    await fill(port, FilledStream("other"))
    assert await port.acknowledged() == Acknowledged("other")
