"""Lists at size: `python -m bench.lists`, on a Postgres server of its own.

How large the indexes of lists are, how long a page of each filter takes, and what the indexes add
to the projection of a transfer and to the creation of a wallet. No HTTP.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from statistics import median
from time import perf_counter
from typing import Final

import asyncpg

from migrations.migrate import upgrade
from migrations.online_indexes import ONLINE_INDEXES, build_missing
from projections.queries import PLANNER_SETTINGS, Queries
from projections.transfer_list import TransferFilter
from projections.wallet_list import WalletFilter
from tests.support.servers import postgres_server
from wallet.ids import WalletId

_LARGE: Final = "01900000-0000-7000-8000-000000000001"
"""A wallet with half of the transfers; the other wallets share the rest."""

_FILL_WALLETS: Final = f"""
INSERT INTO wallets (id, currency, scale, status, balance, pending_debit, pending_credit, version,
    created_at, updated_at, reference_id, metadata)
SELECT CASE n WHEN 1 THEN '{_LARGE}'::uuid ELSE gen_random_uuid() END,
    CASE WHEN n % 10000 = 0 THEN 'CHF' ELSE 'USD' END, 2,
    CASE WHEN n % 10000 = 0 THEN 'frozen' ELSE 'active' END, 0, 0, 0, 1000000000,
    '2026-01-01'::timestamptz + make_interval(secs => n), now(), 'customer-' || n,
    json_build_object('channel', CASE WHEN n % 3 = 0 THEN 'web' ELSE 'shop' END,
        'customer', n::text, 'region', (n % 1000)::text)
FROM generate_series(1, $1::integer) n
"""
_FILL_PROJECTIONS: Final = """
INSERT INTO wallet_projections (wallet_id, reference_id, currency, scale, status, balance,
    pending_debit, pending_credit, version, metadata, created_at, updated_at)
SELECT id, reference_id, currency, scale, status, 0, 0, 0, version, metadata, created_at, updated_at
FROM wallets
"""
# One transfer of 20,000 failed; every fourth has a reference.
_FILL_TRANSFERS: Final = f"""
INSERT INTO transfer_projections (wallet_id, transfer_id, type, status, amount, reference_id,
    created_at, settled_at, created_version, version)
SELECT CASE n % 2 WHEN 0 THEN '{_LARGE}'::uuid ELSE w.ids[1 + n % cardinality(w.ids)] END,
    gen_random_uuid(), CASE WHEN n % 3 = 0 THEN 'credit' ELSE 'debit' END,
    CASE WHEN n % 20000 = 0 THEN 'failed' ELSE 'completed' END, 1 + n % 100000,
    CASE WHEN n % 4 = 0 THEN 'order-' || n END, now(), now(), n + 1, n + 1
FROM generate_series($1::bigint, $2::bigint) n,
    (SELECT array_agg(id) AS ids FROM (SELECT id FROM wallets LIMIT 10000) s) w
"""
_SIZES: Final = """
SELECT relname, pg_relation_size(oid) FROM pg_class
WHERE relname = ANY ($1) OR relname LIKE '%_projections%' AND relkind IN ('r', 'i') ORDER BY 1
"""

_PIECE: Final = 500_000
_REPETITIONS: Final = 9

Read = Callable[[], Awaitable[object]]


async def _fill(pool: asyncpg.Pool, *, wallets: int, transfers: int) -> None:
    await pool.execute(_FILL_WALLETS, wallets)
    await pool.execute(_FILL_PROJECTIONS)
    for first in range(1, transfers + 1, _PIECE):
        await pool.execute(_FILL_TRANSFERS, first, min(first + _PIECE - 1, transfers))
    await pool.execute("VACUUM (ANALYZE) wallets, wallet_projections, transfer_projections")


async def _print_sizes(pool: asyncpg.Pool, *, wallets: int, transfers: int) -> None:
    names = [index.name for index in ONLINE_INDEXES]
    for name, size in await pool.fetch(_SIZES, names):
        rows = transfers if name.startswith("transfer") else wallets
        print(
            f"{name:<36} {size / 2**20:>9,.1f} MB  {size / rows * 1e6 / 2**20:>7,.1f} MB/10^6 rows"
        )


async def _timed(read: Read) -> tuple[float, float]:
    times = []
    for _ in range(_REPETITIONS):
        began = perf_counter()
        await read()
        times.append(perf_counter() - began)
    return median(times) * 1e3, max(times) * 1e3


async def _print_pages(queries: Queries) -> None:
    filters = {
        "all": TransferFilter(),
        "status failed": TransferFilter(status="failed"),
        "status pending (none)": TransferFilter(status="pending"),
        "type credit": TransferFilter(type="credit"),
        "one reference": TransferFilter(reference_id="order-400000"),
        "one amount": TransferFilter(amount_min="777.77", amount_max="777.77"),
        "few amounts": TransferFilter(amount_min="777", amount_max="778"),
        "range of amounts (none)": TransferFilter(amount_min="5000"),
        "metadata (none)": TransferFilter(metadata={"a": "b"}),
    }
    for name, wanted in filters.items():

        async def page(wanted: TransferFilter = wanted) -> object:
            return await queries.transfers(WalletId(_LARGE), wanted, limit=50, cursor=None)

        print(
            "transfers, {:<26} median {:>7.2f} ms, max {:>7.2f} ms".format(
                name, *await _timed(page)
            )
        )
    of_wallets = {
        "all": WalletFilter(),
        "currency CHF": WalletFilter(currency="CHF"),
        "frozen": WalletFilter(status="frozen"),
        "closed (none)": WalletFilter(status="closed"),
        "a prefix of 11": WalletFilter(reference_id_prefix="customer-7777"),
        "a prefix of all": WalletFilter(reference_id_prefix="customer-"),
        "metadata (none)": WalletFilter(metadata={"a": "b"}),
        "metadata of one": WalletFilter(metadata={"customer": "77777"}),
        "metadata of 0.1 %": WalletFilter(metadata={"region": "777"}),
        "metadata of a third": WalletFilter(metadata={"channel": "web"}),
        "one day": WalletFilter(created_before=datetime(2026, 1, 1, 12, tzinfo=UTC)),
    }
    for name, of_wallet in of_wallets.items():
        for strong in (False, True):

            async def wallets(wanted: WalletFilter = of_wallet, strong: bool = strong) -> object:
                return await queries.wallet_lists.page(wanted, limit=50, cursor=None, strong=strong)

            side = "strong" if strong else ""
            print(
                "wallets, {:<20} {:<7} median {:>7.2f} ms, max {:>7.2f} ms".format(
                    name, side, *await _timed(wallets)
                )
            )


_CREATE_TRANSFERS: Final = f"""
INSERT INTO transfer_projections (wallet_id, transfer_id, type, status, amount, reference_id,
    created_at, created_version, version)
