"""A page of a list reads only its own rows, by the index for its filter, whatever the statistics
say: of tables that were empty when they were analyzed, that never were, and that just were."""

import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import asyncpg
import pytest

from actors.journal.postgres_reader import NEWEST_FIRST, OLDEST_FIRST
from projections import queries, transfer_list, wallet_list
from projections.queries import Queries
from projections.statements import BOUNDS, EVENTS
from projections.wallet_history import AT_TIME, AT_VERSION
from tests.support.domain import WALLET_ID

TRANSFERS = 100_000
WALLETS = 20_000
LIMIT = 50
SCAN = 20_000

# One transfer of 400 failed, one wallet of 400 is frozen; the wallet has every transfer.
_FILL = f"""
INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
    created_at, updated_at, reference_id, status, metadata)
SELECT CASE WHEN n = 0 THEN '{WALLET_ID}'::uuid ELSE gen_random_uuid() END,
    CASE WHEN n % 400 = 0 THEN 'CHF' ELSE 'USD' END, 2, 0, 0, 0, 1 + {TRANSFERS},
    now() - make_interval(secs => n), now(),
    CASE WHEN n % 400 = 0 THEN 'rare-' || n ELSE 'shop-' || n END,
    CASE WHEN n % 400 = 0 THEN 'frozen' ELSE 'active' END,
    json_build_object('shop', CASE WHEN n % 400 = 0 THEN 'rare' ELSE 'often' END, 'n', n::text)
FROM generate_series(0, {WALLETS}) n;
INSERT INTO transfers (wallet_id, id, type, status, amount, created_version, created_at,
    reference_id)
SELECT '{WALLET_ID}', gen_random_uuid(), CASE WHEN n % 2 = 0 THEN 'debit' ELSE 'credit' END,
    CASE WHEN n % 400 = 0 THEN 'failed' WHEN n % 401 = 0 THEN 'pending' ELSE 'completed' END,
    CASE WHEN n % 400 = 0 THEN 1 ELSE 2 END, n + 1, now(),
    CASE WHEN n % 400 = 0 THEN 'rare' ELSE 'often' END
FROM generate_series(1, {TRANSFERS}) n;
INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
    pending_credit, transfer_id)
SELECT wallet_id, created_version, 'transfer.pending',
    '2026-01-01'::timestamptz + make_interval(secs => created_version), 0, 0, 0, id FROM transfers;
INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
    pending_credit) VALUES ('{WALLET_ID}', 1, 'wallet.created', '2026-01-01', 0, 0, 0);
INSERT INTO wallet_projections
SELECT id, reference_id, currency, scale, status, 0, 0, 0, version, metadata, created_at, now()
FROM wallets;
INSERT INTO transfer_projections
SELECT wallet_id, id, type, status, amount, reference_id, NULL, NULL, now(), NULL, created_version,
    created_version FROM transfers;
UPDATE transfer_projections SET refunds = '{WALLET_ID}' WHERE created_version % 400 = 7;
"""


class Page(NamedTuple):
    """A statement with its parameters, and what its plan may read."""

    sql: str
    types: str
    arguments: tuple[object, ...]
    index_name: str
    """Name of the index that is scanned."""
    rows_max: int = 3 * LIMIT
    """Rows that are read, of all tables."""


_READS: Any = Queries(None, timeout_s=1.0)  # type: ignore[arg-type]  # only for its statements
_NEWEST = 2**63 - 1
_SCANNED_TYPES = "uuid, bigint, bigint, bigint, text, text, text, text, text, uuid"


def transfers(scan: str, index: str, **filters: str) -> Page:
    return _transfers(_READS.transfer_lists.projected[scan].page, index, filters)


def _transfers(sql: str, index: str, filters: dict[str, str], scan: int = SCAN) -> Page:
    names = ("status", "type", "reference_id", "amount_min", "amount_max", "refunds")
    values = tuple(filters.get(name) for name in names)
    arguments = (WALLET_ID, _NEWEST, 0, scan, *values, None, None, None, LIMIT + 1)
    return Page(sql, transfer_list.PAGE_TYPES, arguments, index)


def wallets(sql: str, index: str, **filters: str) -> Page:
    values = tuple(filters.get(name) for name in ("currency", "status", "prefix", "metadata"))
    newest = ("9999-12-31", "ffffffff-ffff-ffff-ffff-ffffffffffff")
    arguments = (*newest, None, None, SCAN, *values, LIMIT + 1)
    return Page(sql, wallet_list.PAGE_TYPES, arguments, index)


_LISTS = _READS.wallet_lists
_BY_STATUS = "transfer_projections_by_status"

