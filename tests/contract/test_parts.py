"""A part of a hold is stored, and read back as it was: both kinds of journals."""

from actors.journal.ports import EventRange, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import make_transfer, settled, transfer_id, wallet_id
from tests.support.writes import CommitRequestBuilder
from wallet.state import TransferStatus


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


async def test_a_part_of_a_hold_of_the_same_batch_is_stored(store: Store) -> None:
    making = CommitRequestBuilder()
    wallet = making.create(wallet_id(1))
    held = making.transfer(wallet.id, make_transfer(amount=1_000))
    done = making.settle(wallet.id, settled(held, TransferStatus.COMPLETED, part=1))
    await store.journal.commit(making.write)
    found = await store.journal.load(ReadSet(transfers={(wallet.id, held.id)}))
    assert list(found.transfers.values()) == [done]
