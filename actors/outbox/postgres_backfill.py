"""State of the stream backfill in Postgres: the backfilled incarnation, its marks, and the lock."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from actors.journal.ports import (
    Acknowledged,
    EventRange,
    FilledStream,
    JournalConflict,
    JournalUnavailable,
    creation_of,
    fill_of,
)
from actors.journal.postgres_connection import Connection, ReconnectingConnection
from wallet.ids import WalletId

_LOCK: Final = 8_089_002
_THINNING_LOCK: Final = 8_089_011

_AGE_SHARE: Final = 0.9
"""A mark counts for this share of the time that the stream keeps its message. The rest is for
clocks that were set, and for the server, which expires messages in its own time."""

_CLOCKS_DIFFER_S: Final = 600.0
"""How far the clock of a shard may be behind the database's. A shard stamps the changes of wallets,
the database stamps outbox rows."""

_RECENT_S: Final = 10.0
"""Younger marks are not thinned."""

_SPACINGS: Final = 128
"""Marks that are kept of the time that the stream keeps messages."""

_UNLIMITED_SPACING_S: Final = 86_400.0
"""Time between two marks of a stream that keeps its messages without limit."""

# The age of a wallet's last change doesn't tell which of its events are missing. So a range begins
# at version 1, and ends with the wallet's last event, including those in the outbox: the lost
# stream may have acknowledged them. If a relay publishes them again, the stream drops the
# duplicates.
_WALLET_RANGES: Final = """
SELECT id::text, version, coalesce(updated_at >= to_timestamp($3::float8), true) FROM wallets
WHERE id > $1::uuid ORDER BY id LIMIT $2
"""

_ACKNOWLEDGED: Final = """
SELECT i.created, i.fill, coalesce(max(m.sequence), 0), min(m.sequence) FILTER (
    WHERE coalesce(least(nullif(m.max_age_s, 0), nullif($2::float8, 0)) * $3::float8
        > extract(epoch FROM clock_timestamp() - m.acknowledged_at), true)
)
FROM stream_incarnations i
LEFT JOIN stream_marks m ON m.stream = i.stream
    AND m.incarnation = CASE i.fill WHEN '' THEN i.created ELSE i.created || '|' || i.fill END
WHERE i.stream = $1 GROUP BY i.stream
"""

_SINCE: Final = """
SELECT extract(epoch FROM min(nullif(since, '-infinity')))::float8, bool_or(since = '-infinity')
FROM stream_marks WHERE stream = $1 AND incarnation = $2 AND sequence > $3
"""

_MARK_BACKFILLED: Final = """
INSERT INTO stream_incarnations (stream, created, fill) VALUES ($1, $2, $3)
ON CONFLICT (stream) DO UPDATE
    SET created = excluded.created, fill = excluded.fill, refilled_at = clock_timestamp()
"""

_DROP_MARKS: Final = """
DELETE FROM stream_marks WHERE stream = $1 AND (incarnation <> $2 OR sequence > $3)
"""

# Not all of them: meanwhile a relay may have stored a mark of the former state.
_KEEP_MARKS: Final = """
UPDATE stream_marks SET incarnation = $4
WHERE stream = $1 AND incarnation = $2 AND sequence <= $3
"""

_MARK_FILL: Final = """
INSERT INTO stream_marks (stream, incarnation, sequence, acknowledged_at, max_age_s, since)
SELECT $1, $2, sequence, clock_timestamp() - make_interval(secs => $4), $5,
    coalesce(to_timestamp($6), '-infinity')
FROM unnest($3::bigint[]) AS i(sequence)
ON CONFLICT DO NOTHING
"""

_LIMIT_AGE: Final = """
UPDATE stream_marks SET max_age_s = $2
WHERE stream = $1 AND (max_age_s = 0 OR max_age_s > $2)
"""

# Of each interval the highest mark stays, and takes over how far back the others reach.
_THIN: Final = """
WITH one_at_a_time AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock($5) AS mine
), old AS MATERIALIZED (
    SELECT sequence, max(sequence) OVER spacing AS kept, min(since) OVER spacing AS since
    FROM stream_marks
    WHERE stream = $1 AND incarnation = $2
        AND acknowledged_at < clock_timestamp() - make_interval(secs => $3)
        AND (SELECT mine FROM one_at_a_time)
    WINDOW spacing AS (PARTITION BY floor(extract(epoch FROM acknowledged_at) / $4::float8))
), widened AS (
    UPDATE stream_marks m SET since = old.since FROM old
    WHERE m.stream = $1 AND m.incarnation = $2 AND m.sequence = old.sequence
        AND old.sequence = old.kept AND m.since > old.since
)
DELETE FROM stream_marks m USING old
WHERE m.stream = $1 AND m.incarnation = $2 AND m.sequence = old.sequence
    AND old.sequence < old.kept
