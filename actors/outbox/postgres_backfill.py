"""Filling a lost stream again, kept in Postgres: which incarnation is full, and who fills."""

from collections.abc import Sequence
from typing import Final

from actors.journal.ports import EventRange
from actors.journal.postgres_connection import ReconnectingConnection
from wallet.ids import WalletId

_LOCK: Final = 8_089_002

# To the wallet's last event, the outbox's included: a row that is there now may have been
# acknowledged by the stream that was lost. What its relay publishes again, the stream drops.
_WALLET_RANGES: Final = """
SELECT id::text, version FROM wallets WHERE id > $1::uuid ORDER BY id LIMIT $2
"""

_MARK_BACKFILLED: Final = """
INSERT INTO stream_incarnations (stream, created) VALUES ($1, $2)
ON CONFLICT (stream) DO UPDATE SET created = excluded.created, refilled_at = clock_timestamp()
"""

_NIL_UUID: Final = WalletId("00000000-0000-0000-0000-000000000000")


class PostgresBackfill:
    """Implements `Refill`. The right to fill is a session lock: it ends with the connection."""

    def __init__(self, connection: ReconnectingConnection, *, stream: str) -> None:
        self._connection = connection
        self._stream = stream

    async def backfilled_incarnation(self) -> str | None:
        sql = "SELECT created FROM stream_incarnations WHERE stream = $1"
        created: str | None = await self._connection.read(
            lambda connection: connection.fetchval(sql, self._stream)
        )
        return created

    async def try_begin(self) -> bool:
        return bool(
            await self._connection.read(
                lambda connection: connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)
            )
        )

    async def finish(self, incarnation: str | None) -> None:
        if incarnation is not None:
            await self._connection.read(
                lambda connection: connection.execute(_MARK_BACKFILLED, self._stream, incarnation)
            )
        await self._connection.read(
            lambda connection: connection.fetchval("SELECT pg_advisory_unlock($1)", _LOCK)
        )

    async def wallet_ranges(self, *, after: WalletId | None, limit: int) -> Sequence[EventRange]:
        rows = await self._connection.read(
            lambda connection: connection.fetch(_WALLET_RANGES, after or _NIL_UUID, limit)
        )
        if rows:
            await self._connection.confirm()  # As for the outbox: the stream forgets nothing.
        return [EventRange(WalletId(row[0]), 1, row[1]) for row in rows]
