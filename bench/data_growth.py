"""Fills tables by SQL, to measure how cost grows: wallets and history, not on the stream.

The rows are consistent, projections included, so that loads on them can be audited. The shards must
not have these wallets in memory.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg

_WALLETS_AT_ONCE: Final = 50_000
_EVENTS_AT_ONCE: Final = 100_000

_FILL_WALLETS: Final = """
WITH made AS (
    INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
        created_at, updated_at)
    SELECT uuidv7(), 'USD', 2, 0, 0, 0, 1, now(), now() FROM generate_series(1, $1)
    RETURNING id
), event AS (
    INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
        pending_credit)
    SELECT id, 1, 'wallet.created', now(), 0, 0, 0 FROM made
), projection AS (
    INSERT INTO wallet_projections (wallet_id, currency, scale, status, balance, pending_debit,
        pending_credit, version, created_at, updated_at)
    SELECT id, 'USD', 2, 'active', 0, 0, 0, 1, now(), now() FROM made
)
SELECT id::text FROM made
"""

# $2 debits of 1.00 for each wallet of $1, on top of what it has.
_FILL_EVENTS: Final = """
WITH new AS MATERIALIZED (
    SELECT w.id, w.version + n AS version, w.balance + 100 * n AS balance, uuidv7() AS transfer
    FROM wallets w, generate_series(1, $2) AS n WHERE w.id = ANY ($1::uuid[])
), event AS (
    INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
        pending_credit, transfer_id, transfer_type, amount)
    SELECT id, version, 'transfer.completed', now(), balance, 0, 0, transfer, 'debit', 100 FROM new
), transfer AS (
    INSERT INTO transfers (wallet_id, id, type, status, amount, created_version, created_at,
        settled_at)
    SELECT id, transfer, 'debit', 'completed', 100, version, now(), now() FROM new
), projected AS (
    INSERT INTO transfer_projections (wallet_id, transfer_id, type, status, amount, created_at,
        settled_at, created_version, version)
    SELECT id, transfer, 'debit', 'completed', 100, now(), now(), version, version FROM new
), projection AS (
    UPDATE wallet_projections SET version = version + $2, balance = balance + 100 * $2
    WHERE wallet_id = ANY ($1::uuid[])
)
UPDATE wallets SET version = version + $2, balance = balance + 100 * $2
WHERE id = ANY ($1::uuid[])
"""

_SIZES: Final = """
SELECT relname, pg_relation_size(oid)::bigint AS bytes FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')
    AND relname NOT LIKE 'alembic%'
ORDER BY relname
"""


class Tables:
    """Fills the service's tables, with a connection that the caller owns."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def add_wallets(self, count: int) -> list[str]:
        """Open ``count`` wallets with no money."""
        ids: list[str] = []
        while len(ids) < count:
            some = min(_WALLETS_AT_ONCE, count - len(ids))
            rows = await self._connection.fetch(_FILL_WALLETS, some)
            ids.extend(row["id"] for row in rows)
        return ids

    async def add_events(self, wallets: Sequence[str], each: int) -> None:
        """Add ``each`` debits to the history of each of ``wallets``."""
        step = max(_EVENTS_AT_ONCE // len(wallets), 1)
        for start in range(0, each, step):
            await self._connection.execute(_FILL_EVENTS, wallets, min(step, each - start))

    async def vacuum(self) -> None:
        """Vacuum now, so that autovacuum does not run during a measurement."""
        await self._connection.execute("VACUUM (ANALYZE)")
        await self._connection.execute("CHECKPOINT")

    async def sizes(self) -> dict[str, int]:
        """Bytes of each table and index."""
        return {row["relname"]: row["bytes"] for row in await self._connection.fetch(_SIZES)}

    async def wal_position(self) -> int:
        """Bytes of write-ahead log since the database was created."""
        found = await self._connection.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        return int(found)

    async def full_pages(self) -> int:
        """Full-page images in the write-ahead log since the server's statistics began."""
        return int(await self._connection.fetchval("SELECT wal_fpi FROM pg_stat_wal"))

    async def events(self) -> int:
        """Rows of the journal."""
        return int(await self._connection.fetchval("SELECT count(*) FROM wallet_events"))
