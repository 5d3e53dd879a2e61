"""The contract of `Journal`: commits are atomic, and reads return exactly what was written."""

from datetime import timedelta

import pytest

from actors.journal.ports import EventRange, LoadedState, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import (
    LATER,
    NOW,
    OTHER_WALLET_ID,
    WALLET_ID,
    make_transfer,
    settled,
    transfer_id,
    wallet_id,
)
from tests.support.journal_contents import (
    EVERYTHING,
    assert_refused,
    completed_debit,
    make_wallet_in,
)
from tests.support.writes import CommitRequestBuilder, make_answer
from wallet.events import TransferChanged
from wallet.ids import IdempotencyKey
from wallet.money import MINOR_MAX
from wallet.state import FailureReason, TransferStatus, TransferType

PENDING, COMPLETED, FAILED = TransferStatus


# -- what was written is what is read ----------------------------------------------------------


async def test_an_empty_journal_finds_nothing(store: Store) -> None:
    assert await store.journal.load(EVERYTHING) == LoadedState()


async def test_a_wallet_is_read_as_it_was_written(store: Store) -> None:
    making = CommitRequestBuilder()
    wallet = making.create(WALLET_ID, reference_id="r", shop="Žofie", empty="")
    await store.journal.commit(making.write)
    loaded = await store.journal.load(ReadSet(wallets={WALLET_ID}, references={"r", "s"}))
    assert loaded == LoadedState(
        wallets={WALLET_ID: wallet},
        unpublished=[EventRange(WALLET_ID, 1, 1)],
        references={"r": WALLET_ID},
    )


async def test_transfers_and_their_events_are_read_as_they_were_written(store: Store) -> None:
    making = CommitRequestBuilder()
    making.create(WALLET_ID)
    written = [
        making.transfer(WALLET_ID, transfer, made_by=made_by)
        for transfer, made_by in (
            (completed_debit(0, amount=500), "key-1"),
            (
                make_transfer(
                    id=transfer_id(1),
                    type=TransferType.CREDIT,
                    amount=200,
                    reference_id="ref",
                    metadata={"a": "b", "c": "d"},
                ),
                None,
            ),
            (make_transfer(id=transfer_id(2)), None),
        )
    ]
    await store.journal.commit(making.write)
    loaded = await store.journal.load(EVERYTHING)
    assert loaded.wallets == {WALLET_ID: making.write.wallets[WALLET_ID]}
    assert loaded.transfers == {(WALLET_ID, transfer.id): transfer for transfer in written}
    assert loaded.created_transfers == {
        (WALLET_ID, one.event.transfer.id): one
        for one in making.write.events
        if isinstance(one.event, TransferChanged)
    }
    assert len(loaded.created_transfers) == len(written)


async def test_a_settled_transfer_is_read_settled_and_its_event_as_it_was(store: Store) -> None:
    wallet = await make_wallet_in(store, pending=2)
    loaded = await store.journal.load(EVERYTHING)
    first, second = (loaded.transfers[WALLET_ID, transfer_id(number)] for number in (0, 1))
    making = CommitRequestBuilder(wallet, now=LATER)
    done = [
        making.settle(
            WALLET_ID, settled(first, COMPLETED, reference_id="new", metadata={"x": "y"})
        ),
        making.settle(WALLET_ID, settled(second, FAILED)),
    ]
    await store.journal.commit(making.write)
    again = await store.journal.load(EVERYTHING)
    assert [again.transfers[WALLET_ID, one.id] for one in done] == done
    assert done[1].failure_reason is FailureReason.REVERTED
    assert again.created_transfers == loaded.created_transfers
    assert again.wallets[WALLET_ID] == making.write.wallets[WALLET_ID]
    event_range = EventRange(WALLET_ID, 4, 5)
    assert list(await store.outbox.read([event_range])) == [making.write.events]


async def test_a_transfer_may_be_created_and_settled_by_one_batch(store: Store) -> None:
    making = CommitRequestBuilder()
    making.create(WALLET_ID)
    held = making.transfer(WALLET_ID, make_transfer(id=transfer_id(0)))
    done = making.settle(WALLET_ID, settled(held, COMPLETED))
    await store.journal.commit(making.write)
    loaded = await store.journal.load(EVERYTHING)
    assert loaded.transfers == {(WALLET_ID, done.id): done}
    assert loaded.created_transfers == {(WALLET_ID, done.id): making.write.events[1]}


async def test_the_largest_amount_is_written_exactly(store: Store) -> None:
    making = CommitRequestBuilder()
    making.create(WALLET_ID)
    making.transfer(WALLET_ID, completed_debit(0, amount=MINOR_MAX))
    await store.journal.commit(making.write)
    loaded = await store.journal.load(EVERYTHING)
    assert loaded.wallets[WALLET_ID].balance == MINOR_MAX
    assert loaded.transfers[WALLET_ID, transfer_id(0)].amount == MINOR_MAX


