"""The contract of `Journal`: a history that is not the database's is not written."""

import msgspec
import pytest

from actors.journal.ports import JournalConflict, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import (
    OTHER_WALLET_ID,
    WALLET_ID,
    transfer_id,
    wallet_id,
)
from tests.support.journal_contents import assert_refused, completed_debit, make_wallet_in
from tests.support.writes import CommitRequestBuilder


async def test_another_history_with_the_same_version_is_a_conflict(store: Store) -> None:
    wallet = await make_wallet_in(store, completed=1)
    lost = msgspec.structs.replace(wallet, hash=bytes(16))
    for making in (CommitRequestBuilder(lost), CommitRequestBuilder(lost)):
        making.transfer(WALLET_ID, completed_debit(2))
        await assert_refused(store, making)
    refusal = CommitRequestBuilder(lost)
    refusal.refuse(WALLET_ID, transfer_id(3))
    await assert_refused(store, refusal)
    with pytest.raises(JournalConflict) as conflict:
        await store.journal.commit(refusal.write)
    assert conflict.value.wallet_ids == {WALLET_ID}


async def test_a_wallet_in_quarantine_is_not_written(store: Store) -> None:
    wallet = await make_wallet_in(store, completed=1)
    await store.quarantine(WALLET_ID)
    making = CommitRequestBuilder(wallet)
    making.transfer(WALLET_ID, completed_debit(2))
    await assert_refused(store, making)
    with pytest.raises(JournalConflict) as conflict:
        await store.journal.commit(making.write)
    assert conflict.value.wallet_ids == {WALLET_ID}


async def test_loading_names_wallets_in_quarantine_also_absent_ones(store: Store) -> None:
    await make_wallet_in(store)
    for one in (WALLET_ID, OTHER_WALLET_ID):
        await store.quarantine(one)
    loaded = await store.journal.load(ReadSet(wallets={WALLET_ID, OTHER_WALLET_ID, wallet_id(9)}))
    assert loaded.forked == {WALLET_ID, OTHER_WALLET_ID}
    assert loaded.wallets.keys() == {WALLET_ID}
