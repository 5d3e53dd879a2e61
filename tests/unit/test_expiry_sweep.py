"""A shard expires by itself what no command has met, and disturbs nobody."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from actors.journal.expiry_ports import ExpiringTransfer
from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import JournalUnavailable
from actors.rpc.messages import BatchCommitted, Failure, FailureCode
from actors.shard import expiry_sweep as module
from actors.shard.expiry_sweep import ExpirySweep, ShardUse
from tests.support.domain import WALLET_ID, transfer_id, wallet_id
from tests.support.expiring import expiring_shard, hold, loop_clock, transfer_in
from tests.support.faulty_journal import Fault, FaultyJournal
from tests.support.results import body, refused
from tests.support.waiting import stop
from tests.support.write_side import debit, settle
from wallet.commands import CommandRequest
from wallet.slots import SLOTS, SlotRange, slot_of
from wallet.state import FailureReason, TransferStatus


async def test_a_hold_expires_by_itself_at_its_time() -> None:
    database = MemoryDatabase()
    async with expiring_shard(database) as shard:
        wallet = await shard.create_wallet()
        await shard.request(wallet, debit("1"))
        made = body(await shard.request(wallet, hold(after_s=10)))
        await asyncio.sleep(9.9)
        assert transfer_in(database, wallet, made["id"]).status is TransferStatus.PENDING
        await asyncio.sleep(0.2)
        expired = transfer_in(database, wallet, made["id"])
    assert expired.failure_reason is FailureReason.EXPIRED
    assert expired.settled_at is not None
    assert 0 <= (expired.settled_at - expired.expiry.at).total_seconds() < 0.1  # type: ignore[union-attr]
    assert database.wallets[wallet].balance == 100
    assert not database.expiries


async def test_a_successor_expires_what_its_predecessor_held() -> None:
    database = MemoryDatabase()
    async with expiring_shard(database) as shard:
        wallet = await shard.create_wallet()
        made = body(await shard.request(wallet, hold("debit", after_s=10, action="complete")))
    await asyncio.sleep(100)
    async with expiring_shard(database):
        await asyncio.sleep(0.1)
    assert transfer_in(database, wallet, made["id"]).status is TransferStatus.COMPLETED


async def test_what_another_owner_adds_is_found_within_two_seconds_at_first() -> None:
    database = MemoryDatabase()
    async with expiring_shard(database), expiring_shard(database, sweeps=False) as former:
        wallet = await former.create_wallet()
        made = body(await former.request(wallet, hold("debit", after_s=5)))
        await asyncio.sleep(7)
        assert transfer_in(database, wallet, made["id"]).status is TransferStatus.FAILED


async def test_a_shard_leaves_alone_what_others_own() -> None:
    database = MemoryDatabase()
    async with expiring_shard(database, sweeps=False) as shard:
        wallet = await shard.create_wallet()
        await shard.request(wallet, hold("debit", after_s=1))
    slot = slot_of(wallet)
    others = [SlotRange(0, slot - 1), SlotRange(slot + 1, SLOTS - 1)]
    async with expiring_shard(database, slots=others):
        await asyncio.sleep(20)
    assert len(database.expiries) == 1
    async with expiring_shard(database, slots=[SlotRange(slot, slot)]):
        await asyncio.sleep(1)
    assert not database.expiries


async def test_a_shard_whose_clock_is_behind_expires_later_and_once() -> None:
    database = MemoryDatabase()
    async with (
        expiring_shard(database, ahead_s=-30) as behind,
        expiring_shard(database, sweeps=False) as ahead,
    ):
        wallet = await ahead.create_wallet()
        made = body(await ahead.request(wallet, hold("debit", after_s=10)))
        await asyncio.sleep(15)
        assert transfer_in(database, wallet, made["id"]).status is TransferStatus.PENDING
        # The other one decides by its own clock; the version decides between them.
        answer = refused(await ahead.request(wallet, settle(made["id"], "completed")))
        assert answer.refusal.code == "transfer_already_failed"
        late = refused(await behind.request(wallet, settle(made["id"], "completed")))
        assert late.refusal.code == "transfer_already_failed"
        await asyncio.sleep(40)
    assert len(database.events) == 3


@pytest.mark.parametrize("fault", list(Fault), ids=str)
async def test_a_fault_of_the_commit_delays_the_expiry_and_no_more(fault: Fault) -> None:
    database = MemoryDatabase()
    journal = FaultyJournal(database)
    async with expiring_shard(database, journal=journal) as shard:
        wallet = await shard.create_wallet()
        made = body(await shard.request(wallet, hold("debit", after_s=5)))
        await asyncio.sleep(4.9)
        journal.commit_faults.append(fault)
        await asyncio.sleep(30)
        expired = transfer_in(database, wallet, made["id"])
    assert expired.failure_reason is FailureReason.EXPIRED
    assert len(database.events) == 3


async def test_lost_commits_bring_the_hold_back_and_it_expires_again() -> None:
    database = MemoryDatabase()
    async with expiring_shard(database) as shard:
        wallet = await shard.create_wallet()
        await shard.request(wallet, hold("debit", after_s=5))
        before = database.snapshot()
        await asyncio.sleep(6)
        assert not database.expiries
    database.restore(before)
    assert len(database.expiries) == 1
    async with expiring_shard(database):
        await asyncio.sleep(1)
    assert not database.expiries


class FakeShard:
    """Answers what the sweep submits; other commands come in as the test says."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.others = 0
        self.own = 0
        self.backlog = 0
        self.failing: set[str] = set()
        self.took_s = 0.08

    async def submit(self, requests: list[CommandRequest]) -> list[Any]:
        self.sizes.append(sum(len(request.items) for request in requests))
        await asyncio.sleep(self.took_s)
        self.own += self.sizes[-1]
        down = Failure(code=FailureCode.UNAVAILABLE, detail="down", applied="no")
        return [
            down if request.wallet_id in self.failing else BatchCommitted(items=())
            for request in requests
        ]

    @property
    def use(self) -> ShardUse:
        return ShardUse(
            submit=self.submit,
            commands=lambda: self.own + self.others,
            queued=lambda: 0,
            backlog=lambda: self.backlog,
        )


