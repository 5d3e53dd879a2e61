"""A shard on an in-memory journal: every way in which a commit fails, and what waits meanwhile."""

import asyncio

import msgspec
import pytest

from actors.journal.ports import CommitRequest, JournalConflict
from actors.rpc.messages import Applied, Failure, FailureCode
from tests.support.faulty_journal import Fault, FaultyJournal
from tests.support.results import applied, body, failed
from tests.support.shards import limits, queued, shard_in_memory
from tests.support.write_side import (
    LIMITS,
    credit,
    debit,
)
from wallet.ids import WalletId


class CheckedHistory:
    """A database that must be checked before it is used, for as long as the test wants."""

    def __init__(self) -> None:
        self.known = asyncio.Event()
        self.known.set()

    async def require(self, session: int) -> bool:
        was_known = self.known.is_set()
        await self.known.wait()
        return not was_known


@pytest.mark.parametrize(("attempt", "applied"), [(1, "no"), (2, "unknown")])
async def test_an_unavailable_journal_is_reported_at_once(attempt: int, applied: str) -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        journal.commit_faults.append(Fault.UNAVAILABLE)
        refused = failed(await shard.request(wallet, debit("1"), attempt=attempt))
        assert (refused.code, refused.applied) == (FailureCode.UNAVAILABLE, applied)
        assert not shard.shard.journal_ready
        assert body(await shard.request(wallet, debit("1")))["wallet"]["version"] == 2
        assert shard.shard.journal_ready


async def test_what_queues_while_a_new_database_is_checked_is_applied() -> None:
    journal, history = FaultyJournal(), CheckedHistory()
    async with shard_in_memory(journal, history=history) as shard:
        wallet = await shard.create_wallet()
        journal.commit_faults.append(Fault.UNAVAILABLE)
        failed(await shard.request(wallet, debit("1")))
        history.known.clear()
        tasks = await queued(shard, (wallet, debit("1")))
        await asyncio.sleep(LIMITS.database_stall_timeout_s * 0.9)
        tasks += await queued(shard, (wallet, debit("2")), (wallet, debit("3")))
        assert not any(task.done() for task in tasks), "the database answers"
        history.known.set()
        for task in tasks:
            applied(await task)


async def test_a_check_that_takes_too_long_is_a_stall() -> None:
    journal, history = FaultyJournal(), CheckedHistory()
    async with shard_in_memory(journal, history=history) as shard:
        wallet = await shard.create_wallet()
        history.known.clear()
        (waiting,) = await queued(shard, (wallet, debit("1")))
        await asyncio.sleep(LIMITS.database_stall_timeout_s * 1.1)
        refused = failed(await shard.request(wallet, debit("1")))
        assert (refused.code, refused.applied) == (FailureCode.UNAVAILABLE, "no")
        history.known.set()
        applied(await waiting)


@pytest.mark.parametrize(
    "fault",
    [Fault.LOST_BEFORE_APPLYING, Fault.LOST_AFTER_APPLYING, Fault.LOST_AND_APPLIED_LATE],
)
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_commit_whose_answer_is_lost_is_applied_once_and_answered(
    fault: Fault, key: str | None
) -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        journal.commit_faults.append(fault)
        answer = applied(await shard.request(wallet, debit("7"), key=key))
        assert not answer.replayed
        assert msgspec.json.decode(answer.body)["wallet"]["balance"] == "7.00"
        assert shard.shard.counts["outcomes_unknown"] == 1
    assert journal.database.wallets[wallet].version == 2


@pytest.mark.parametrize(
    "fault",
    [Fault.LOST_BEFORE_APPLYING, Fault.LOST_AFTER_APPLYING, Fault.LOST_AND_APPLIED_LATE],
)
async def test_a_creation_whose_answer_is_lost_makes_one_wallet(fault: Fault) -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        journal.commit_faults.append(fault)
        wallet = await shard.create_wallet(reference_id="r")
    assert list(journal.database.wallets) == [wallet]
    assert journal.database.references == {"r": wallet}


async def test_conflicts_are_decided_again_on_what_another_owner_wrote() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as one, shard_in_memory(journal) as other:
        wallet = await one.create_wallet()
        await one.request(wallet, debit("10"))
        await other.request(wallet, credit("10"))
        refused = await one.request(wallet, credit("1"))  # Its cached balance is 10.00.
        assert body(refused)["code"] == "insufficient_funds"
        assert one.shard.counts["conflicts"] == 1
    assert journal.database.wallets[wallet].version == 3


async def test_conflicts_without_end_are_given_up_and_nothing_was_applied() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal, limits=limits(conflict_retries_max=3)) as shard:
        wallet = await shard.create_wallet()
        journal.commit_faults.extend([Fault.CONFLICT] * 4)
        refused = failed(await shard.request(wallet, debit("1")))
        assert (refused.code, refused.applied) == (FailureCode.UNAVAILABLE, "no")
        assert journal.database.wallets[wallet].version == 1
        assert body(await shard.request(wallet, debit("1")))["wallet"]["version"] == 2


class ContestedJournal(FaultyJournal):
    """Another owner always commits first for one wallet."""

    contested: WalletId | None = None

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        if self.contested in batch.wallets:
            await asyncio.sleep(0)
            raise JournalConflict("behind", wallet_ids=frozenset({self.contested}))
        await super().commit(batch, session=session)


async def test_a_wallet_that_conflicts_without_end_does_not_hold_up_the_others() -> None:
    journal = ContestedJournal()
    async with shard_in_memory(journal, limits=limits(conflict_retries_max=4)) as shard:
        wallets = [await shard.create_wallet() for _ in range(5)]
        journal.contested = wallets[2]
        loads = journal.loads
        replies = await asyncio.gather(
            *(shard.request(wallet, debit("1")) for wallet in wallets for _ in range(2))
        )
        stuck = [isinstance(reply, Failure) for reply in replies]
        assert stuck == [wallet == journal.contested for wallet in wallets for _ in range(2)]
        assert shard.shard.counts["conflicts"] == 5
        # Only the conflicting wallet is evicted and read again.
        assert journal.loads - loads <= 6
    assert [journal.database.wallets[wallet].version for wallet in wallets] == [3, 3, 1, 3, 3]


class OneAfterAnotherJournal(FaultyJournal):
    """Each commit conflicts on one more wallet that another owner has changed."""

    armed = False

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        if self.armed and len(batch.wallets) > 1:
            raise JournalConflict("behind", wallet_ids=frozenset({min(batch.wallets)}))
        await super().commit(batch, session=session)


async def test_a_long_chain_of_conflicts_has_an_end() -> None:
    journal = OneAfterAnotherJournal()
    async with shard_in_memory(journal) as shard:
        wallets = [await shard.create_wallet() for _ in range(150)]
        journal.armed = True
        replies = await asyncio.gather(*(shard.request(one, debit("1")) for one in wallets))
    assert all(isinstance(reply, Applied) for reply in replies)


async def test_conflicts_without_end_after_a_lost_answer_leave_it_open() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal, limits=limits(conflict_retries_max=3)) as shard:
        wallet = await shard.create_wallet()
        journal.commit_faults.extend([Fault.LOST_BEFORE_APPLYING, *[Fault.CONFLICT] * 4])
        assert failed(await shard.request(wallet, debit("1"))).applied == "unknown"
