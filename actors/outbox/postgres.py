"""The outbox in Postgres: which committed events the stream may lack, and what they are."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from actors.journal.ports import EventRange, JournalConflict, JournalUnavailable, StreamMark
from actors.journal.postgres import CONNECTION_SETTINGS
from actors.journal.postgres_connection import Connection, ReconnectingConnection
from actors.journal.postgres_rows import EVENT_COLUMNS, recorded_event_from_row
from wallet.events import RecordedEvent
from wallet.ids import WalletId
from wallet.slots import ALL_SLOTS, SLOTS, SlotRange, slot_of

# Each subquery runs once per event range, by key: OFFSET 0 keeps the planner from reversing the
# join, which it does if its statistics say that a table is empty.
_EVENT_RANGES: Final = f"""{EVENT_COLUMNS}
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
    AS i(wallet_id, first, last, number)
CROSS JOIN LATERAL (SELECT * FROM wallets WHERE id = i.wallet_id OFFSET 0) w
CROSS JOIN LATERAL (
    SELECT * FROM wallet_events
    WHERE wallet_id = i.wallet_id AND version BETWEEN i.first AND i.last ORDER BY version OFFSET 0
) e
ORDER BY i.number, e.version
"""

# Rows are found by key, locked in key order, and deleted by ctid. Joined to the table itself, the
# list would be scanned once per row if the planner's statistics say that the table is empty. A row
# is never updated, so its ctid doesn't change.
_DELETE: Final = """
DELETE FROM outbox WHERE ctid = ANY (ARRAY(
    SELECT o.ctid FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS i(wallet_id, first, last)
    CROSS JOIN LATERAL (
        SELECT ctid FROM outbox
        WHERE wallet_id = i.wallet_id AND first_version BETWEEN i.first AND i.last
        ORDER BY first_version FOR UPDATE
    ) o
))
"""

# In one statement: an event without a row is at or below a mark. If another relay deleted the rows
# first, it wrote the mark.
_DELETE_WITH_MARK: Final = f"""
WITH deleted AS ({_DELETE} RETURNING created_at)
INSERT INTO stream_marks (stream, incarnation, sequence, acknowledged_at, max_age_s, since)
SELECT $4, $5, i.sequence, clock_timestamp() - make_interval(secs => $7), $8, d.since
FROM (SELECT min(created_at) AS since FROM deleted HAVING count(*) > 0) d
CROSS JOIN unnest($6::bigint[]) AS i(sequence)
ON CONFLICT (stream, incarnation, sequence)
    DO UPDATE SET since = least(stream_marks.since, excluded.since)
