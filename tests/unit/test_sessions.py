"""Cached state belongs to one journal session and is dropped with the connection."""

import asyncio
from collections.abc import Iterable

import pytest

from actors.journal.ports import (
    CommitRequest,
    EventRange,
    LoadedState,
    OutcomeUnknown,
    ReadSet,
)
from actors.rpc.messages import FailureCode
from tests.support.faulty_journal import Fault, FaultyJournal
from tests.support.ids import new_id
from tests.support.results import body, failed
from tests.support.shards import shard_in_memory
from tests.support.write_side import DetachedRelay, credit, debit, settle
from wallet.ids import WalletId


class CountingRelay(DetachedRelay):
    def __init__(self) -> None:
        self.resets = 0
        self.unread: list[object] = []

    def add_from_journal(self, event_ranges: Iterable[object]) -> None:
        self.unread += event_ranges

    def reset(self) -> None:
        self.resets += 1


class BreakingJournal(FaultyJournal):
    """Loses its connection before the next load or commit, if the test requests it."""

    breaks_before = ""

    async def load(self, missing: ReadSet, *, session: int | None = None) -> LoadedState:
        self._break("load")
        return await super().load(missing, session=session)

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        self._break("commit")
        await super().commit(batch, session=session)

    def _break(self, here: str) -> None:
        if self.breaks_before == here:
            self.breaks_before = ""
            self.lose_connection()


async def test_a_new_session_starts_with_nothing_remembered() -> None:
    journal, relay = FaultyJournal(), CountingRelay()
    async with shard_in_memory(journal, relay=relay) as shard:
        wallets = [await shard.create_wallet() for _ in range(2)]
        await shard.request(wallets[0], debit("1"))
        loads, resets = journal.loads, relay.resets
        journal.lose_connection()
        await shard.request(wallets[0], debit("1"))
        await shard.request(wallets[1], debit("1"))
        assert (journal.loads, relay.resets) == (loads + 2, resets + 1)


async def test_an_idle_shard_forgets_what_belongs_to_a_former_session() -> None:
    journal, relay = FaultyJournal(), CountingRelay()
    async with shard_in_memory(journal, relay=relay) as shard:
        await shard.create_wallet()
        resets = relay.resets
        await shard.shard.enter_session()
        assert (relay.resets, shard.shard.wallets_active) == (resets, 1)
        journal.lose_connection()
        await shard.shard.enter_session()
        assert (relay.resets, shard.shard.wallets_active) == (resets + 1, 0)


@pytest.mark.parametrize("here", ["load", "commit"])
async def test_what_was_read_over_one_session_is_not_committed_over_the_next(here: str) -> None:
    journal = BreakingJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        await shard.request(wallet, debit("1"))
        if here == "load":
            journal.lose_connection()  # So that there is something to load.
        journal.breaks_before = here
        assert body(await shard.request(wallet, credit("1")))["wallet"]["balance"] == "0.00"
        assert journal.breaks_before == ""
        assert shard.shard.counts["conflicts"] == 0


async def test_a_lost_commit_makes_no_money() -> None:
    """Version 3 is lost with the old primary. The shard that wrote it caches 1,500.00, the new
    primary has 600.00 and gets another version 3; both histories are at version 3 then."""
    journal = FaultyJournal()
    async with shard_in_memory(journal) as remembers:
        wallet = await remembers.create_wallet()
        await remembers.request(wallet, debit("600"))
        database = journal.database
        kept = (
            dict(database.wallets),
            dict(database.transfers),
            list(database.events_by_wallet[wallet]),
            list(database.outbox[wallet]),
        )
        await remembers.request(wallet, debit("900"))

        database.wallets, database.transfers = kept[0], kept[1]
        database.events_by_wallet[wallet], database.outbox[wallet] = kept[2], kept[3]
        journal.lose_connection()
        other_side = FaultyJournal(database)
        async with shard_in_memory(other_side) as writes:
            await writes.request(wallet, debit("300"))
        after = body(await remembers.request(wallet, credit("1")))
    assert after["wallet"]["balance"] == "899.00"
    transfers = sum(
        one.amount if one.type == "debit" else -one.amount for one in database.transfers.values()
    )
    assert database.wallets[wallet].balance == transfers == 89_900


async def test_a_cache_of_a_lost_history_is_a_conflict_in_an_open_session() -> None:
    """A proxy hides the failover. Both histories are at version 2, and only the new one has the
    hold that is settled."""
    journal = FaultyJournal()
    async with shard_in_memory(journal) as remembers:
        wallet = await remembers.create_wallet()
        standby = journal.database.snapshot()
        await remembers.request(wallet, debit("900"))
        journal.database.restore(standby)

        async with shard_in_memory(FaultyJournal(journal.database)) as writes:
            pending = body(await writes.request(wallet, debit("5", status="pending")))
        after = body(await remembers.request(wallet, settle(pending["id"], "completed")))
        assert remembers.shard.counts["conflicts"] == 1
    assert (after["status"], after["wallet"]["balance"]) == ("completed", "5.00")


async def test_what_others_left_is_published_once_a_commit_says_that_it_stays() -> None:
    """It may be our own commit with a lost response, visible here but not replicated."""
    journal, relay = FaultyJournal(), CountingRelay()
    async with shard_in_memory(journal) as other:
        wallet = await other.create_wallet()
    async with shard_in_memory(journal, relay=relay) as shard:
        journal.commit_faults.append(Fault.UNAVAILABLE)
        failed(await shard.request(wallet, debit("1")))
        assert relay.unread == []
        commits = journal.commits
        await shard.request(wallet, settle(new_id(), "completed"))  # It only reads and is refused.
        assert journal.commits == commits + 1
        assert relay.unread == [EventRange(wallet, 1, 1)]


async def test_a_cached_wallet_is_not_written_once_it_is_in_quarantine() -> None:
    journal = FaultyJournal()
    async with shard_in_memory(journal) as shard:
        forked, other = [await shard.create_wallet() for _ in range(2)]
        journal.database.forked.add(forked)
        refused, done = await asyncio.gather(
            shard.request(forked, debit("1")), shard.request(other, debit("1"))
        )
        failure = failed(refused)
        assert (failure.code, failure.applied) == (FailureCode.HISTORY_FORKED, "no")
        assert body(done)["wallet"]["balance"] == "1.00"
        assert journal.database.wallets[forked].balance == 0


class QuarantiningJournal(FaultyJournal):
    """Puts a wallet in quarantine once a commit's response is lost."""

    forks: WalletId | None = None

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        try:
            await super().commit(batch, session=session)
        except OutcomeUnknown:
            assert self.forks is not None
            self.database.forked.add(self.forks)
            raise


@pytest.mark.parametrize("fault", [Fault.LOST_BEFORE_APPLYING, Fault.LOST_AFTER_APPLYING])
async def test_a_write_in_doubt_stays_in_doubt_in_quarantine(fault: Fault) -> None:
    journal = QuarantiningJournal()
    async with shard_in_memory(journal) as shard:
        journal.forks = await shard.create_wallet()
        journal.commit_faults.append(fault)
        failure = failed(await shard.request(journal.forks, debit("1")))
        assert (failure.code, failure.applied) == (FailureCode.HISTORY_FORKED, "unknown")
