"""Refunds are stored with what they refund, and read back as they were: both kinds of journals."""

from collections.abc import Callable

import msgspec
import pytest

from actors.journal.ports import EventRange, JournalError, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import LATER, make_transfer, settled, transfer_id, wallet_id
from tests.support.writes import CommitRequestBuilder
from wallet.events import RecordedEvent, TransferChanged
from wallet.state import Expiry, Refunded, Transfer, TransferStatus, TransferType, Wallet

COMPLETED, FAILED = TransferStatus.COMPLETED, TransferStatus.FAILED


def paid_out(making: CommitRequestBuilder, amount: int = 1_000) -> tuple[Wallet, Transfer]:
    """A wallet that has taken in 5,000, and a completed credit of it."""
    wallet = making.create(wallet_id(1))
    money = make_transfer(id=transfer_id(1), amount=5_000, status=COMPLETED)
    making.transfer(wallet.id, money)
    out = make_transfer(
        id=transfer_id(2), amount=amount, status=COMPLETED, type=TransferType.CREDIT
    )
    return wallet, making.transfer(wallet.id, out)


def a_refund(number: int, original: Transfer, amount: int, **fields: object) -> Transfer:
    other = {TransferType.DEBIT: TransferType.CREDIT, TransferType.CREDIT: TransferType.DEBIT}
    return make_transfer(
        id=transfer_id(number),
        amount=amount,
        refunds=original.id,
        type=other[original.type],
        **fields,
    )


async def same_events(store: Store, last: CommitRequestBuilder) -> bool:
    wallet = last.write.wallets[wallet_id(1)]
    first = last.write.expected_versions.get(wallet.id, 0) + 1
    (events,) = await store.outbox.read([EventRange(wallet.id, first, wallet.version)])
    return [(one.event, one.body, one.wallet_after.hash) for one in events] == [
        (one.event, one.body, one.wallet_after.hash) for one in last.write.events
    ]


async def test_a_refund_is_counted_at_what_it_refunds(store: Store) -> None:
    making = CommitRequestBuilder()
    wallet, out = paid_out(making)
    await store.journal.commit(making.write)
    later = CommitRequestBuilder(making.write.wallets[wallet.id])
    later.transfers = dict(making.transfers)
    later.transfer(wallet.id, a_refund(3, out, 300, status=COMPLETED))
    held = later.transfer(wallet.id, a_refund(4, out, 700, expiry=Expiry(LATER)))
    await store.journal.commit(later.write)
    assert await same_events(store, later)

    # With a refund comes what it refunds.
    loaded = await store.journal.load(ReadSet(transfers={(wallet.id, held.id)}))
    assert loaded.transfers == {
        (wallet.id, held.id): held,
        (wallet.id, out.id): msgspec.structs.replace(out, refunded=Refunded(300, 700)),
    }

    last = CommitRequestBuilder(later.write.wallets[wallet.id])
    last.transfers = dict(later.transfers)
    part = last.complete_part(wallet.id, held, 100)
    last.complete_part(wallet.id, part, 150)
    last.settle(wallet.id, settled(held, FAILED, part=150))
    await store.journal.commit(last.write)
    assert await same_events(store, last)
    loaded = await store.journal.load(ReadSet(transfers={(wallet.id, out.id)}))
    assert [one.refunded for one in loaded.transfers.values()] == [Refunded(450, 0)]
    assert last.write.wallets[wallet.id].balance == 4_450


async def test_one_batch_completes_refunds_and_settles(store: Store) -> None:
    making = CommitRequestBuilder()
    wallet, first = paid_out(making)
    held = making.transfer(wallet.id, make_transfer(id=transfer_id(3), amount=500))
    part = making.complete_part(wallet.id, held, 200)
    back = making.transfer(wallet.id, a_refund(4, part, 150))
    making.transfer(wallet.id, a_refund(5, first, 1_000, status=COMPLETED))
    making.settle(wallet.id, settled(back, COMPLETED))
    known = making.transfers[wallet.id, held.id]
    making.settle(wallet.id, settled(known, COMPLETED, part=None))
    await store.journal.commit(making.write)
    assert await same_events(store, making)

    keys = {(wallet.id, held.id), (wallet.id, first.id)}
    loaded = await store.journal.load(ReadSet(transfers=keys))
    assert {key[1]: one.refunded for key, one in loaded.transfers.items()} == {
        held.id: Refunded(150, 0),
        first.id: Refunded(1_000, 0),
    }
    assert making.write.wallets[wallet.id].balance == 5_000 + 500 - 150


Change = Callable[[TransferChanged], TransferChanged]


def _counts(completed: int, pending: int) -> Change:
    return lambda event: msgspec.structs.replace(event, refunded=Refunded(completed, pending))


def _refunds(number: int) -> Change:
    def change(event: TransferChanged) -> TransferChanged:
        transfer = msgspec.structs.replace(event.transfer, refunds=transfer_id(number))
        return msgspec.structs.replace(event, transfer=transfer)

    return change


@pytest.mark.parametrize(
    "change",
    [_counts(1_001, 0), _counts(1, 1_000), _refunds(1), _refunds(3)],
    ids=["more than completed", "more with pending ones", "the same direction", "of a refund"],
)
async def test_a_wrong_refund_is_not_written(store: Store, change: Change) -> None:
    """INV-16: a shard never sends that; the journal is the last line."""
    making = CommitRequestBuilder()
    wallet, out = paid_out(making)
    making.transfer(wallet.id, a_refund(3, out, 1, status=COMPLETED))
    await store.journal.commit(making.write)
    later = CommitRequestBuilder(making.write.wallets[wallet.id])
    later.transfers = dict(making.transfers)
    later.transfer(wallet.id, a_refund(4, out, 1, status=COMPLETED))
    (recorded,) = later.write.events
    later.write.events[0] = _changed(recorded, change)
    with pytest.raises(JournalError):
        await store.journal.commit(later.write)
    loaded = await store.journal.load(ReadSet(wallets={wallet.id}))
    assert loaded.wallets[wallet.id] == making.write.wallets[wallet.id]


def _changed(recorded: RecordedEvent, change: Change) -> RecordedEvent:
    assert isinstance(recorded.event, TransferChanged)
    return msgspec.structs.replace(recorded, event=change(recorded.event))
