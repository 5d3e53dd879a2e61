"""A real shard on an in-memory journal, without servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec

from actors.journal.ports import Journal
from actors.rpc.messages import RequestResult
from actors.shard.batch_committer import EventRelay, History
from actors.shard.shard import Shard, ShardLimits
from tests.support.domain import NOW
from tests.support.write_side import LIMITS, DetachedRelay, ShardUnderTest
from wallet.commands import Command
from wallet.ids import WalletId


@asynccontextmanager
async def shard_in_memory(
    journal: Journal,
    *,
    limits: ShardLimits = LIMITS,
    relay: EventRelay | None = None,
    now: Callable[[], datetime] = lambda: NOW,
    history: History | None = None,
) -> AsyncIterator[ShardUnderTest]:
    """A running shard on ``journal``; without a ``relay`` its events stay in the outbox."""
    relay = relay or DetachedRelay()
    shard = Shard(journal=journal, relay=relay, limits=limits, now=now, history=history)
    running = asyncio.create_task(shard.run())
    try:
        yield ShardUnderTest(shard, relay)
    finally:
        running.cancel()
        # A shard that ended by itself has a bug: raise its exception in the test.
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        if not isinstance(ended, asyncio.CancelledError):
            assert ended is not None, "a shard runs until it is cancelled"
            raise ended


def limits(**fields: int) -> ShardLimits:
    """The usual limits, except ``fields``."""
    return msgspec.structs.replace(LIMITS, **fields)


async def queued(
    shard: ShardUnderTest, *asks: tuple[WalletId, Command]
) -> list[asyncio.Task[RequestResult]]:
    """Send requests; returns when all have reached the shard."""
    tasks = [asyncio.create_task(shard.request(wallet, command)) for wallet, command in asks]
    await asyncio.sleep(0)
    return tasks
