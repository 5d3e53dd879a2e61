"""What the tests of a journal's contract write and read."""

import pytest

from actors.journal.ports import JournalConflict, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID, make_transfer, transfer_id
from tests.support.writes import CommitRequestBuilder
from wallet.ids import IdempotencyKey
from wallet.state import Transfer, TransferStatus, Wallet

EVERYTHING = ReadSet(
    wallets={WALLET_ID, OTHER_WALLET_ID},
    transfers={(WALLET_ID, transfer_id(n)) for n in range(5)},
    keys={(WALLET_ID, IdempotencyKey(f"k{n}")) for n in range(5)},
    created_transfers={(WALLET_ID, transfer_id(n)) for n in range(5)},
    references={"r", "s"},
)


async def make_wallet_in(store: Store, *, pending: int = 0, completed: int = 0) -> Wallet:
    """A wallet with one debit of 1.00 per requested transfer, the pending ones first."""
    making = CommitRequestBuilder()
    making.create(WALLET_ID, reference_id="r")
    for number in range(pending + completed):
        status = TransferStatus.PENDING if number < pending else TransferStatus.COMPLETED
        making.transfer(WALLET_ID, make_transfer(id=transfer_id(number), status=status))
    await store.journal.commit(making.write)
    return making.write.wallets[WALLET_ID]


async def assert_refused(store: Store, making: CommitRequestBuilder) -> None:
    """Assert that the commit conflicts and changes nothing."""
    before = await store.journal.load(EVERYTHING)
    rows = await store.outbox.unpublished(limit=100)
    with pytest.raises(JournalConflict):
        await store.journal.commit(making.write)
    assert await store.journal.load(EVERYTHING) == before
    assert await store.outbox.unpublished(limit=100) == rows


def completed_debit(number: int, amount: int = 100) -> Transfer:
    return make_transfer(id=transfer_id(number), status=TransferStatus.COMPLETED, amount=amount)