"""

# As the index by slot has them. (Migration 0011)
_SLOT: Final = f"(crc32(wallet_id::text::bytea) & {SLOTS - 1})"
_AGED: Final = """(created_at AT TIME ZONE 'UTC')
    <= (statement_timestamp() - make_interval(secs => $6)) AT TIME ZONE 'UTC'"""

# Reads the index of these slots, and the table only for rows that are old: young ones are passed
# over in the index. The slot where the page before ended is continued by key, then come the others.
# A younger row counts if a later one of its wallet is old (the clock was set back), so each old row
# brings those between the old one before it and itself.
_UNPUBLISHED: Final = f"""
SELECT o.wallet_id::text, o.first_version, o.last_version
FROM (
    SELECT slot, wallet_id, first_version, coalesce(
        lag(first_version) OVER (PARTITION BY slot, wallet_id ORDER BY first_version),
        CASE wallet_id WHEN $4 THEN $5 ELSE -1 END) AS previous
    FROM (
        (SELECT {_SLOT} AS slot, wallet_id, first_version FROM outbox
        WHERE {_SLOT} = $3 AND (wallet_id, first_version) > ($4::uuid, $5::bigint) AND {_AGED}
        ORDER BY slot, wallet_id, first_version LIMIT $7)
        UNION ALL
        (SELECT {_SLOT} AS slot, wallet_id, first_version FROM outbox
        WHERE {_SLOT} = ANY (ARRAY(
                SELECT generate_series(greatest(i.first, $3 + 1), i.last)
                FROM unnest($1::bigint[], $2::bigint[]) AS i(first, last)))
            AND {_AGED}
        ORDER BY slot, wallet_id, first_version LIMIT $7)
        ORDER BY slot, wallet_id, first_version LIMIT $7
    ) listed
) old
CROSS JOIN LATERAL (
    SELECT * FROM outbox WHERE {_SLOT} = old.slot AND wallet_id = old.wallet_id
        AND first_version > old.previous AND first_version <= old.first_version OFFSET 0
) o
ORDER BY old.slot, old.wallet_id, o.first_version
"""

_BEFORE_ALL: Final = (-1, "00000000-0000-0000-0000-000000000000", 0)
"""Slot, wallet and version."""


def _is_whole(event_range: EventRange, events: Sequence[RecordedEvent]) -> bool:
    """Whether ``events``, in version order, are all of ``event_range``."""
    return len(events) == event_range.last - event_range.first + 1 and all(
        (event.wallet_after.id, event.wallet_after.version) == (event_range.wallet_id, version)
        for event, version in ((events[0], event_range.first), (events[-1], event_range.last))
    )


class PostgresOutbox:
    """Implements `Outbox`. Its connections use synchronous_commit=off: if a crash undoes a
    deletion, the relay publishes again, and the stream drops the duplicates.

    ``chores`` is the connection for deleting rows and for scanning the whole table, which may be
    slow. What a publish needs is read over the other connection meanwhile.
    """

    SETTINGS: Final = {
        **CONNECTION_SETTINGS,
        "application_name": "wallet-relay",
        "synchronous_commit": "off",
        # Rows are read in key order, so nothing needs to be sorted or hashed.
        "enable_hashagg": "off",
    }

    def __init__(
        self,
        connection: ReconnectingConnection,
        *,
        chores: ReconnectingConnection,
        stream: str = "",
        stream_max_age_s: float = 0.0,
    ) -> None:
        self._connection = connection
        self._background = chores
        self._stream = stream
        self._stream_max_age_s = stream_max_age_s

    async def read(self, event_ranges: Sequence[EventRange]) -> Sequence[Sequence[RecordedEvent]]:
        columns = list(zip(*event_ranges, strict=True))
        rows = iter(
            await self._over(
                self._connection, lambda connection: connection.fetch(_EVENT_RANGES, *columns)
            )
        )
        read = [
            [
                recorded_event_from_row(row)
                for row in islice(rows, event_range.last - event_range.first + 1)
            ]
            for event_range in event_ranges
        ]
        for event_range, events in zip(event_ranges, read, strict=True):
            assert _is_whole(event_range, events), "INV-10 the journal has no gaps"
        return read

    async def delete(
        self, event_ranges: Iterable[EventRange], *, mark: StreamMark | None = None
    ) -> None:
        # In key order: concurrent deletions lock the rows in the same order.
        arguments: list[Any] = [*zip(*sorted(event_ranges), strict=True)]
        sql = _DELETE
        if mark is not None:
            sql = _DELETE_WITH_MARK
            arguments += self._stream, mark.incarnation, mark.sequences, mark.age_s
            arguments.append(self._stream_max_age_s)
        await self._over(self._background, lambda connection: connection.execute(sql, *arguments))

    async def unpublished(
        self,
        *,
        limit: int,
        slots: Sequence[SlotRange] = ALL_SLOTS,
        after: EventRange | None = None,
        older_than_s: float = 0.0,
    ) -> Sequence[EventRange]:
        start: tuple[int, str, int] = _BEFORE_ALL
        if after is not None:
            start = slot_of(after.wallet_id), after.wallet_id, after.first
        firsts, lasts = [one.first for one in slots], [one.last for one in slots]
        rows = await self._over(
            self._background,
            lambda connection: connection.fetch(
                _UNPUBLISHED, firsts, lasts, *start, older_than_s, limit
            ),
        )
        if rows:
            # A commit whose wait for a standby was cancelled is visible here, but a failover may
            # lose it. A published event can't be taken back.
            await self._background.confirm()
        return [EventRange(WalletId(row[0]), row[1], row[2]) for row in rows]

    async def _over(
        self, connection: ReconnectingConnection, operation: Callable[[Connection], Awaitable[Any]]
    ) -> Any:
        try:
            return await connection.read(operation)
        except JournalConflict as conflict:  # A deadlock: retried like any failure here.
            raise JournalUnavailable(str(conflict)) from conflict