SELECT '{_LARGE}', gen_random_uuid(), 'debit', 'pending', n, NULL, now(), $1 + n, $1 + n
FROM generate_series(1, 500) n
"""
_SETTLE_TRANSFERS: Final = f"""
UPDATE transfer_projections SET status = 'completed', settled_at = now()
WHERE wallet_id = '{_LARGE}' AND created_version > $1 AND created_version <= $1 + 500
"""
_CREATE_WALLETS: Final = """
INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
    created_at, updated_at)
SELECT gen_random_uuid(), 'USD', 2, 0, 0, 0, $1, now(), now() FROM generate_series(1, 500) n
"""


_PROJECT_WALLETS: Final = """
INSERT INTO wallet_projections (wallet_id, currency, scale, status, balance, pending_debit,
    pending_credit, version, metadata, created_at, updated_at)
SELECT gen_random_uuid(), 'USD', 2, 'active', 0, 0, 0, 1,
    json_build_object('channel', 'web', 'customer', ($1 + n)::text, 'region', (n % 1000)::text),
    now(), now()
FROM generate_series(1, 500) n
"""


async def _print_costs(pool: asyncpg.Pool, database: str) -> None:
    """In turn with and without the indexes of lists: µs of a row, of the faster half."""
    statements = {
        "insert a transfer": _CREATE_TRANSFERS,
        "settle a transfer": _SETTLE_TRANSFERS,
        "insert a wallet": _CREATE_WALLETS,
        "insert a wallet with 3 entries in the projection": _PROJECT_WALLETS,
    }
    found: dict[tuple[str, str], list[float]] = {}
    for look in range(6):
        how = ("without", "with")[look % 2]
        if how == "with":
            await build_missing(database)
        else:
            for index in ONLINE_INDEXES:
                await pool.execute(f"DROP INDEX {index.name}")
        await pool.execute("CHECKPOINT")
        for name, statement in statements.items():
            times = []
            for piece in range(40):
                began = perf_counter()
                await pool.execute(statement, 10**9 + look * 10**6 + piece * 500)
                times.append((perf_counter() - began) / 500 * 1e6)
            found.setdefault((name, how), []).append(median(sorted(times)[:20]))
    for (name, how), looks in found.items():
        print(f"{name}, {how} indexes of lists: {min(looks):.1f} to {max(looks):.1f} µs")


async def _measure(database: str, *, wallets: int, transfers: int) -> None:
    async with asyncpg.create_pool(
        database, min_size=1, max_size=2, server_settings=PLANNER_SETTINGS, command_timeout=1_200
    ) as pool:
        for index in ONLINE_INDEXES:
            await pool.execute(f"DROP INDEX {index.name}")
        began = perf_counter()
        await _fill(pool, wallets=wallets, transfers=transfers)
        filled = perf_counter()
        await build_missing(database)
        print(
            f"{wallets:,} wallets, {transfers:,} transfers, filled in {filled - began:.0f} s, "
            f"indexes built in {perf_counter() - filled:.0f} s"
        )
        await _print_sizes(pool, wallets=wallets, transfers=transfers)
        await _print_pages(Queries(pool, timeout_s=60.0))
        if transfers <= 10**6:
            await _print_costs(pool, database)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.lists", description=__doc__)
    parser.add_argument("--wallets", type=int, default=100_000)
    parser.add_argument("--transfers", type=int, default=1_000_000)
    options = parser.parse_args()
    with postgres_server(use_docker=False) as database:
        upgrade(database)
        asyncio.run(_measure(database, wallets=options.wallets, transfers=options.transfers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
