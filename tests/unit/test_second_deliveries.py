"""A command that is delivered twice: both deliveries get consistent responses."""

import asyncio

import msgspec
import pytest

from actors.journal.memory_database import MemoryDatabase
from tests.support import results
from tests.support.batches import make_batch, make_cache, request
from tests.support.domain import WALLET_ID, make_transfer, make_wallet, settled
from tests.support.faulty_journal import Fault, FaultyJournal
from tests.support.ids import new_id
from tests.support.results import body
from tests.support.shards import shard_in_memory
from tests.support.waiting import until
from tests.support.write_side import ShardUnderTest, create_wallet, credit, debit, settle
from tests.support.writes import CommitRequestBuilder
from wallet.commands import (
    Command,
    CreateTransfer,
    FreezeWallet,
    Idempotency,
    UnfreezeWallet,
    UpdateWallet,
)
from wallet.ids import IdempotencyKey, TransferId, WalletId
from wallet.refusals import Refusal
from wallet.state import TransferStatus, TransferType, WalletStatus


def two_connections() -> tuple[FaultyJournal, FaultyJournal]:
    database = MemoryDatabase()
    return FaultyJournal(database), FaultyJournal(database)


async def refused(
    shard: ShardUnderTest, wallet: WalletId, command: CreateTransfer, attempt: int = 2
) -> Refusal:
    return results.refused(await shard.request(wallet, command, attempt=attempt)).refusal


@pytest.mark.parametrize("moved_on", [False, True], ids=["as_it_was", "with_new_money"])
async def test_a_refused_second_delivery_is_refused_when_the_first_arrives(moved_on: bool) -> None:
    one, other = two_connections()
    async with shard_in_memory(one) as first, shard_in_memory(other) as second:
        wallet = await first.create_wallet()
        command = credit("10")
        await refused(second, wallet, command)
        if moved_on:
            await second.request(wallet, debit("10"))
        # The first delivery was in a mailbox or a socket until now.
        await refused(first, wallet, command, attempt=1)
    assert one.database.wallets[wallet].balance == (1_000 if moved_on else 0)


async def test_a_second_delivery_waits_for_the_open_commit_of_the_first() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        command = credit("100")
        # Its shard died while it committed [debit 100, credit 100].
        making = CommitRequestBuilder(journal.database.wallets[wallet])
        making.transfer(wallet, make_transfer(amount=10_000, status=TransferStatus.COMPLETED))
        making.transfer(
            wallet,
            make_transfer(
                id=command.transfer_id,
                type=TransferType.CREDIT,
                amount=10_000,
                status=TransferStatus.COMPLETED,
            ),
        )
        held = journal.database.transaction(making.write)
        assert held.advance() is None
        second = asyncio.create_task(shard.request(wallet, command, attempt=2))
        await until(lambda: held.has_waiters)
        held.commit()
        assert body(await second)["wallet"]["version"] == 3


async def test_a_third_delivery_gets_the_refusal_of_the_second() -> None:
    one, other = two_connections()
    async with shard_in_memory(one) as first, shard_in_memory(other) as second:
        wallet = await first.create_wallet()
        command = credit("10")
        reported = await refused(second, wallet, command)
        await first.request(wallet, debit("100"))
        assert await refused(first, wallet, command, attempt=3) == reported
    assert one.database.wallets[wallet].balance == 10_000


async def test_a_refusal_after_a_lost_commit_is_for_good_too() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        journal.commit_faults.append(Fault.LOST_BEFORE_APPLYING)
        command = credit("1")
        await shard.request(wallet, command)
        assert list(journal.database.refused_deliveries) == [(wallet, command.transfer_id)]


async def test_a_first_refusal_leaves_nothing_behind() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        await shard.request(wallet, credit("1"))
        journal.commit_faults.append(Fault.CONFLICT)
        await shard.request(wallet, credit("1"))
        await shard.request(wallet, credit("1"), key="k", attempt=2)  # Its key says it for good.
    assert journal.database.refused_deliveries == {}


async def test_an_atomic_batch_refused_again_is_refused_whole_on_the_first() -> None:
    one, other = two_connections()
    async with shard_in_memory(one) as first, shard_in_memory(other) as second:
        wallet = await first.create_wallet()
        commands = (debit("1"), credit("10"))
        for shard, attempt in ((second, 2), (first, 1)):
            results.rolled_back(
                await shard.request(wallet, *commands, atomic=True, attempt=attempt)
            )
            await second.request(wallet, debit("20"))
    assert one.database.wallets[wallet].balance == 4_000


def test_a_keyed_item_of_an_atomic_batch_is_refused_for_good() -> None:
    """The key of an item is not stored if its batch is rolled back."""
    batch = make_batch(make_cache(make_wallet()))
    commands = debit("1"), credit("10")
    results.rolled_back(batch.decide(request(*commands, keys=(None, "k"), atomic=True, attempt=2)))
    assert list(batch.write.refused) == [(WALLET_ID, commands[1].transfer_id)]
    assert batch.write.stored_answers == {}


