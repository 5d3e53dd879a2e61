"""A shard that expires holds, on an in-memory journal and a clock that goes with the event loop."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec

from actors.journal.memory import MemoryExpiries, MemoryJournal
from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import Journal
from actors.shard.shard import Shard, ShardLimits
from tests.support.domain import NOW
from tests.support.waiting import stop
from tests.support.write_side import LIMITS, DetachedRelay, ShardUnderTest, credit, debit
from wallet.commands import CreateTransfer, RequestedExpiry
from wallet.ids import TransferId, WalletId
from wallet.slots import ALL_SLOTS, SlotRange
from wallet.state import Transfer


def loop_clock(ahead_s: float = 0.0) -> datetime:
    """The wall clock of a test: `NOW` and the event loop's time."""
    return NOW + timedelta(seconds=asyncio.get_running_loop().time() + ahead_s)


@asynccontextmanager
async def expiring_shard(
    database: MemoryDatabase,
    *,
    journal: Journal | None = None,
    sweeps: bool = True,
    ahead_s: float = 0.0,
    slots: Sequence[SlotRange] = ALL_SLOTS,
    limits: ShardLimits = LIMITS,
) -> AsyncIterator[ShardUnderTest]:
    """``ahead_s``: how far the shard's clock is ahead. ``sweeps``: it expires by itself."""
    relay = DetachedRelay()
    shard = Shard(
        journal=journal or MemoryJournal(database),
        relay=relay,
        limits=limits,
        now=lambda: loop_clock(ahead_s),
        expiries=MemoryExpiries(database),
        slots=slots,
    )
    tasks = [asyncio.create_task(shard.run())]
    if sweeps:
        assert shard.expiry is not None
        tasks.append(asyncio.create_task(shard.expiry.run()))
    try:
        yield ShardUnderTest(shard, relay)
    finally:
        for task in tasks:
            await stop(task)


def hold(
    kind: str = "credit", amount: str = "1", *, after_s: int = 10, action: str = "fail"
) -> CreateTransfer:
    """A pending transfer that expires."""
    make = credit if kind == "credit" else debit
    expiry = RequestedExpiry(after_s=after_s, action=_action(action))
    return msgspec.structs.replace(make(amount, status="pending"), expiry=expiry)


def _action(name: str) -> Any:
    return name


def transfer_in(database: MemoryDatabase, wallet: WalletId, transfer_id: str) -> Transfer:
    return database.transfers[wallet, TransferId(transfer_id)]