"""

# A rollback to before these marks would lose nothing that has not expired.
_EXPIRE: Final = """
DELETE FROM stream_marks
WHERE stream = $1 AND incarnation = $2 AND max_age_s > 0
    AND acknowledged_at < clock_timestamp() - make_interval(secs => 2 * max_age_s)
    AND sequence < (SELECT max(sequence) FROM stream_marks WHERE stream = $1 AND incarnation = $2)
"""

# In one snapshot with the incarnation's name: the marks of the next one are visible after it.
_DROP_STALE: Final = """
DELETE FROM stream_marks m USING stream_incarnations i
WHERE i.stream = $1 AND m.stream = $1
    AND m.incarnation <> CASE i.fill WHEN '' THEN i.created ELSE i.created || '|' || i.fill END
"""

_SCAN_ROWS: Final = 5_000
"""Wallets that one statement reads to find those that changed: it must end in time."""

_NIL_UUID: Final = WalletId("00000000-0000-0000-0000-000000000000")


class PostgresBackfill:
    """Implements `StreamBackfill`. Its lock is an advisory lock of the database session."""

    def __init__(
        self, connection: ReconnectingConnection, *, stream: str, max_age_s: float = 0.0
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._max_age_s = max_age_s

    async def _read(self, operation: Callable[[Connection], Awaitable[Any]]) -> Any:
        try:
            return await self._connection.read(operation)
        except JournalConflict as conflict:  # A deadlock: retried like any failure here.
            raise JournalUnavailable(str(conflict)) from conflict

    async def acknowledged(self) -> Acknowledged:
        row = await self._read(
            lambda connection: connection.fetchrow(
                _ACKNOWLEDGED, self._stream, self._max_age_s, _AGE_SHARE
            )
        )
        if row is None:
            return Acknowledged()
        created, fill, highest, oldest = row
        return Acknowledged(f"{created}|{fill}" if fill else created, highest, oldest)

    async def try_begin(self) -> bool:
        return bool(
            await self._read(
                lambda connection: connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK)
            )
        )

    async def finish(self, filled: FilledStream | None) -> None:
        if filled is not None:
            await self._read(lambda connection: self._store(connection, filled))
        await self._read(
            lambda connection: connection.fetchval("SELECT pg_advisory_unlock($1)", _LOCK)
        )

    async def _store(self, connection: Any, filled: FilledStream) -> None:
        """The incarnation and its marks, in one transaction."""
        former = await self._incarnation(connection)
        name, stream = filled.incarnation, self._stream
        sequences = sorted({filled.first, filled.last} - {0})
        async with connection.transaction():
            await connection.execute(_DROP_MARKS, stream, former or "", filled.kept)
            await connection.execute(_KEEP_MARKS, stream, former or "", filled.kept, name)
            await connection.execute(
                _MARK_FILL, stream, name, sequences, filled.took_s, self._max_age_s, filled.since
            )
            await connection.execute(_MARK_BACKFILLED, stream, creation_of(name), fill_of(name))

    async def _incarnation(self, connection: Any) -> str | None:
        sql = """
        SELECT CASE fill WHEN '' THEN created ELSE created || '|' || fill END
        FROM stream_incarnations WHERE stream = $1
        """
        incarnation: str | None = await connection.fetchval(sql, self._stream)
        return incarnation

    async def missing_since(self, sequence: int) -> float | None:
        async def read(connection: Any) -> Any:
            incarnation = await self._incarnation(connection)
            return await connection.fetchrow(_SINCE, self._stream, incarnation, sequence)

        since, any_event = await self._read(read)
        return None if since is None or any_event else float(since) - _CLOCKS_DIFFER_S

    async def wallet_ranges(
        self, *, after: WalletId | None, limit: int, since: float | None = None
    ) -> Sequence[EventRange]:
        scanned = limit if since is None else max(limit, _SCAN_ROWS)
        start = after or _NIL_UUID
        while True:
            rows = await self._read_wallets(start, scanned, since)
            changed = [EventRange(WalletId(row[0]), 1, row[1]) for row in rows if row[2]][:limit]
            if changed or len(rows) < scanned:
                break
            start = WalletId(rows[-1][0])
        if changed:
            # As in the outbox: a published event can't be taken back.
            await self._connection.confirm()
        return changed

    async def _read_wallets(self, after: WalletId, limit: int, since: float | None) -> Any:
        return await self._read(
            lambda connection: connection.fetch(_WALLET_RANGES, after, limit, since)
        )

    async def limit_age(self, max_age_s: float) -> None:
        await self._read(lambda connection: connection.execute(_LIMIT_AGE, self._stream, max_age_s))

    async def thin_marks(self) -> None:
        spacing_s = self._max_age_s / _SPACINGS or _UNLIMITED_SPACING_S

        async def thin(connection: Any) -> None:
            stream = self._stream
            incarnation = await self._incarnation(connection)
            await connection.execute(
                _THIN, stream, incarnation, _RECENT_S, spacing_s, _THINNING_LOCK
            )
            await connection.execute(_EXPIRE, stream, incarnation)
            await connection.execute(_DROP_STALE, stream)

        await self._read(thin)
