"""A part of a hold is stored, and read back as it was: both kinds of journals."""

from actors.journal.ports import EventRange, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import LATER, make_transfer, settled, transfer_id, wallet_id
from tests.support.writes import CommitRequestBuilder
from wallet.state import Expiry, TransferStatus


async def test_a_part_is_read_back_with_its_transfer_and_event(store: Store) -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    holds = [
        making.transfer(wallet.id, make_transfer(id=transfer_id(number), amount=1_000))
        for number in range(3)
    ]
    await store.journal.commit(making.write)
    later = CommitRequestBuilder(making.write.wallets[wallet.id])
    expected = {}
    for held, part in zip(holds, (300, None, 10**2), strict=True):
        done = later.settle(wallet.id, settled(held, TransferStatus.COMPLETED, part=part))
        expected[wallet.id, held.id] = done
    await store.journal.commit(later.write)

    assert later.write.wallets[wallet.id].balance == 1_400
    loaded = await store.journal.load(ReadSet(wallets={wallet.id}, transfers=set(expected)))
    assert loaded.transfers == expected
    assert loaded.wallets[wallet.id] == later.write.wallets[wallet.id]
    (events,) = await store.outbox.read([EventRange(wallet.id, 5, 7)])
    assert [(one.event, one.body) for one in events] == [
        (one.event, one.body) for one in later.write.events
    ]


async def test_several_parts_of_one_batch_are_stored_as_the_last_one_left_it(store: Store) -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    expiry = Expiry(LATER)
    one, other, third = (
        making.transfer(wallet.id, make_transfer(id=transfer_id(n), amount=9, expiry=expiry))
        for n in range(3)
    )
    await store.journal.commit(making.write)
    later = CommitRequestBuilder(making.write.wallets[wallet.id])
    parts = [(one, 1), (other, 2), (one, 3), (other, 4), (third, 5)]
    states = {held.id: held for held in (one, other, third)}
    for held, part in parts:
        states[held.id] = later.complete_part(wallet.id, states[held.id], part)
    whole = later.settle(wallet.id, settled(states[other.id], TransferStatus.COMPLETED, part=None))
    states[other.id] = whole
    await store.journal.commit(later.write)

    found = await store.journal.load(ReadSet(transfers={(wallet.id, one) for one in states}))
    assert {one.id: one for one in found.transfers.values()} == states
    expiring = await store.expiries.due(until=LATER, limit=9)
    assert {row.transfer_id for row in expiring} == {one.id, third.id}
    (events,) = await store.outbox.read([EventRange(wallet.id, 5, 10)])
    assert [(row.event, row.body) for row in events] == [
        (row.event, row.body) for row in later.write.events
    ]
    assert later.write.wallets[wallet.id].balance == 3 + 9 + 5

    last = CommitRequestBuilder(later.write.wallets[wallet.id])
    last.complete_part(wallet.id, states[one.id], 4)
    last.settle(wallet.id, settled(states[one.id], TransferStatus.FAILED, part=4))
    await store.journal.commit(last.write)
    assert last.write.wallets[wallet.id].pending_debit == 4
    assert last.write.wallets[wallet.id].balance == 4 + 9 + 5


async def test_a_part_of_a_hold_of_the_same_batch_is_stored(store: Store) -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    held = making.transfer(wallet.id, make_transfer(amount=1_000))
    done = making.settle(wallet.id, settled(held, TransferStatus.COMPLETED, part=1))
    await store.journal.commit(making.write)
    found = await store.journal.load(ReadSet(transfers={(wallet.id, held.id)}))
    assert list(found.transfers.values()) == [done]
