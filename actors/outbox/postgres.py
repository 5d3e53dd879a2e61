"""The outbox in Postgres: which committed events the stream may lack, and what they are."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final

from actors.journal.ports import EventRange, JournalConflict, JournalUnavailable
from actors.journal.postgres import CONNECTION_SETTINGS, EVENT_COLUMNS
from actors.journal.postgres_connection import Connection, ReconnectingConnection
from actors.journal.postgres_rows import recorded_event_from_row
from wallet.events import RecordedEvent
from wallet.ids import WalletId

# Each subquery is asked once a span, by key: OFFSET 0 keeps the planner from turning the join
# round, which it does where it believes a table to be empty.
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

# Rows are found one by one by key and locked in key order, and deleted by their place. Joined to
# the table itself, the list would be gone through once for each of its rows wherever the planner
# believes the table to be empty. A row never changes, so its place does not.
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

# Along the primary key, whatever the rows' age: a sum is not looked up in the index of ages, which
# is full of rows that are deleted and may still be seen by an old snapshot. A younger row counts if
# a later one of its wallet is old: the clock was set back.
_UNPUBLISHED: Final = """
SELECT wallet_id::text, first_version, last_version FROM outbox o
WHERE (wallet_id, first_version) > ($1::uuid, $2::bigint)
    AND (created_at + make_interval(secs => $3) <= statement_timestamp() OR EXISTS (
        SELECT FROM outbox later
        WHERE later.wallet_id = o.wallet_id AND later.first_version > o.first_version
            AND later.created_at + make_interval(secs => $3) <= statement_timestamp()
    ))
ORDER BY o.wallet_id, o.first_version LIMIT $4
"""

_BEFORE_ALL: Final = EventRange(WalletId("00000000-0000-0000-0000-000000000000"), 0, 0)


def _is_whole(span: EventRange, events: Sequence[RecordedEvent]) -> bool:
    """Whether these rows, in version order as they are asked for, are all of ``span``."""
    return len(events) == span.last - span.first + 1 and all(
        (event.wallet_after.id, event.wallet_after.version) == (span.wallet_id, version)
        for event, version in ((events[0], span.first), (events[-1], span.last))
    )


class PostgresOutbox:
    """Implements `Outbox`. Its connections do not wait for the disk: a deletion that a crash
    undoes only makes the relay publish again what the stream then drops.

    ``chores`` is the connection for deleting rows and for looking through the whole table, which
    may take their time: what a publish needs is read over the other one meanwhile.
    """

    SETTINGS: Final = {
        **CONNECTION_SETTINGS,
        "application_name": "wallet-relay",
        "synchronous_commit": "off",
        # Rows are met in the order of a key. Nothing has to be sorted or hashed for that.
        "enable_hashagg": "off",
    }

    def __init__(
        self, connection: ReconnectingConnection, *, chores: ReconnectingConnection
    ) -> None:
        self._connection = connection
        self._chores = chores

    async def read(self, spans: Sequence[EventRange]) -> Sequence[Sequence[RecordedEvent]]:
        columns = list(zip(*spans, strict=True))
        rows = iter(
            await self._over(
                self._connection, lambda connection: connection.fetch(_EVENT_RANGES, *columns)
            )
        )
        read = [
            [recorded_event_from_row(row) for row in islice(rows, span.last - span.first + 1)]
            for span in spans
        ]
        for span, events in zip(spans, read, strict=True):
            assert _is_whole(span, events), "INV-10 the journal has no gaps"
        return read

    async def delete(self, spans: Iterable[EventRange]) -> None:
        # In key order: whoever else deletes some of them locks them in the same order.
        columns = zip(*sorted(spans), strict=True)
        await self._over(self._chores, lambda connection: connection.execute(_DELETE, *columns))

    async def unpublished(
        self, *, limit: int, after: EventRange | None = None, older_than_s: float = 0.0
    ) -> Sequence[EventRange]:
        wallet_id, first, _ = after or _BEFORE_ALL
        rows = await self._over(
            self._chores,
            lambda connection: connection.fetch(
                _UNPUBLISHED, wallet_id, first, older_than_s, limit
            ),
        )
        if rows:
            # A commit whose wait for a standby was ended is visible here, and may yet be lost. On
            # the stream it would be for good.
            await self._chores.confirm()
        return [EventRange(WalletId(row[0]), row[1], row[2]) for row in rows]

    async def _over(
        self, connection: ReconnectingConnection, ask: Callable[[Connection], Awaitable[Any]]
    ) -> Any:
        try:
            return await connection.read(ask)
        except JournalConflict as conflict:  # A deadlock: to be tried again, as any failure here.
            raise JournalUnavailable(str(conflict)) from conflict