async def test_only_the_refused_part_of_a_batch_is_refused_for_good() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = WalletId(new_id())
        await shard.request(wallet, debit("1"), attempt=2)  # No such wallet: nothing to store.
        wallet = await shard.create_wallet()
        done, declined = debit("1"), credit("10")
        await shard.request(wallet, done, declined, attempt=2)
    assert list(journal.database.refused_deliveries) == [(wallet, declined.transfer_id)]


def test_what_is_refused_again_waits_until_a_standby_has_what_it_rests_on() -> None:
    """Also a settlement, whose refusal is not permanent: the other owner's revert may be lost."""
    failed = settled(make_transfer(), TransferStatus.FAILED)
    commands: list[Command] = [credit("10"), settle(failed.id, "completed")]
    for command in commands:
        for attempt in (1, 2):
            batch = make_batch(
                make_cache(make_wallet()), transfers={(WALLET_ID, failed.id): failed}
            )
            results.refused(batch.decide(request(command, attempt=attempt)))
            assert batch.write.confirm is (attempt == 2)


def test_a_recorded_refusal_is_answered_once_a_standby_has_it() -> None:
    command = credit("10")
    refusals = {(WALLET_ID, command.transfer_id): b'{"code":"insufficient_funds","detail":""}'}
    batch = make_batch(make_cache(make_wallet(balance=100_000)), refused=refusals)
    results.refused(batch.decide(request(command, attempt=3)))
    assert batch.write.confirm
    assert batch.write.events == []


def test_an_atomic_batch_meeting_its_own_requests_refusal_is_decided() -> None:
    """Clients use one request id for a single request and for a batch."""
    cache = make_cache(make_wallet())
    single = make_batch(cache)
    single.decide(request(command := credit("10"), keys=("k1",), request_id="r"))
    assert list(single.write.stored_answers) == [(WALLET_ID, "k1")]
    again = make_batch(cache, keys=single.write.stored_answers)
    idempotency_ = Idempotency(key=IdempotencyKey("whole"), fingerprint=b"w")
    reply = again.decide(
        msgspec.structs.replace(
            request(debit("1"), command, keys=(None, "k1"), atomic=True, attempt=2, request_id="r"),
            idempotency=idempotency_,
        )
    )
    results.rolled_back(reply)
    assert list(again.write.stored_answers) == [(WALLET_ID, "whole")]


@pytest.mark.parametrize("other_way", [False, True], ids=["late", "again"])
async def test_a_completion_refused_while_frozen_is_not_applied_later(other_way: bool) -> None:
    one, other = two_connections()
    async with shard_in_memory(one) as first, shard_in_memory(other) as second:
        wallet = await first.create_wallet()
        held = debit("10", status="pending")
        await first.request(wallet, held)
        command = settle(held.transfer_id, "completed", delivery_id=TransferId(new_id()))
        await second.request(wallet, FreezeWallet(direction="debit"), key="f")
        reported = results.refused(await second.request(wallet, command, attempt=2))
        await second.request(wallet, UnfreezeWallet(), key="u")
        # The first delivery was in a mailbox until now; a third one comes, too.
        late = (second, 3) if other_way else (first, 1)
        again = results.refused(await late[0].request(wallet, command, attempt=late[1]))
        assert again.refusal == reported.refusal
        assert one.database.wallets[wallet].balance == 0
        # Another request for the same transfer is another decision.
        another = settle(held.transfer_id, "completed", delivery_id=TransferId(new_id()))
        await first.request(wallet, another)
    assert one.database.wallets[wallet].balance == 1_000


async def test_a_rolled_back_completion_leaves_no_delivery_behind() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        held = debit("10", status="pending")
        await shard.request(wallet, held)
        done = settle(held.transfer_id, "completed", delivery_id=TransferId(new_id()))
        results.rolled_back(await shard.request(wallet, done, credit("99"), atomic=True))
        await shard.request(wallet, done, attempt=2)
    assert journal.database.wallets[wallet].balance == 1_000


async def test_a_change_delivered_twice_does_not_undo_the_one_between() -> None:
    one, other = two_connections()
    async with shard_in_memory(one) as first, shard_in_memory(other) as second:
        wallet = await first.create_wallet()
        freeze = FreezeWallet(direction="both", if_match=(1,))
        done = body(await first.request(wallet, freeze, key="f", request_id="r"))
        await second.request(wallet, UnfreezeWallet(), key="u")
        again = await second.request(wallet, freeze, key="f", request_id="r", attempt=2)
    assert body(again) == done
    assert one.database.wallets[wallet].status is WalletStatus.ACTIVE


async def test_a_creation_delivered_again_is_as_it_was_then() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = WalletId(new_id())
        opening = create_wallet(wallet, metadata={"a": "1"}, overdraft_limit="2")
        first = results.applied(await shard.request(wallet, opening))
        await shard.request(wallet, UpdateWallet(metadata={"a": None}), key="u")
        again = results.applied(await shard.request(wallet, opening, attempt=2))
    assert again.body == first.body
