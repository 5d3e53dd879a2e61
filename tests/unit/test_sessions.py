"""Memory belongs to one session of the journal: with the connection everything goes."""

import pytest

from actors.ports import BatchWrite, Loaded, Missing
from tests.support.memory_journal import MemoryJournal
from tests.support.shards import shard_in_memory
from tests.support.write_side import NoRelay, body, credit, debit


class CountingRelay(NoRelay):
    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1


class BreakingJournal(MemoryJournal):
    """Loses its connection before the next load or commit, as the test says."""

    breaks_before = ""

    async def load(self, missing: Missing, *, session: int | None = None) -> Loaded:
        self._break("load")
        return await super().load(missing, session=session)

    async def commit(self, batch: BatchWrite, *, session: int | None = None) -> None:
        self._break("commit")
        await super().commit(batch, session=session)

    def _break(self, here: str) -> None:
        if self.breaks_before == here:
            self.breaks_before = ""
            self.lose_connection()


async def test_a_new_session_starts_with_nothing_remembered() -> None:
    journal, relay = MemoryJournal(), CountingRelay()
    async with shard_in_memory(journal, relay=relay) as shard:
        wallets = [await shard.create_wallet() for _ in range(2)]
        await shard.ask(wallets[0], debit("1"))
        loads, resets = journal.loads, relay.resets
        journal.lose_connection()
        await shard.ask(wallets[0], debit("1"))
        await shard.ask(wallets[1], debit("1"))
        assert (journal.loads, relay.resets) == (loads + 2, resets + 1)


@pytest.mark.parametrize("here", ["load", "commit"])
async def test_what_was_read_over_one_session_is_not_committed_over_the_next(here: str) -> None:
    journal = BreakingJournal()
    async with shard_in_memory(journal) as shard:
        wallet = await shard.create_wallet()
        await shard.ask(wallet, debit("1"))
        if here == "load":
            journal.lose_connection()  # So that there is something to load.
        journal.breaks_before = here
        assert body(await shard.ask(wallet, credit("1")))["wallet"]["balance"] == "0.00"
        assert journal.breaks_before == ""
        assert shard.shard.counts["conflicts"] == 0


async def test_a_lost_commit_makes_no_money() -> None:
    """Version 3 is lost with the old primary. The shard that wrote it remembers 1,500.00, the new
    primary has 600.00 and gets another version 3; both histories are at version 3 then."""
    journal = MemoryJournal()
    async with shard_in_memory(journal) as remembers:
        wallet = await remembers.create_wallet()
        await remembers.ask(wallet, debit("600"))
        database = journal.database
        kept = dict(database.wallets), dict(database.transfers), list(database.of_wallet[wallet])
        await remembers.ask(wallet, debit("900"))

        database.wallets, database.transfers, database.of_wallet[wallet] = kept
        journal.lose_connection()
        other_side = MemoryJournal(database=database)
        async with shard_in_memory(other_side) as writes:
            await writes.ask(wallet, debit("300"))
        after = body(await remembers.ask(wallet, credit("1")))
    assert after["wallet"]["balance"] == "899.00"
    transfers = sum(
        one.amount if one.type == "debit" else -one.amount for one in database.transfers.values()
    )
    assert database.wallets[wallet].balance == transfers == 89_900
