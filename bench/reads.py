"""What gathering reads brings: `python -m bench.reads`, on a Postgres server of its own.

The reads of one ingress process, with the connections that a replica has: each as a query of its
own, and gathered (`projections.grouped_reads`), in turn. No HTTP, no projection at work.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from random import Random
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Final

import asyncpg
import msgspec

from migrations.migrate import upgrade
from projections import queries
from projections.queries import PLANNER_SETTINGS, Queries
from tests.support.servers import postgres_server
from wallet.ids import WalletId

_CONNECTIONS: Final = 8
_LOOKS: Final = 3
_FILL: Final = """
INSERT INTO wallet_projections (wallet_id, currency, scale, status, balance, pending_debit,
    pending_credit, version, created_at, updated_at)
SELECT gen_random_uuid(), 'USD', 2, 'active', n, 0, 0, 2, now(), now()
FROM generate_series(1, $1::integer) n
"""


class _Look(msgspec.Struct, frozen=True):
    """One load of one way to read."""

    reads_per_s: float
    cpu_us: float
    """Of this process, for each read."""
    p99_ms: float


Read = Callable[[str], Awaitable[object]]


async def _load(read: Read, ids: list[str], *, clients: int, seconds: float) -> _Look:
    waits: list[float] = []

    async def client(number: int) -> None:
        random = Random(number)
        while (began := perf_counter()) < ends:
            await read(random.choice(ids))
            waits.append(perf_counter() - began)

    began, cpu_began = perf_counter(), process_time()
    ends = began + seconds
    await asyncio.gather(*map(client, range(clients)))
    took_s, cpu_s = perf_counter() - began, process_time() - cpu_began
    p99_s = quantiles(waits, n=100)[98]
    return _Look(len(waits) / took_s, cpu_s / len(waits) * 1e6, p99_s * 1e3)


def _middle(looks: list[_Look]) -> _Look:
    fields = msgspec.structs.fields(_Look)
    return _Look(*(median(getattr(look, field.name) for look in looks) for field in fields))


async def _measure(database: str, *, wallets: int, seconds: float) -> None:
    async with asyncpg.create_pool(
        database, min_size=1, max_size=_CONNECTIONS, server_settings=PLANNER_SETTINGS
    ) as pool:
        await pool.execute(_FILL, wallets)
        await pool.execute("VACUUM (ANALYZE) wallet_projections")
        rows = await pool.fetch("SELECT wallet_id::text FROM wallet_projections")
        ids = [row[0] for row in rows]
        reads = Queries(pool, timeout_s=30.0)

        async def alone(wallet_id: str) -> object:
            row = await pool.fetchrow(queries._PROJECTED_WALLET, wallet_id)
            assert row is not None
            return queries._wallet_view(row)

        async def gathered(wallet_id: str) -> object:
            return await reads.wallet(WalletId(wallet_id))

        print(f"{wallets:,} wallets, {_CONNECTIONS} connections, the median of {_LOOKS} looks")
        for clients in (1, 8, 64, 256):
            looks: dict[str, list[_Look]] = {"alone": [], "gathered": []}
            for _ in range(_LOOKS):
                for name, read in (("alone", alone), ("gathered", gathered)):
                    look = await _load(read, ids, clients=clients, seconds=seconds)
                    looks[name].append(look)
            for name, seen in looks.items():
                look = _middle(seen)
                print(
                    f"{clients:>4} clients, {name:<8}  {look.reads_per_s:>7,.0f} reads/s  "
                    f"{look.cpu_us:>5.0f} µs of CPU each  p99 {look.p99_ms:>6.1f} ms"
                )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reads", description=__doc__)
    parser.add_argument("--wallets", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each look")
    options = parser.parse_args()
    with postgres_server(use_docker=False) as database:
        upgrade(database)
        asyncio.run(_measure(database, wallets=options.wallets, seconds=options.seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
