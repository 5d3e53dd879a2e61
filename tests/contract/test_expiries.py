"""The table of pending transfers that expire: both adapters of `Expiries`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest

from actors.journal.expiry_ports import ExpiringTransfer
from actors.journal.ports import EventRange, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import NOW, make_transfer, settled, transfer_id, wallet_id
from tests.support.writes import CommitRequestBuilder
from wallet.ids import WalletId
from wallet.slots import SLOTS, SlotRange, slot_of
from wallet.state import Expiry, FailureReason, OnExpiry, Transfer, TransferStatus, Wallet

_LATEST = NOW + timedelta(days=1)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


async def holding(store: Store, number: int, *seconds: float) -> Wallet:
    """A wallet with pending transfers that expire in so many seconds, numbered from 1."""
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(number))
    for index, after in enumerate(seconds, start=1):
        expiring = make_transfer(id=transfer_id(100 * number + index), expiry=Expiry(at(after)))
        making.transfer(wallet.id, expiring)
    await store.journal.commit(making.write)
    return making.write.wallets[wallet.id]


async def due(store: Store, **query: Any) -> list[int]:
    """The numbers of the transfers found."""
    values: dict[str, Any] = {"until": _LATEST, "limit": 100}
    return numbers(await store.expiries.due(**values | query))


def numbers(found: Sequence[ExpiringTransfer]) -> list[int]:
    return [int(one.transfer_id[-12:], 16) for one in found]


async def test_the_table_has_what_is_pending_and_expires(store: Store) -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    expiry = Expiry(at(5))
    kept = making.transfer(wallet.id, make_transfer(id=transfer_id(1), expiry=expiry))
    making.transfer(wallet.id, make_transfer(id=transfer_id(2)))
    done = making.transfer(wallet.id, make_transfer(id=transfer_id(3), expiry=expiry))
    making.settle(wallet.id, settled(done, TransferStatus.COMPLETED))
    await store.journal.commit(making.write)
    found = await store.expiries.due(until=_LATEST, limit=10)
    assert found == [ExpiringTransfer(at(5), wallet.id, kept.id)]

    later = CommitRequestBuilder(making.write.wallets[wallet.id])
    failed = settled(kept, TransferStatus.FAILED, failure_reason=FailureReason.EXPIRED)
    later.settle(wallet.id, failed)
    await store.journal.commit(later.write)
    assert await due(store) == []
    assert await store.expiries.next_expiry() is None


async def test_what_is_due_comes_by_time_and_in_pages(store: Store) -> None:
    await holding(store, 1, 3, 1, 2)
    await holding(store, 2, 2, 9)
    assert await due(store, until=at(3)) == [102, 103, 201, 101]
    assert await due(store, until=at(0.999999)) == []
    page = await store.expiries.due(until=at(3), limit=2)
    assert numbers(page) == [102, 103]
    assert await due(store, until=at(3), after=page[-1]) == [201, 101]
    assert await store.expiries.next_expiry() == at(1)


async def test_a_page_is_of_the_slots_and_wallets_that_were_asked_for(store: Store) -> None:
    one, other = await holding(store, 1, 3), await holding(store, 2, 1)
    slot = slot_of(one.id)
    own, others = (SlotRange(slot, slot),), (SlotRange(0, slot - 1), SlotRange(slot + 1, SLOTS - 1))
    assert await due(store, slots=own) == [101]
    assert await due(store, slots=others) == [201]
    assert await store.expiries.next_expiry(slots=own) == at(3)
    assert await due(store, without=[WalletId(other.id)]) == [101]


@pytest.mark.parametrize("action", list(OnExpiry))
async def test_a_transfer_and_its_events_are_read_back_with_their_expiry(
    store: Store, action: OnExpiry
) -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    expiring = make_transfer(id=transfer_id(1), expiry=Expiry(at(5), action))
    held = making.transfer(wallet.id, expiring)
    plain = making.transfer(wallet.id, make_transfer(id=transfer_id(2)))
    after = making.settle(wallet.id, settled(held, TransferStatus.COMPLETED))
    await store.journal.commit(making.write)

    (events,) = await store.outbox.read([EventRange(wallet.id, 1, 4)])
    assert [one.event for one in events] == [one.event for one in making.write.events]
    assert [one.body for one in events] == [one.body for one in making.write.events]
    keys = {(wallet.id, held.id), (wallet.id, plain.id)}
    loaded = await store.journal.load(ReadSet(transfers=keys))
    assert loaded.transfers == {(wallet.id, held.id): after, (wallet.id, plain.id): plain}


async def test_a_batch_that_is_rejected_changes_no_expiry(store: Store) -> None:
    wallet = await holding(store, 1, 5)
    (row,) = await store.expiries.due(until=_LATEST, limit=1)
    (held,) = (await store.journal.load(ReadSet(transfers={row[1:]}))).transfers.values()
    stale = CommitRequestBuilder(msgspec.structs.replace(wallet, version=wallet.version - 1))
    stale.settle(wallet.id, settled(held, TransferStatus.FAILED))
    stale.transfer(wallet.id, _another(held))
    with pytest.raises(Exception, match="version conflict"):
        await store.journal.commit(stale.write)
    assert await store.expiries.due(until=_LATEST, limit=9) == [row]


def _another(transfer: Transfer) -> Transfer:
    return make_transfer(id=transfer_id(77), expiry=transfer.expiry)
