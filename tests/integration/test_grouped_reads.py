"""Reads that share a query get what a query of their own would get, by the same indexes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from projections import queries
from projections.grouped_reads import statement_for_many
from tests.support.ids import new_id
from tests.support.plans import plans_of

_FILL = """
INSERT INTO wallets (id, reference_id, currency, scale, balance, pending_debit, pending_credit,
    version, created_at, updated_at)
SELECT md5(n::text)::uuid, 'r' || n, 'USD', 2, n, 0, 0, 2, now(), now()
FROM generate_series(1, 3000) n;
INSERT INTO wallet_references (reference_id, wallet_id) SELECT reference_id, id FROM wallets;
INSERT INTO transfers (wallet_id, id, type, status, amount, created_version, created_at)
SELECT id, md5(id::text)::uuid, 'debit', 'pending', 1, 2, now() FROM wallets;
INSERT INTO wallet_projections (wallet_id, reference_id, currency, scale, status, balance,
    pending_debit, pending_credit, version, created_at, updated_at)
SELECT id, reference_id, currency, scale, 'active', balance, 0, 0, 2, now(), now() FROM wallets;
INSERT INTO transfer_projections (wallet_id, transfer_id, type, status, amount, created_at,
    created_version, version)
SELECT wallet_id, id, type, status, amount, now(), 2, 2 FROM transfers;
INSERT INTO forked_wallets (wallet_id, common_version, common_hash, found_at)
SELECT id, 1, '\\x00'::bytea, now() FROM wallets LIMIT 7;
"""
_ID, _REFERENCE = "md5($1::text)::uuid::text", "'r' || $1"
_TRANSFER = "md5(md5($1::text)::uuid::text)::uuid::text"

STATEMENTS = {
    "projected wallet": (queries._PROJECTED_WALLET, ["uuid"], [_ID]),
    "written wallet": (queries._WRITTEN_WALLET, ["uuid"], [_ID]),
    "projected by reference": (queries._PROJECTED_BY_REFERENCE, ["text"], [_REFERENCE]),
    "written by reference": (queries._WRITTEN_BY_REFERENCE, ["text"], [_REFERENCE]),
    "projected transfer": (queries._PROJECTED_TRANSFER, ["uuid", "uuid"], [_ID, _TRANSFER]),
    "written transfer": (queries._WRITTEN_TRANSFER, ["uuid", "uuid"], [_ID, _TRANSFER]),
    "forked": (queries._IS_FORKED, ["uuid"], [_ID]),
}


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database, server_settings=queries.PLANNER_SETTINGS)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("table", ["as it was empty", "young", "analyzed"])
async def test_a_query_for_many_keys_reads_an_index_for_each(
    connection: asyncpg.Connection, table: str, mode: str
) -> None:
    await connection.execute(f"SET plan_cache_mode = {mode}")
    if table == "as it was empty":
        await connection.execute("ANALYZE")
    await connection.execute(_FILL)
    if table == "analyzed":
        await connection.execute("ANALYZE")

    for name, (sql, types, keys) in STATEMENTS.items():
        sample = [await _keys(connection, keys, n) for n in range(1, 300)]

        async def read(
            sql: str = sql, types: list[str] = types, sample: list[list[str]] = sample
        ) -> None:
            columns = map(list, zip(*sample, strict=True))
            await connection.fetch(statement_for_many(sql, types), *columns)

        plans = await plans_of(connection, read)
        assert plans, name
        assert all("Index" in plan and "Seq Scan" not in plan for plan in plans), (name, plans)
        assert not any("Hash" in plan or "Merge" in plan for plan in plans), (name, plans)


async def test_each_of_many_gets_its_own_row(connection: asyncpg.Connection) -> None:
    await connection.execute(_FILL)
    for name, (sql, types, keys) in STATEMENTS.items():
        sample = [await _keys(connection, keys, n) for n in (9, 1, 500, 2_999)]
        sample.insert(2, [new_id() for _ in keys])  # nobody has it
        alone: list[Any] = [await connection.fetchrow(sql, *one) for one in sample]
        columns = map(list, zip(*sample, strict=True))
        rows = await connection.fetch(statement_for_many(sql, types), *columns)
        together = {row["number"]: tuple(row)[1:] for row in rows}
        expected = {n: tuple(row) for n, row in enumerate(alone, 1) if row is not None}
        assert together == expected, name


async def _keys(connection: asyncpg.Connection, keys: list[str], number: int) -> list[str]:
    row = await connection.fetchrow(f"SELECT {', '.join(keys)}", str(number))
    assert row is not None
    return list(row)


async def test_many_reads_at_once_take_few_queries(database: str) -> None:
    asked: list[str] = []

    class CountingPool:
        def __init__(self, pool: asyncpg.Pool) -> None:
            self._pool = pool

        async def fetchrow(self, sql: str, *arguments: object) -> Any:
            asked.append(sql)
            return await self._pool.fetchrow(sql, *arguments)

        async def fetch(self, sql: str, *arguments: object) -> Any:
            asked.append(sql)
            return await self._pool.fetch(sql, *arguments)

    async with asyncpg.create_pool(database, min_size=1, max_size=4) as pool:
        await pool.execute(_FILL)
        ids = [row[0] for row in await pool.fetch("SELECT id::text FROM wallets ORDER BY balance")]
        reads = queries.Queries(CountingPool(pool), timeout_s=5.0)  # type: ignore[arg-type]  # has what is called of it
        found = await asyncio.gather(*(reads.wallet(one) for one in ids[:500]))
    assert [one.id for one in found if one is not None] == ids[:500]
    assert len(asked) <= 4
