"""A long statement: `python -m bench.statements`, on a Postgres server of its own.

One process serves the API's reads over HTTP. A client reads the statement of a wallet with a
million entries, as JSON and as CSV, and another one reads a wallet again and again beside it.
"""

import argparse
import asyncio
import multiprocessing
import sys
from statistics import quantiles
from time import perf_counter
from typing import Any, Final

import asyncpg
import httpx
import psutil
import uvicorn

from deploy.local.ports import free_port
from migrations.migrate import upgrade
from projections.queries import PLANNER_SETTINGS, Queries
from runtime.gc_tuning import freeze_startup_objects
from runtime.settings import Settings
from serve_app.app import create_application
from serve_app.dependencies import Dependencies
from tests.support.servers import postgres_server

_WALLET: Final = "01900000-0000-7000-8000-000000000001"
_CONNECTIONS: Final = 8

_FILL: Final = f"""
INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
    created_at, updated_at)
VALUES ('{_WALLET}', 'USD', 2, $1::bigint, 0, 0, $1::bigint + 1, now(), now());
"""
_FILL_EVENTS: Final = f"""
INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
    pending_credit, transfer_id, transfer_type, amount, reference_id)
SELECT '{_WALLET}', n, CASE n WHEN 1 THEN 'wallet.created' ELSE 'transfer.completed' END,
    '2026-01-01'::timestamptz + make_interval(secs => n), n - 1, 0, 0,
    CASE WHEN n > 1 THEN gen_random_uuid() END, CASE WHEN n > 1 THEN 'debit' END,
    CASE WHEN n > 1 THEN 1 END, CASE WHEN n > 1 THEN 'order-' || n END
FROM generate_series(1, $1::bigint + 1) n
"""
_PROJECT: Final = """
INSERT INTO wallet_projections (wallet_id, currency, scale, status, balance, pending_debit,
    pending_credit, version, created_at, updated_at)
SELECT id, currency, scale, status, balance, 0, 0, version, created_at, updated_at FROM wallets
"""


async def _serve(database: str, port: int) -> None:
    async with asyncpg.create_pool(
        database, min_size=1, max_size=_CONNECTIONS, server_settings=PLANNER_SETTINGS
    ) as pool:
        services: Any = Dependencies(
            settings=Settings(_env_file=None),
            dispatcher=None,  # type: ignore[arg-type]  # reads don't reach it
            queries=Queries(pool, timeout_s=5.0),
            probes={},
        )
        application: Any = create_application(services)
        freeze_startup_objects()
        options = uvicorn.Config(application, port=port, log_level="warning", lifespan="off")
        await uvicorn.Server(options).serve()


def _run_server(database: str, port: int) -> None:
    asyncio.run(_serve(database, port))


async def _fill(database: str, entries: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(_FILL.replace("$1", str(entries)))
        await connection.execute(_FILL_EVENTS, entries, timeout=600)
        await connection.execute(_PROJECT)
        await connection.execute("VACUUM (ANALYZE) wallet_events", timeout=600)
    finally:
        await connection.close()


class _Memory:
    """The largest resident memory of a process, sampled."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.before = self.largest = self._process.memory_info().rss

    async def sample(self) -> None:
        while True:
            self.largest = max(self.largest, self._process.memory_info().rss)
            await asyncio.sleep(0.01)


async def _statement(client: httpx.AsyncClient, accept: str) -> tuple[float, float, int, bytes]:
    """Seconds to the first byte of the body and to the last, bytes, and the end of the body."""
    began = perf_counter()
    first, size, end = 0.0, 0, b""
    path = f"/v1/wallet/{_WALLET}/statement"
    async with client.stream("GET", path, headers={"Accept": accept}) as answer:
        assert answer.status_code == 200
        async for chunk in answer.aiter_raw():
            first = first or perf_counter() - began
            size += len(chunk)
            end = (end + chunk)[-200:]
    return first, perf_counter() - began, size, end


async def _read_beside(client: httpx.AsyncClient, waits: list[float]) -> None:
    while True:
        began = perf_counter()
        answer = await client.get(f"/v1/wallet/{_WALLET}")
        assert answer.status_code == 200
        waits.append(perf_counter() - began)
        await asyncio.sleep(0.005)


async def _measure(url: str, pid: int, entries: int) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=600) as client:
        for _ in range(100):
            try:
                await client.get(f"/v1/wallet/{_WALLET}")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.1)
        recent = f"/v1/wallet/{_WALLET}/statement?from=2026-01-12T00:00:00Z"
        for accept in ("application/json", "text/csv"):
            await client.get(recent, headers={"Accept": accept})
        for accept in ("application/json", "text/csv"):
            alone: list[float] = []
            reading = asyncio.create_task(_read_beside(client, alone))
            await asyncio.sleep(2)
            beside: list[float] = []
            reading.cancel()
            memory = _Memory(pid)
            tasks = [
                asyncio.create_task(memory.sample()),
                asyncio.create_task(_read_beside(client, beside)),
            ]
            first, whole, size, end = await _statement(client, accept)
            for task in tasks:
                task.cancel()
            assert b"closing" in end, end
            grown = (memory.largest - memory.before) / 2**20
            print(
                f"{accept}: {entries:,} entries, {size / 2**20:,.0f} MB in {whole:.1f} s, first "
                f"byte after {first * 1e3:.1f} ms, memory {memory.before / 2**20:.0f} MB + "
                f"{grown:.1f} MB; reads of a wallet beside it: "
                f"p50 {_quantile(alone, 50):.1f} -> {_quantile(beside, 50):.1f} ms, "
                f"p99 {_quantile(alone, 99):.1f} -> {_quantile(beside, 99):.1f} ms"
            )


def _quantile(waits: list[float], percent: int) -> float:
    return quantiles(waits, n=100)[percent - 1] * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.statements", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    options = parser.parse_args()
    with postgres_server(use_docker=False) as database:
        upgrade(database)
        asyncio.run(_fill(database, options.entries))
        port = free_port()
        server = multiprocessing.get_context("spawn").Process(
            target=_run_server, args=(database, port), daemon=True
        )
        server.start()
        try:
            asyncio.run(_measure(f"http://127.0.0.1:{port}", server.pid or 0, options.entries))
        finally:
            server.terminate()
            server.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