class FakeTable:
    """Rows that stay until the test removes them."""

    def __init__(self, rows: Sequence[ExpiringTransfer]) -> None:
        self.rows = sorted(rows)
        self.down = False
        self.looks = 0

    async def due(self, **query: Any) -> Sequence[ExpiringTransfer]:
        self.looks += 1
        if self.down:
            raise JournalUnavailable("down")
        found = [
            one
            for one in self.rows
            if one.expires_at <= query["until"]
            and (query["after"] is None or one > query["after"])
            and one.wallet_id not in query["without"]
        ]
        return found[: query["limit"]]

    async def next_expiry(self, **_: Any) -> Any:
        return self.rows[0].expires_at if self.rows else None


def due_rows(count: int, wallets: int = 1) -> list[ExpiringTransfer]:
    at = loop_clock() - timedelta(seconds=1)
    return [
        ExpiringTransfer(at, wallet_id(1 + number % wallets), transfer_id(number))
        for number in range(count)
    ]


async def test_pieces_are_large_alone_and_small_beside_others() -> None:
    shard, table = FakeShard(), FakeTable(due_rows(1_500))
    sweep = ExpirySweep(table, shard.use, now=loop_clock)
    await sweep.settle_due()
    assert sum(shard.sizes) == sweep.expired == 1_500
    assert set(shard.sizes) == {module._PIECE, 1_000 % module._PIECE or module._PIECE, 100}

    shard.sizes.clear()
    shard.others = 1
    started = asyncio.get_running_loop().time()
    await sweep.settle_due()
    busy = [one for one in shard.sizes if one == module._PIECE_BESIDE_OTHERS]
    assert shard.sizes[0] == module._PIECE_BESIDE_OTHERS
    # Six sevenths of the time are theirs, until nothing has come from them for a while.
    turn_s = shard.took_s * (1 + module._PAUSE_BESIDE_OTHERS)
    assert turn_s == pytest.approx(7 * shard.took_s)
    assert len(busy) * turn_s == pytest.approx(module._OTHERS_FOR_S, abs=turn_s)
    assert asyncio.get_running_loop().time() - started > module._OTHERS_FOR_S


