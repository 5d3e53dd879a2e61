"""Baseline (c), the limit: our own commit statement on one connection.

The service can't be faster than this with one shard: no HTTP, no actors, no decisions. The
batches are decided in advance; only the statement is timed, including the driver's encoding.
"""

import asyncio
import time
from datetime import UTC, datetime
from typing import Final

import asyncpg

from actors.journal.ports import LoadedState
from actors.journal.postgres import COMMIT_BATCH, CONNECTION_SETTINGS
from actors.journal.postgres_columns import commit_arguments
from actors.rpc.messages import Applied
from actors.shard.batch_decision import BatchDecider
from actors.shard.cache import WalletCache
from bench.baselines.baseline_result import Baseline, check
from bench.baselines.database import findings, new_wallet
from bench.generators.latency import Latencies
from serve_app.http.ids import new_id
from wallet.commands import CommandItem, CommandRequest, CreateTransfer
from wallet.ids import TransferId, WalletId
from wallet.state import Wallet

BATCHES: Final = (100, 500)


async def measure(url: str, *, batch: int, duration_s: float) -> Baseline:
    """Transfers/s of batches of ``batch`` transfers into one wallet.

    Raises:
        AuditFailed: not all of it is stored.
    """
    wallet_id = WalletId(await new_wallet(url))
    connection = await asyncpg.connect(url, server_settings=CONNECTION_SETTINGS)
    try:
        latencies, seconds, transfers = await _commit(connection, wallet_id, batch, duration_s)
    finally:
        await connection.close()
    check("limit", await findings(url, wallet_id, transfers))
    summary = latencies.summary()
    return Baseline(
        concurrency=1,
        requests_per_s=round(transfers / batch / seconds, 1),
        transfers_per_s=round(transfers / seconds, 1),
        p50_ms=round(summary.p50_ms, 3),
        p95_ms=round(summary.p95_ms, 3),
        p99_ms=round(summary.p99_ms, 3),
        max_ms=round(summary.max_ms, 3),
        variant=f"batches of {batch}",
    )


async def _commit(
    connection: asyncpg.Connection, wallet_id: WalletId, batch: int, duration_s: float
) -> tuple[Latencies, float, int]:
    """Latencies, seconds spent committing, and transfers."""
    statement = await connection.prepare(COMMIT_BATCH)
    deciding = _Deciding(wallet_id)
    latencies = Latencies()
    seconds, transfers = 0.0, 0
    while seconds < duration_s:
        arguments = deciding.next_batch(batch)
        started = time.perf_counter()
        await statement.fetch(*arguments)
        took = time.perf_counter() - started
        latencies.add(took)
        seconds += took
        transfers += batch
        await asyncio.sleep(0)
    return latencies, seconds, transfers


class _Deciding:
    """Decides batches as a shard does, one on top of the other."""

    def __init__(self, wallet_id: WalletId) -> None:
        now = datetime.now(UTC)
        self._wallet_id = wallet_id
        self._cache = WalletCache(wallets_max=10, transfers_max=10)
        self._cache.put(
            Wallet(id=wallet_id, currency="USD", scale=2, version=1, created_at=now, updated_at=now)
        )

    def next_batch(self, size: int) -> tuple[object, ...]:
        """The arguments of the commit of ``size`` debits of 1.00."""
        batch = BatchDecider(cache=self._cache, loaded=LoadedState(), now=datetime.now(UTC))
        for _ in range(size):
            assert isinstance(batch.decide(self._debit()), Applied)
        arguments = commit_arguments(batch.write)
        self._cache.put(batch.write.wallets[self._wallet_id])
        return arguments

    def _debit(self) -> CommandRequest:
        command = CreateTransfer(
            transfer_id=TransferId(new_id()),
            type="debit",
            status="completed",
            amount="1.00",
        )
        return CommandRequest(
            wallet_id=self._wallet_id,
            items=(CommandItem(command=command),),
            request_id="bench",
            timeout_s=1.0,
        )
