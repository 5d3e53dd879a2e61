"""A commit while another one is open: locks, and reads under READ COMMITTED."""

import asyncio

import pytest

from actors.journal.ports import CommitRequest, JournalConflict, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import (
    OTHER_WALLET_ID,
    WALLET_ID,
    make_transfer,
    transfer_id,
)
from tests.support.writes import REFUSAL, CommitRequestBuilder, make_answer
from wallet.ids import IdempotencyKey, WalletId
from wallet.state import TransferStatus, Wallet

_FIRST = (WALLET_ID, transfer_id(1))


async def wallets_in(store: Store, *wallet_ids: WalletId) -> list[Wallet]:
    making = CommitRequestBuilder()
    wallets = [making.create(one) for one in wallet_ids]
    await store.journal.commit(making.write)
    return wallets


def make_debit(number: int, *wallets: Wallet) -> CommitRequestBuilder:
    making = CommitRequestBuilder(*wallets)
    for wallet in wallets:
        done = make_transfer(id=transfer_id(number), status=TransferStatus.COMPLETED)
        making.transfer(wallet.id, done)
    return making


def make_refusal(number: int, wallet: Wallet) -> CommitRequestBuilder:
    making = CommitRequestBuilder(wallet)
    making.refuse(wallet.id, transfer_id(number))
    return making


def committing(store: Store, batch: CommitRequest) -> "asyncio.Task[None]":
    async def commit() -> None:
        await store.journal.commit(batch)

    return asyncio.create_task(commit())


async def test_what_an_open_commit_wrote_is_seen_by_nobody(store: Store) -> None:
    (wallet,) = await wallets_in(store, WALLET_ID)
    held = await store.begin(make_debit(1, wallet).write)
    asked = ReadSet(wallets={WALLET_ID}, created_transfers={_FIRST})
    assert (await store.journal.load(asked)).wallets == {WALLET_ID: wallet}
    assert (await store.journal.load(asked)).created_transfers == {}
    await held.commit()
    assert (await store.journal.load(asked)).wallets[WALLET_ID].version == 2


async def test_a_change_waits_for_an_open_one_and_conflicts_with_it(store: Store) -> None:
    (wallet,) = await wallets_in(store, WALLET_ID)
    held = await store.begin(make_debit(1, wallet).write)
    second = committing(store, make_debit(2, wallet).write)
    await store.someone_waits()
    await held.commit()
    with pytest.raises(JournalConflict) as conflict:
        await second
    assert conflict.value.wallet_ids == {WALLET_ID}


async def test_a_change_waits_for_an_open_one_that_comes_to_nothing(store: Store) -> None:
    (wallet,) = await wallets_in(store, WALLET_ID)
    held = await store.begin(make_debit(1, wallet).write)
    second = committing(store, make_debit(2, wallet).write)
    await store.someone_waits()
    await held.roll_back()
    await second
    loaded = await store.journal.load(ReadSet(wallets={WALLET_ID}, created_transfers={_FIRST}))
    assert (loaded.wallets[WALLET_ID].version, loaded.created_transfers) == (2, {})


async def test_a_first_refusal_rests_on_what_is_committed_and_waits_for_nobody(
    store: Store,
) -> None:
    (wallet,) = await wallets_in(store, WALLET_ID)
    held = await store.begin(make_debit(1, wallet).write)
    await store.journal.commit(CommitRequestBuilder(wallet).write)
    await held.commit()


async def test_a_refusal_for_good_waits_for_an_open_commit_of_that_transfer(store: Store) -> None:
    (wallet,) = await wallets_in(store, WALLET_ID)
    held = await store.begin(make_debit(1, wallet).write)
    refusal = committing(store, make_refusal(1, wallet).write)
    await store.someone_waits()
    await held.commit()
    with pytest.raises(JournalConflict):
        await refusal
    loaded = await store.journal.load(ReadSet(created_transfers={_FIRST}))
    assert (set(loaded.created_transfers), loaded.refused) == ({_FIRST}, {})


async def test_a_permanent_refusal_stays_if_the_open_commit_is_rolled_back(store: Store) -> None:
    (wallet,) = await wallets_in(store, WALLET_ID)
    held = await store.begin(make_debit(1, wallet).write)
    refusal = committing(store, make_refusal(1, wallet).write)
    await store.someone_waits()
    await held.roll_back()
    await refusal
    loaded = await store.journal.load(ReadSet(created_transfers={_FIRST}))
    assert (loaded.created_transfers, loaded.refused) == ({}, {_FIRST: REFUSAL})


async def test_a_commit_waits_for_an_open_refusal_of_its_transfer(store: Store) -> None:
    (wallet,) = await wallets_in(store, WALLET_ID)
    held = await store.begin(make_refusal(1, wallet).write)
    late = committing(store, make_debit(1, wallet).write)
    await store.someone_waits()
    await held.commit()
    with pytest.raises(JournalConflict) as conflict:
        await late
    assert conflict.value.wallet_ids == {WALLET_ID}


async def test_what_was_refused_for_good_is_never_written(store: Store) -> None:
    wallets = await wallets_in(store, WALLET_ID, OTHER_WALLET_ID)
    await store.journal.commit(make_refusal(1, wallets[0]).write)
    with pytest.raises(JournalConflict):
        await store.journal.commit(make_debit(1, *wallets).write)
    loaded = await store.journal.load(ReadSet(wallets={WALLET_ID, OTHER_WALLET_ID}))
    assert [one.version for one in loaded.wallets.values()] == [1, 1]
    # The same id in another wallet is another transfer, and another id another one.
    await store.journal.commit(make_debit(1, wallets[1]).write)
    await store.journal.commit(make_debit(2, wallets[0]).write)


async def test_one_key_is_waited_for_and_then_taken(store: Store) -> None:
    (wallet,) = await wallets_in(store, WALLET_ID)
    key = (OTHER_WALLET_ID, IdempotencyKey("k1"))  # For a scope without a row to lock.
    first, second = CommitRequestBuilder(), CommitRequestBuilder(wallet)
    first.key(*key, make_answer())
    second.key(*key, make_answer(request_id="r2"))
    held = await store.begin(first.write)
    waiting = committing(store, second.write)
    await store.someone_waits()
    await held.commit()
    with pytest.raises(JournalConflict):
        await waiting


async def test_a_batch_locks_wallets_by_id_whatever_order_it_names_them_in(store: Store) -> None:
    one, other = await wallets_in(store, WALLET_ID, OTHER_WALLET_ID)
    held = await store.begin(make_debit(1, one).write)
    backwards = committing(store, make_debit(2, other, one).write)
    await store.someone_waits()
    # It waits for the first wallet, and has not locked the second one, which another batch takes.
    third = await store.begin(make_debit(3, other).write)
    await third.commit()
    await held.roll_back()
    with pytest.raises(JournalConflict) as conflict:
        await backwards
    assert conflict.value.wallet_ids == {OTHER_WALLET_ID}
