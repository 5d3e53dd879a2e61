"""Filling a lost stream again, kept in Postgres: which incarnation is full, and who fills."""

from collections.abc import Sequence
from typing import Final

from actors.connection import HealingConnection
from actors.ports import Span
from wallet.ids import WalletId

_LOCK: Final = 8_089_002

# To the wallet's last event, the outbox's included: a row that is there now may have been
# acknowledged by the stream that was lost. What its relay publishes again, the stream drops.
_WRITTEN: Final = """
SELECT id::text, version FROM wallets WHERE id > $1::uuid ORDER BY id LIMIT $2
"""

_MARK: Final = """
INSERT INTO stream_incarnations (stream, created) VALUES ($1, $2)
ON CONFLICT (stream) DO UPDATE SET created = excluded.created, refilled_at = clock_timestamp()
"""

_BEFORE_ALL: Final = WalletId("00000000-0000-0000-0000-000000000000")


class PostgresRefill:
    """Implements `Refill`. The right to fill is a session lock: it ends with the connection."""

    def __init__(self, connection: HealingConnection, *, stream: str) -> None:
        self._connection = connection
        self._stream = stream

    async def filled(self) -> str | None:
        sql = "SELECT created FROM stream_incarnations WHERE stream = $1"
        created: str | None = await self._connection.read(
            lambda connection: connection.fetchval(sql, self._stream)
        )
        return created

    async def begin(self) -> bool:
        return bool(
            await self._connection.read(
                lambda connection: connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)
            )
        )

    async def end(self, incarnation: str | None) -> None:
        if incarnation is not None:
            await self._connection.read(
                lambda connection: connection.execute(_MARK, self._stream, incarnation)
            )
        await self._connection.read(
            lambda connection: connection.fetchval("SELECT pg_advisory_unlock($1)", _LOCK)
        )

    async def written(self, *, after: WalletId | None, limit: int) -> Sequence[Span]:
        rows = await self._connection.read(
            lambda connection: connection.fetch(_WRITTEN, after or _BEFORE_ALL, limit)
        )
        if rows:
            await self._connection.confirm()  # As for the outbox: the stream forgets nothing.
        return [Span(WalletId(row[0]), 1, row[1]) for row in rows]