async def test_answers_are_read_as_they_were_written(store: Store) -> None:
    wallet = await make_wallet_in(store)
    making = CommitRequestBuilder(wallet)
    accepted, refused = make_answer(version=7), make_answer(refused=True, request_id="r2")
    making.key(WALLET_ID, "k1", accepted)
    making.key(WALLET_ID, "k2", refused)
    await store.journal.commit(making.write)
    loaded = await store.journal.load(ReadSet(keys=EVERYTHING.keys))
    assert loaded == LoadedState(
        keys={
            (WALLET_ID, IdempotencyKey("k1")): accepted,
            (WALLET_ID, IdempotencyKey("k2")): refused,
        }
    )


async def test_a_key_may_be_kept_for_a_scope_without_a_wallet(store: Store) -> None:
    making = CommitRequestBuilder()
    making.key(WALLET_ID, "k1", make_answer())
    await store.journal.commit(making.write)
    loaded = await store.journal.load(ReadSet(keys=EVERYTHING.keys))
    assert loaded.keys == {(WALLET_ID, "k1"): make_answer()}


async def test_one_key_may_be_used_by_two_wallets(store: Store) -> None:
    making = CommitRequestBuilder()
    making.key(WALLET_ID, "k1", make_answer(version=1))
    making.key(OTHER_WALLET_ID, "k1", make_answer(version=2))
    await store.journal.commit(making.write)
    loaded = await store.journal.load(ReadSet(keys={(OTHER_WALLET_ID, IdempotencyKey("k1"))}))
    assert loaded.keys == {(OTHER_WALLET_ID, "k1"): make_answer(version=2)}


async def test_a_transfer_belongs_to_one_wallet(store: Store) -> None:
    await make_wallet_in(store, pending=1)
    wanted = {(OTHER_WALLET_ID, transfer_id(0))}
    assert (
        await store.journal.load(ReadSet(transfers=wanted, created_transfers=wanted))
        == LoadedState()
    )


async def test_many_wallets_travel_in_one_batch(store: Store) -> None:
    making = CommitRequestBuilder()
    ids = [wallet_id(number) for number in range(100, 150)]
    for number, one in enumerate(ids):
        making.create(one)
        making.transfer(one, completed_debit(number, amount=number + 1))
    await store.journal.commit(making.write)
    loaded = await store.journal.load(ReadSet(wallets=set(ids)))
    assert loaded.wallets == making.write.wallets
    assert sorted(loaded.unpublished) == [EventRange(one, 1, 2) for one in ids]


# -- what conflicts is refused whole (INV-5) -----------------------------------------------------


async def test_a_batch_decided_on_an_old_version_is_refused_whole(store: Store) -> None:
    old = await make_wallet_in(store)
    newer = CommitRequestBuilder(old)
    newer.transfer(WALLET_ID, completed_debit(0))
    await store.journal.commit(newer.write)

    stale = CommitRequestBuilder(old)
    stale.create(OTHER_WALLET_ID, reference_id="s")
    stale.transfer(WALLET_ID, completed_debit(1))
    stale.key(WALLET_ID, "k1", make_answer())
    await assert_refused(store, stale)


async def test_a_refusal_decided_on_an_old_version_is_not_remembered(store: Store) -> None:
    old = await make_wallet_in(store)
    newer = CommitRequestBuilder(old)
    newer.transfer(WALLET_ID, completed_debit(0))
    await store.journal.commit(newer.write)

    refusal = CommitRequestBuilder(old)
    refusal.key(WALLET_ID, "k1", make_answer(refused=True))
    await assert_refused(store, refusal)


async def test_a_refusal_on_the_current_version_writes_its_key_and_nothing_else(
    store: Store,
) -> None:
    wallet = await make_wallet_in(store)
    refusal = CommitRequestBuilder(wallet, now=LATER)
    refusal.key(WALLET_ID, "k1", make_answer(refused=True))
    await store.journal.commit(refusal.write)
    loaded = await store.journal.load(EVERYTHING)
    assert loaded.wallets == {WALLET_ID: wallet}
    assert loaded.unpublished == [EventRange(WALLET_ID, 1, 1)]
    assert loaded.keys == {(WALLET_ID, "k1"): make_answer(refused=True)}


async def test_a_changed_and_a_refused_wallet_are_checked_alike(store: Store) -> None:
    making = CommitRequestBuilder()
    for one in (WALLET_ID, OTHER_WALLET_ID):
        making.create(one)
    await store.journal.commit(making.write)
    both = making.write.wallets
    newer = CommitRequestBuilder(both[OTHER_WALLET_ID])
    newer.transfer(OTHER_WALLET_ID, completed_debit(0))
    await store.journal.commit(newer.write)

    mixed = CommitRequestBuilder(*both.values())
    mixed.transfer(WALLET_ID, completed_debit(1))
    await assert_refused(store, mixed)


async def test_a_batch_for_a_wallet_that_does_not_exist_is_refused(store: Store) -> None:
    imagined = CommitRequestBuilder()
    imagined.create(WALLET_ID)
    making = CommitRequestBuilder(imagined.write.wallets[WALLET_ID])
    making.transfer(WALLET_ID, completed_debit(0))
    await assert_refused(store, making)


