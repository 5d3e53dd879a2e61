"""A page of transfers reads only its own rows, whatever the statistics say."""

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from projections import queries
from tests.support.domain import WALLET_ID

TRANSFERS = 20_000
LIMIT = 50

_FILL = f"""
INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
    created_at, updated_at)
SELECT CASE WHEN n = 0 THEN '{WALLET_ID}'::uuid ELSE gen_random_uuid() END, 'USD', 2, 0, 0, 0,
    1 + {TRANSFERS}, now(), now() FROM generate_series(0, 2000) n;
INSERT INTO transfers (wallet_id, id, type, status, amount, created_version, created_at)
SELECT '{WALLET_ID}', gen_random_uuid(), 'debit', 'pending', 1, n + 1, now()
FROM generate_series(1, {TRANSFERS}) n;
INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
    pending_credit, transfer_id)
SELECT wallet_id, created_version, 'transfer.pending', now(), 0, 0, 0, id FROM transfers;
INSERT INTO wallet_projections
SELECT id, NULL, currency, scale, 'active', 0, 0, 0, version, NULL, now(), now() FROM wallets;
INSERT INTO transfer_projections
SELECT wallet_id, id, type, status, amount, NULL, NULL, NULL, now(), NULL, created_version,
    created_version FROM transfers;
"""

LISTS = {
    "projected": queries._PROJECTED_TRANSFERS,
    "written": queries._WRITTEN_TRANSFERS,
}


@pytest.fixture
async def connection(database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(
        database, server_settings=queries.PLANNER_SETTINGS, statement_cache_size=0
    )
    try:
        yield connection
    finally:
        await connection.close()


async def rows_read(connection: asyncpg.Connection, sql: str) -> int:
    """Rows that the plan of ``sql`` reads from tables for the newest page."""
    await connection.execute(f"PREPARE page (uuid, bigint, text, text, bigint) AS {sql}")
    try:
        reported = await connection.fetchval(
            "EXPLAIN (ANALYZE, FORMAT JSON) "
            f"EXECUTE page ('{WALLET_ID}', {2**63 - 1}, NULL, NULL, {LIMIT + 1})"
        )
    finally:
        await connection.execute("DEALLOCATE page")
    return _scanned(json.loads(reported)[0]["Plan"])


def _scanned(node: dict[str, Any]) -> int:
    own = 0
    if "Scan" in node["Node Type"]:
        filtered = node.get("Rows Removed by Filter", 0)
        own = int((node["Actual Rows"] + filtered) * node["Actual Loops"])
    return own + sum(_scanned(child) for child in node.get("Plans", []))


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("table", ["as it was empty", "young", "analyzed"])
async def test_a_page_reads_little_more_than_its_rows(
    connection: asyncpg.Connection, table: str, mode: str
) -> None:
    await connection.execute(f"SET plan_cache_mode = {mode}")
    if table == "as it was empty":
        await connection.execute("ANALYZE")
    await connection.execute(_FILL)
    if table == "analyzed":
        await connection.execute("ANALYZE")

    read = {name: await rows_read(connection, sql) for name, sql in LISTS.items()}

    assert all(0 < count <= 3 * LIMIT for count in read.values()), read
