"""A shard on an in-memory journal: group commit, bounds and deadlines."""

import asyncio
from collections.abc import Iterable

import pytest

from actors.journal.ports import CommitRequest, EventRange
from actors.rpc.messages import FailureCode, RequestResult
from tests.support.faulty_journal import Fault, FaultyJournal
from tests.support.ids import new_id
from tests.support.results import body, failed
from tests.support.shards import limits, queued, shard_in_memory
from tests.support.write_side import (
    ShardUnderTest,
    credit,
    debit,
    settle,
)
from wallet.commands import CommandItem, CommandRequest
from wallet.ids import WalletId


class GatedJournal(FaultyJournal):
    """Commits wait for an event that the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_the_gate = asyncio.Event()

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        self.at_the_gate.set()
        await self.gate.wait()
        await super().commit(batch, session=session)


class FullRelay:
    """A relay with a backlog that the test sets."""

    def __init__(self) -> None:
        self.backlog = 0

    def add(self, *_: object) -> None:
        pass

    def add_from_journal(self, event_ranges: Iterable[EventRange]) -> None:
        pass

    def reset(self) -> None:
        pass


async def held_up(
    shard: ShardUnderTest, journal: GatedJournal, wallet: WalletId
) -> asyncio.Task[RequestResult]:
    """A debit whose commit waits: later requests queue behind it."""
    journal.gate.clear()
    journal.at_the_gate.clear()
    asking = asyncio.create_task(shard.request(wallet, debit("1")))
    await journal.at_the_gate.wait()
    return asking


# -- group commit ------------------------------------------------------------------------------


async def test_what_queues_during_a_commit_is_one_transaction() -> None:
    journal = GatedJournal()
    async with shard_in_memory(journal) as shard:
        wallets = [await shard.create_wallet() for _ in range(3)]
        commits = journal.commits
        first = await held_up(shard, journal, wallets[0])
        tasks = await queued(shard, *((wallet, debit("1")) for wallet in wallets * 5))
        assert shard.shard.mailbox_items == 15
        journal.gate.set()
        await asyncio.gather(first, *tasks)
        assert journal.commits == commits + 2
        assert shard.shard.batch_commands_max_seen == 15


async def test_a_batch_is_no_larger_than_allowed() -> None:
    journal = GatedJournal()
    async with shard_in_memory(journal, limits=limits(batch_commands_max=4)) as shard:
        wallet = await shard.create_wallet()
        commits = journal.commits
        first = await held_up(shard, journal, wallet)
        tasks = await queued(shard, *((wallet, debit("1")) for _ in range(10)))
        journal.gate.set()
        await asyncio.gather(first, *tasks)
    assert journal.commits == commits + 1 + 3
    assert journal.database.wallets[wallet].balance == 1_100


async def test_nothing_is_answered_or_remembered_before_it_is_committed() -> None:
    journal = GatedJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        asking = await held_up(shard, journal, wallet)
        assert not asking.done()
        assert journal.database.wallets[wallet].version == 1
        journal.commit_faults.append(Fault.UNAVAILABLE)
        journal.gate.set()
        assert failed(await asking).code is FailureCode.UNAVAILABLE
        assert body(await shard.request(wallet, debit("5")))["wallet"]["balance"] == "5.00"


async def test_several_requests_of_one_call_are_answered_in_order() -> None:
    async with shard_in_memory(FaultyJournal()) as shard:
        wallets = [await shard.create_wallet() for _ in range(3)]
        asked = [
            CommandRequest(
                wallet_id=wallet,
                items=(CommandItem(command=debit(str(number + 1))),),
                request_id=new_id(),
                timeout_s=5,
            )
            for number, wallet in enumerate(wallets * 2)
        ]
        replies = await shard.shard.submit(asked)
    assert [body(reply)["amount"] for reply in replies] == [f"{n}.00" for n in range(1, 7)]


# -- memory ------------------------------------------------------------------------------------


async def test_a_warm_wallet_is_decided_without_a_read() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        loads = journal.loads
        held = body(await shard.request(wallet, debit("3", status="pending")))
        await shard.request(wallet, settle(held["id"], "completed"))
        await shard.request(wallet, credit("3"))
    assert journal.loads == loads


async def test_wallets_that_left_memory_come_back_as_they_were() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal, limits=limits(wallets_cached_max=2)) as shard:
        wallets = [await shard.create_wallet() for _ in range(5)]
        for amount in ("1", "2"):
            for wallet in wallets:
                await shard.request(wallet, debit(amount))
        assert shard.shard.wallets_active == 2
    assert [journal.database.wallets[wallet].balance for wallet in wallets] == [300] * 5
    assert [journal.database.wallets[wallet].version for wallet in wallets] == [3] * 5


async def test_more_pending_transfers_than_are_remembered_can_be_settled() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal, limits=limits(transfers_cached_max=1)) as shard:
        wallet = await shard.create_wallet()
        held = [body(await shard.request(wallet, debit("1", status="pending"))) for _ in range(4)]
        for transfer in held:
            done = body(await shard.request(wallet, settle(transfer["id"], "completed")))
            assert done["status"] == "completed"
    assert journal.database.wallets[wallet].balance == 400


# -- bounds ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "what"), [("mailbox_commands_max", "shard"), ("mailbox_wallet_commands_max", "w")]
)
async def test_a_full_queue_refuses_before_anything_is_written(field: str, what: str) -> None:
    journal = GatedJournal()
    async with shard_in_memory(journal, limits=limits(**{field: 2})) as shard:
        wallet = await shard.create_wallet()
        first = await held_up(shard, journal, wallet)
        tasks = await queued(shard, *((wallet, debit("1")) for _ in range(2)))
        refused = failed(await shard.request(wallet, debit("1")))
        assert (refused.code, refused.applied) == (FailureCode.OVERLOADED, "no")
        assert f"The {what}" in refused.detail
        journal.gate.set()
        await asyncio.gather(first, *tasks)
        assert body(await shard.request(wallet, debit("1")))["wallet"]["balance"] == "4.00"
    assert shard.shard.counts["overloaded"] == 1


async def test_a_full_wallet_queue_does_not_affect_other_wallets() -> None:
    journal = GatedJournal()
    async with shard_in_memory(journal, limits=limits(mailbox_wallet_commands_max=1)) as shard:
        overloaded, quiet = [await shard.create_wallet() for _ in range(2)]
        first = await held_up(shard, journal, overloaded)
        tasks = await queued(shard, (overloaded, debit("1")), (quiet, debit("2")))
        assert failed(await shard.request(overloaded, debit("1"))).code is FailureCode.OVERLOADED
        journal.gate.set()
        await asyncio.gather(first, *tasks)
    assert journal.database.wallets[quiet].balance == 200


async def test_a_full_outbox_refuses_writes_until_it_drains() -> None:
    relay = FullRelay()
    journal = FaultyJournal()
    async with shard_in_memory(journal, relay=relay, limits=limits(outbox_events_max=10)) as shard:
        wallet = await shard.create_wallet()
        relay.backlog = 10
        refused = failed(await shard.request(wallet, debit("1")))
        assert (refused.code, refused.applied) == (FailureCode.UNAVAILABLE, "no")
        again = failed(await shard.request(wallet, debit("1"), attempt=2))
        assert again.applied == "unknown"
        assert journal.database.wallets[wallet].version == 1
        relay.backlog = 9
        assert body(await shard.request(wallet, debit("1")))["wallet"]["version"] == 2


# -- deadlines ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("attempt", "applied"), [(1, "no"), (2, "unknown")])
async def test_what_is_late_is_not_decided_any_more(attempt: int, applied: str) -> None:
    journal = GatedJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        first = await held_up(shard, journal, wallet)
        late = asyncio.create_task(
            shard.request(wallet, debit("9"), timeout_s=0.0, attempt=attempt)
        )
        await asyncio.sleep(0)
        journal.gate.set()
        await first
        refused = failed(await late)
        assert (refused.code, refused.applied) == (FailureCode.DEADLINE_EXCEEDED, applied)
    assert journal.database.wallets[wallet].balance == 100


async def test_a_deadline_that_passes_while_a_commit_is_in_doubt_leaves_it_open() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        journal.commit_faults.extend([Fault.LOST_AFTER_APPLYING])
        journal.loads_unavailable = 1_000
        refused = failed(await shard.request(wallet, debit("1"), timeout_s=0.05))
        assert (refused.code, refused.applied) == (FailureCode.DEADLINE_EXCEEDED, "unknown")
        journal.loads_unavailable = 0
        after = body(await shard.request(wallet, debit("1")))
    assert after["wallet"]["balance"] == "2.00"
