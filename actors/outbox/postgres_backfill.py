"""State of the stream backfill in Postgres: the backfilled incarnation, and the lock."""

from collections.abc import Sequence
from typing import Final

from actors.journal.ports import EventRange
from actors.journal.postgres_connection import ReconnectingConnection
from wallet.ids import WalletId

_LOCK: Final = 8_089_002

# Up to the wallet's last event, including those in the outbox: the lost stream may have
# acknowledged them. If a relay publishes them again, the stream drops the duplicates.
_WALLET_RANGES: Final = """
SELECT id::text, version FROM wallets WHERE id > $1::uuid ORDER BY id LIMIT $2
"""

_MARK_BACKFILLED: Final = """
INSERT INTO stream_incarnations (stream, created) VALUES ($1, $2)
ON CONFLICT (stream) DO UPDATE SET created = excluded.created, refilled_at = clock_timestamp()
"""

_NIL_UUID: Final = WalletId("00000000-0000-0000-0000-000000000000")


class PostgresBackfill:
    """Implements `StreamBackfill`. Its lock is an advisory lock of the database session."""

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
            await (
                self._connection.confirm()
            )  # As in the outbox: a published event can't be taken back.
        return [EventRange(WalletId(row[0]), 1, row[1]) for row in rows]