async def test_a_wallet_is_created_once(store: Store) -> None:
    await make_wallet_in(store)
    again = CommitRequestBuilder(now=LATER)
    again.create(WALLET_ID)
    again.create(OTHER_WALLET_ID)
    await assert_refused(store, again)


async def test_a_reference_belongs_to_one_wallet(store: Store) -> None:
    await make_wallet_in(store)
    again = CommitRequestBuilder()
    again.create(OTHER_WALLET_ID, reference_id="r")
    await assert_refused(store, again)


async def test_a_transfer_id_is_used_once(store: Store) -> None:
    wallet = await make_wallet_in(store, completed=1)
    again = CommitRequestBuilder(wallet)
    again.key(WALLET_ID, "k1", make_answer())
    again.transfer(WALLET_ID, completed_debit(0))
    await assert_refused(store, again)


async def test_a_transfer_id_is_used_once_within_a_batch(store: Store) -> None:
    wallet = await make_wallet_in(store)
    twice = CommitRequestBuilder(wallet)
    twice.transfer(WALLET_ID, completed_debit(0))
    twice.transfer(WALLET_ID, completed_debit(0))
    await assert_refused(store, twice)


async def test_two_wallets_may_use_one_transfer_id(store: Store) -> None:
    await make_wallet_in(store, completed=1)
    other = CommitRequestBuilder()
    other.create(OTHER_WALLET_ID)
    other.transfer(OTHER_WALLET_ID, completed_debit(0))
    await store.journal.commit(other.write)
    loaded = await store.journal.load(ReadSet(transfers={(OTHER_WALLET_ID, transfer_id(0))}))
    assert len(loaded.transfers) == 1


async def test_a_key_is_used_once(store: Store) -> None:
    wallet = await make_wallet_in(store)
    first = CommitRequestBuilder(wallet)
    first.key(WALLET_ID, "k1", make_answer())
    await store.journal.commit(first.write)
    again = CommitRequestBuilder(wallet)
    again.transfer(WALLET_ID, completed_debit(0))
    again.key(WALLET_ID, "k1", make_answer(request_id="r2"))
    await assert_refused(store, again)


async def test_a_key_that_belongs_to_no_wallet_is_used_once(store: Store) -> None:
    first, again = CommitRequestBuilder(), CommitRequestBuilder()
    first.key(WALLET_ID, "k1", make_answer())
    await store.journal.commit(first.write)
    assert (await store.journal.load(EVERYTHING)).keys == {(WALLET_ID, "k1"): make_answer()}
    again.key(WALLET_ID, "k1", make_answer(request_id="r2"))
    await assert_refused(store, again)


@pytest.mark.parametrize("status", [COMPLETED, FAILED])
async def test_a_transfer_is_settled_once(store: Store, status: TransferStatus) -> None:
    wallet = await make_wallet_in(store, pending=2)
    held = (await store.journal.load(EVERYTHING)).transfers[WALLET_ID, transfer_id(0)]
    first = CommitRequestBuilder(wallet, now=LATER)
    first.settle(WALLET_ID, settled(held, COMPLETED))
    await store.journal.commit(first.write)
    # The version is right, but the transfer is not pending any more.
    again = CommitRequestBuilder(first.write.wallets[WALLET_ID], now=LATER + timedelta(seconds=1))
    again.settle(WALLET_ID, settled(held, status))
    await assert_refused(store, again)


async def test_a_transfer_is_settled_once_within_a_batch(store: Store) -> None:
    wallet = await make_wallet_in(store, pending=2)
    held = (await store.journal.load(EVERYTHING)).transfers[WALLET_ID, transfer_id(0)]
    twice = CommitRequestBuilder(wallet, now=LATER)
    twice.settle(WALLET_ID, settled(held, COMPLETED))
    twice.settle(WALLET_ID, settled(held, FAILED))
    await assert_refused(store, twice)


async def test_a_transfer_that_does_not_exist_is_not_settled(store: Store) -> None:
    wallet = await make_wallet_in(store, pending=1)
    making = CommitRequestBuilder(wallet)
    making.settle(WALLET_ID, settled(make_transfer(id=transfer_id(4), created_at=NOW), COMPLETED))
    await assert_refused(store, making)


async def test_after_a_conflict_the_same_store_goes_on(store: Store) -> None:
    old = await make_wallet_in(store)
    first, second = CommitRequestBuilder(old), CommitRequestBuilder(old)
    first.transfer(WALLET_ID, completed_debit(0))
    second.transfer(WALLET_ID, completed_debit(1))
    await store.journal.commit(first.write)
    await assert_refused(store, second)
    again = CommitRequestBuilder(first.write.wallets[WALLET_ID])
    again.transfer(WALLET_ID, completed_debit(1))
    await store.journal.commit(again.write)
    loaded = await store.journal.load(EVERYTHING)
    assert loaded.wallets[WALLET_ID].balance == 200
