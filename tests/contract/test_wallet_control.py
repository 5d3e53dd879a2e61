"""What a wallet may do is stored with the wallet, and with the event that says it."""

import pytest

from actors.journal.ports import EventRange, JournalConflict, ReadSet
from tests.contract.conftest import Store
from tests.support.domain import make_transfer, settled, transfer_id, wallet_id
from tests.support.writes import CommitRequestBuilder
from wallet.commands import CloseWallet, FreezeWallet, UnfreezeWallet, UpdateWallet
from wallet.events import RecordedEvent
from wallet.state import Transfer, TransferStatus, TransferType, Wallet

WALLET = wallet_id(1)
FREEZE = FreezeWallet(direction="credit", reason="Žofie's card")
UPDATE = UpdateWallet(metadata={"tier": "gold", "note": None}, overdraft_limit="5")


async def load(store: Store) -> Wallet:
    return (await store.journal.load(ReadSet(wallets={WALLET}))).wallets[WALLET]


async def read(store: Store, until: int) -> list[RecordedEvent]:
    (events,) = await store.outbox.read([EventRange(WALLET, 1, until)])
    return list(events)


def completed(number: int, kind: TransferType, amount: int) -> Transfer:
    return make_transfer(
        id=transfer_id(number), type=kind, amount=amount, status=TransferStatus.COMPLETED
    )


async def test_a_wallet_is_read_as_its_control_was_written(store: Store) -> None:
    making = CommitRequestBuilder()
    making.create(WALLET, overdraft_limit=700, note="n")
    await store.journal.commit(making.write)
    for command in (UPDATE, FREEZE, UnfreezeWallet(), CloseWallet(reason="r")):
        assert await load(store) == making.write.wallets[WALLET]
        making = CommitRequestBuilder(await load(store))
        making.control(WALLET, command)
        await store.journal.commit(making.write)
    assert await load(store) == making.write.wallets[WALLET]


async def test_a_wallet_may_be_opened_changed_and_used_by_one_batch(store: Store) -> None:
    making = CommitRequestBuilder()
    making.create(WALLET, note="n")
    making.control(WALLET, UPDATE)
    making.transfer(WALLET, completed(1, TransferType.CREDIT, 500))
    making.control(WALLET, FREEZE)
    await store.journal.commit(making.write)
    assert await load(store) == making.write.wallets[WALLET]


@pytest.mark.parametrize("raises", [True, False])
async def test_a_limit_is_changed_and_used_by_one_batch(store: Store, raises: bool) -> None:
    first = CommitRequestBuilder()
    wallet = first.create(WALLET, overdraft_limit=0 if raises else 500)
    if not raises:
        first.transfer(WALLET, completed(1, TransferType.CREDIT, 500))
    await store.journal.commit(first.write)
    making = CommitRequestBuilder(await load(store))
    if raises:
        making.control(WALLET, UpdateWallet(overdraft_limit="5"))
        making.transfer(WALLET, completed(2, TransferType.CREDIT, 500))
    else:
        making.transfer(WALLET, completed(2, TransferType.DEBIT, 500))
        making.control(WALLET, UpdateWallet(overdraft_limit="0"))
    await store.journal.commit(making.write)
    assert await load(store) == making.write.wallets[wallet.id]


async def test_events_are_read_back_byte_for_byte_after_changes(store: Store) -> None:
    written: list[RecordedEvent] = []
    making = CommitRequestBuilder()
    making.create(WALLET, reference_id="r", overdraft_limit=3, note="n")
    for step in range(4):
        if step:
            making = CommitRequestBuilder(await load(store))
            making.control(WALLET, (UPDATE, FREEZE, UnfreezeWallet(reason="w"))[step - 1])
        making.transfer(WALLET, completed(step, TransferType.DEBIT, 1))
        await store.journal.commit(making.write)
        written += making.write.events
    found = await read(store, len(written))
    assert [(one.id, one.body) for one in found] == [(one.id, one.body) for one in written]
    assert [one.event for one in found] == [one.event for one in written]


async def test_a_change_decided_on_an_old_version_is_refused(store: Store) -> None:
    first = CommitRequestBuilder()
    first.create(WALLET)
    await store.journal.commit(first.write)
    late = CommitRequestBuilder(await load(store))
    late.control(WALLET, UPDATE)
    other = CommitRequestBuilder(await load(store))
    other.control(WALLET, FREEZE)
    await store.journal.commit(other.write)
    with pytest.raises(JournalConflict):
        await store.journal.commit(late.write)
    assert await load(store) == other.write.wallets[WALLET]


async def test_a_delivery_that_was_refused_is_not_applied(store: Store) -> None:
    first = CommitRequestBuilder()
    first.create(WALLET)
    held = first.transfer(WALLET, make_transfer(id=transfer_id(1)))
    await store.journal.commit(first.write)
    delivery, other = transfer_id(8), transfer_id(9)
    refusal = CommitRequestBuilder(await load(store))
    refusal.refuse(WALLET, delivery)
    await store.journal.commit(refusal.write)
    read_set = ReadSet(created_transfers={(WALLET, delivery), (WALLET, other)})
    assert list((await store.journal.load(read_set)).refused) == [(WALLET, delivery)]

    done = settled(held, TransferStatus.COMPLETED)
    late = CommitRequestBuilder(await load(store))
    late.settle(WALLET, done)
    late.write.deliveries.add((WALLET, delivery))
    with pytest.raises(JournalConflict) as conflict:
        await store.journal.commit(late.write)
    assert conflict.value.wallet_ids == {WALLET}

    another = CommitRequestBuilder(await load(store))
    another.settle(WALLET, done)
    another.write.deliveries.add((WALLET, other))
    await store.journal.commit(another.write)