PAGES = {
    "transfers": transfers("all", "transfer_projections_in_order"),
    "transfers, written": _transfers(_READS.transfer_lists.written, "wallet_events_pkey", {}),
    "failed": transfers("status", _BY_STATUS, status="failed"),
    "pending": transfers("status", _BY_STATUS, status="pending"),
    "completed credits": transfers("status", _BY_STATUS, status="completed", type="credit"),
    "debits": transfers("status", _BY_STATUS, type="debit"),
    "reference": transfers("reference", "transfer_projections_by_reference", reference_id="rare"),
    "refunds": transfers("refunds", "transfer_projections_by_refunds", refunds=WALLET_ID),
    "no refunds": transfers(
        "refunds",
        "transfer_projections_by_refunds",
        refunds="01900000-0000-7000-8000-0000000000ff",
    ),
    "amount": transfers(
        "amount", "transfer_projections_by_amount", amount_min="0.01", amount_max="0.01"
    ),
    # All of them are read and sorted: 250 here, at most SORTED_MAX.
    "amounts": transfers(
        "amounts", "transfer_projections_by_amount", amount_min="0.005", amount_max="0.011"
    )._replace(rows_max=300),
    "no amounts": transfers("amounts", "transfer_projections_by_amount", amount_min="5000"),
    "transfers without amounts": Page(
        _READS.transfer_lists.count_amounts,
        "uuid, text, text, bigint",
        (WALLET_ID, "5000", None, LIMIT),
        "transfer_projections_by_amount",
    ),
    "transfers with amounts": Page(
        _READS.transfer_lists.count_amounts,
        "uuid, text, text, bigint",
        (WALLET_ID, "0.02", None, LIMIT),
        "transfer_projections_by_amount",
    ),
    "where a scan ended": Page(
        _READS.transfer_lists.projected["status"].scanned,
        _SCANNED_TYPES,
        (WALLET_ID, _NEWEST, 0, LIMIT, "failed", None, None, None, None, None),
        _BY_STATUS,
    ),
    "wallets": wallets(_LISTS.projected["age"].page, "wallet_projections_by_age"),
    "wallets, written": wallets(_LISTS.written.page, "wallets_by_age"),
    "currency": wallets(
        _LISTS.projected["currency"].page, "wallet_projections_by_currency", currency="CHF"
    ),
    "frozen": wallets(
        _LISTS.projected["status"].page, "wallet_projections_by_status", status="frozen"
    ),
    "prefix": wallets(_LISTS.prefixed, "wallet_projections_by_prefix", prefix="rare-"),
    "wallets with a prefix": Page(
        _LISTS.count_prefixed, "text, bigint", ("shop-", LIMIT), "wallet_projections_by_prefix"
    ),
    "metadata": wallets(
        _LISTS.with_metadata, "wallet_projections_by_metadata", metadata='{"shop": "rare"}'
    ),
    "metadata of one": wallets(
        _LISTS.with_metadata, "wallet_projections_by_metadata", metadata='{"n": "77"}'
    ),
    "wallets with metadata": Page(
        _LISTS.count_metadata, "text", ('{"shop": "rare"}',), "wallet_projections_by_metadata"
    ),
    "statement": Page(
        BOUNDS,
        "uuid, timestamptz, timestamptz",
        (WALLET_ID, "2026-01-01 01:00+00", "2026-01-01 02:00+00"),
        "wallet_events_pkey",
    ),
    "events of a statement": Page(
        EVENTS, "uuid, bigint, bigint, bigint", (WALLET_ID, 77, 10_000, LIMIT), "wallet_events_pkey"
    ),
    "journal": Page(
        OLDEST_FIRST,
        "uuid, bigint, bigint, bigint",
        (WALLET_ID, 9, 999, LIMIT),
        "wallet_events_pkey",
    ),
    "journal, newest first": Page(
        NEWEST_FIRST,
        "uuid, bigint, bigint, bigint",
        (WALLET_ID, 9, 999, LIMIT),
        "wallet_events_pkey",
    ),
    "version": Page(AT_VERSION, "uuid, bigint", (WALLET_ID, 77), "wallet_events_pkey"),
    "time": Page(
        AT_TIME, "uuid, timestamptz", (WALLET_ID, "2026-01-01 01:00+00"), "wallet_events_pkey"
    ),
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


async def plan_of(connection: asyncpg.Connection, page: Page) -> Any:
    values = ", ".join("NULL" if one is None else f"'{one}'" for one in page.arguments)
    await connection.execute(f"PREPARE page ({page.types}) AS {page.sql}")
    try:
        reported = await connection.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE page ({values})"
        )
    finally:
        await connection.execute("DEALLOCATE page")
    return json.loads(reported)[0]["Plan"]


def scanned(node: dict[str, Any]) -> int:
    """Rows that a plan reads from tables."""
    own = 0
    if "Relation Name" in node or "Index Name" in node:
        filtered = node.get("Rows Removed by Filter", 0)
        own = int((node["Actual Rows"] + filtered) * node["Actual Loops"])
    return own + sum(scanned(child) for child in node.get("Plans", []))


def indexes(node: dict[str, Any]) -> set[str]:
    """Names of the indexes that a plan reads; a table that is read without one, as its name."""
    own = {node.get("Index Name", node.get("Relation Name", ""))}
    return own.union(*(indexes(child) for child in node.get("Plans", []))) - {""}


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

    wrong = {}
    for name, page in PAGES.items():
        plan = await plan_of(connection, page)
        read, used = scanned(plan), indexes(plan)
        if not 0 < read <= page.rows_max or page.index_name not in used:
            wrong[name] = read, used
    assert wrong == {}
