"""Indexes that are built while the service runs: `CREATE INDEX CONCURRENTLY`, after the migrations.

A migration is one transaction, and such a build can't be in one. So the indexes of a revision are
listed here, and `migrate.upgrade` builds what is missing once the revision is reached. A build that
was interrupted leaves an invalid index, which is dropped and built again. Until an index is there
the service works, and reads that need it are slow.
"""

import asyncio
from typing import Final, NamedTuple

import asyncpg

from runtime.postgres.connect import connect

_CONNECT_TIMEOUT_S: Final = 10.0

_LOCK: Final = 8_089_002
_POLL_S: Final = 0.2


class OnlineIndex(NamedTuple):
    """An index, and the revision that it belongs to."""

    revision: str
    name: str
    definition: str
    """What follows ``CREATE INDEX CONCURRENTLY name ON``."""


# Expressions, so that no other index can serve a scan that is meant for these, and these serve no
# other statement (`projections.transfer_list`). An index with a column of ids was used for look-ups
# by id: Postgres 18 skips from one value of the first column to the next.
_WALLET: Final = "coalesce(wallet_id, wallet_id)"
_VERSION: Final = "(created_version + 0)"
_CREATED: Final = "(created_at AT TIME ZONE 'UTC')"

ONLINE_INDEXES: Final = (
    OnlineIndex("0016", "wallets_by_age", "wallets (created_at, coalesce(id, id))"),
    OnlineIndex("0016", "wallet_projections_by_age", f"wallet_projections (created_at, {_WALLET})"),
    OnlineIndex(
        "0016",
        "wallet_projections_by_currency",
        f"wallet_projections (currency, {_CREATED}, {_WALLET})",
    ),
    OnlineIndex(
        "0016",
        "wallet_projections_by_status",
        f"wallet_projections (status, {_CREATED}, {_WALLET}) WHERE status <> 'active'",
    ),
    OnlineIndex(
        "0016",
        "wallet_projections_by_prefix",
        'wallet_projections (reference_id COLLATE "C") WHERE reference_id IS NOT NULL',
    ),
    OnlineIndex(
        "0016",
        "transfer_projections_by_status",
        f"transfer_projections ({_WALLET}, status, type, {_VERSION})",
    ),
    OnlineIndex(
        "0016",
        "transfer_projections_by_reference",
        f"transfer_projections ({_WALLET}, reference_id, {_VERSION}) "
        "WHERE reference_id IS NOT NULL",
    ),
    OnlineIndex(
        "0016",
        "transfer_projections_by_amount",
        f"transfer_projections ({_WALLET}, amount, {_VERSION})",
    ),
    OnlineIndex(
        "0018",
        "transfer_projections_by_refunds",
        f"transfer_projections ({_WALLET}, refunds, {_VERSION}) WHERE refunds IS NOT NULL",
    ),
    # Only entries with metadata: the others would all be under one key of the index. New entries go
    # to their places at once, not to a list that every look-up reads from end to end.
    OnlineIndex(
        "0019",
        "wallet_projections_by_metadata",
        "wallet_projections USING gin ((metadata::jsonb) jsonb_path_ops) "
        "WITH (fastupdate = off) WHERE metadata IS NOT NULL",
    ),
    # For functions of earlier releases. Only parts of holds change what it covers, so settlements
    # stay on their pages.
    OnlineIndex(
        "0019",
        "transfers_completed_in_part",
        "transfers (wallet_id) WHERE settled_amount IS NOT NULL",
    ),
)

_STATE: Final = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"
_LARGE_SAMPLES: Final = """
SELECT a.attnum FROM pg_index i, unnest(i.indkey) WITH ORDINALITY AS k (attnum, number)
JOIN pg_attribute a ON a.attrelid = to_regclass($1) AND a.attnum = k.number
WHERE i.indexrelid = to_regclass($1) AND k.attnum = 0 AND a.attstattarget IS DISTINCT FROM 10
"""
"""Expressions of an index, whose statistics would be taken from the default sample (see 0005)."""

_REVISION: Final = "SELECT max(version_num) FROM alembic_version"


async def build_missing(dsn: str) -> None:
    """Build the indexes of the database's revision that are missing. Safe to run concurrently.

    Raises:
        what `connect` raises, asyncpg.PostgresError: what is built stays.
    """
    connection = await connect(dsn, timeout_s=_CONNECT_TIMEOUT_S)
    try:
        await _lock(connection)
        revision = await connection.fetchval(_REVISION)
        for index in ONLINE_INDEXES:
            if revision is None or index.revision > revision:
                continue
            is_valid = await connection.fetchval(_STATE, index.name)
            if is_valid is False:
                await connection.execute(f"DROP INDEX CONCURRENTLY {index.name}")
            if not is_valid:
                await connection.execute(
                    f"CREATE INDEX CONCURRENTLY {index.name} ON {index.definition}"
                )
            for (number,) in await connection.fetch(_LARGE_SAMPLES, index.name):
                await connection.execute(
                    f"ALTER INDEX {index.name} ALTER COLUMN {number} SET STATISTICS 10"
                )
    finally:
        await connection.close()


async def _lock(connection: asyncpg.Connection) -> None:
    """Wait for another process that builds. Not in a statement, for whose end it would wait."""
    is_locked = False
    while not is_locked:
        is_locked = await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)
        await asyncio.sleep(0 if is_locked else _POLL_S)


def drop_statements(revision: str) -> str:
    """Statements that drop the indexes of ``revision``, for its `downgrade`."""
    names = [index.name for index in ONLINE_INDEXES if index.revision == revision]
    return ";\n".join(f"DROP INDEX IF EXISTS {name}" for name in names)