async def test_a_piece_that_met_an_outage_hardly_delays_the_next_one() -> None:
    shard, table = FakeShard(), FakeTable(due_rows(3 * module._PIECE_BESIDE_OTHERS))
    shard.others, shard.took_s = 1, 10.0
    sweep = ExpirySweep(table, shard.use, now=loop_clock)
    running = asyncio.create_task(sweep.settle_due())
    await asyncio.sleep(1)
    shard.took_s = 0.05
    await asyncio.sleep(9 + module._PAUSE_S_MAX + 2 * 7 * shard.took_s)
    assert running.done()
    assert sweep.expired == len(table.rows)


async def test_the_sweep_waits_while_the_stream_is_behind() -> None:
    shard, table = FakeShard(), FakeTable(due_rows(10))
    shard.backlog = 101
    sweep = ExpirySweep(table, shard.use, now=loop_clock, backlog_max=100)
    running = asyncio.create_task(sweep.settle_due())
    await asyncio.sleep(60)
    assert not shard.sizes
    shard.backlog = 100
    await running
    assert shard.sizes == [10]


async def test_a_wallet_that_fails_is_passed_over_for_a_while() -> None:
    shard, table = FakeShard(), FakeTable(due_rows(10, wallets=2))
    shard.failing.add(WALLET_ID)
    sweep = ExpirySweep(table, shard.use, now=loop_clock)
    await sweep.settle_due()
    assert (sweep.expired, sweep.failures) == (5, 1)
    table.rows = [one for one in table.rows if one.wallet_id == WALLET_ID]
    await sweep.settle_due()
    assert shard.sizes == [10]
    await asyncio.sleep(module._POSTPONED_S)
    shard.failing.clear()
    await sweep.settle_due()
    assert (shard.sizes, sweep.expired) == ([10, 5], 10)


async def test_a_sweep_whose_commands_all_fail_ends_and_begins_anew() -> None:
    shard, table = FakeShard(), FakeTable(due_rows(5_000, wallets=5_000))
    shard.failing = {one.wallet_id for one in table.rows}
    sweep = ExpirySweep(table, shard.use, now=loop_clock)
    await sweep.settle_due()
    assert shard.sizes == [module._PIECE]
    shard.failing.clear()
    await sweep.settle_due()
    assert sweep.expired == 5_000


async def test_rows_that_stay_are_looked_at_once_a_second() -> None:
    shard, table = FakeShard(), FakeTable(due_rows(3))
    running = asyncio.create_task(ExpirySweep(table, shard.use, now=loop_clock).run())
    await asyncio.sleep(30)
    await stop(running)
    assert 20 <= table.looks <= 31


async def test_an_idle_shard_hardly_looks() -> None:
    shard, table = FakeShard(), FakeTable([])
    running = asyncio.create_task(ExpirySweep(table, shard.use, now=loop_clock).run())
    await asyncio.sleep(61)
    first = table.looks
    await asyncio.sleep(600)
    await stop(running)
    assert 55 <= first <= 62
    assert 55 <= table.looks - first <= 61


@pytest.mark.parametrize("quiet_s", [0, 100], ids=["at_first", "later"])
async def test_a_table_that_does_not_answer_is_asked_again(quiet_s: float) -> None:
    shard, table = FakeShard(), FakeTable([])
    sweep = ExpirySweep(table, shard.use, now=loop_clock)
    running = asyncio.create_task(sweep.run())
    await asyncio.sleep(quiet_s)
    table.down, table.rows = True, due_rows(3)
    sweep.note(loop_clock())
    await asyncio.sleep(20)
    assert sweep.failures >= 15
    table.down = False
    await asyncio.sleep(2)
    await stop(running)
    assert sweep.expired >= 3
