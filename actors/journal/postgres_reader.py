"""Reads of the journal for clients: pages of events, as they were published.

The journal only grows, so a page needs no transaction: the wallet's version is read first, and then
the events up to it. Every look-up is by the primary key (wallet, version), and bounded.
"""

from typing import Final

import msgspec

from actors.journal.postgres_rows import EVENT_COLUMNS, recorded_event_from_row
from runtime.postgres.reads import ReadPool, Row
from wallet.events import RecordedEvent
from wallet.ids import WalletId

_VERSION: Final = "SELECT version FROM wallets WHERE id = $1::uuid"


def _events(order: str) -> str:
    return f"""{EVENT_COLUMNS}
FROM wallets w CROSS JOIN LATERAL (
    SELECT * FROM wallet_events
    WHERE wallet_id = w.id AND version > $2 AND version < $3
    ORDER BY version {order} LIMIT $4 OFFSET 0
) e
WHERE w.id = $1::uuid ORDER BY e.version {order}
"""


OLDEST_FIRST: Final = _events("ASC")
NEWEST_FIRST: Final = _events("DESC")


class JournalRange(msgspec.Struct, frozen=True, kw_only=True):
    """Versions of a wallet; both bounds are exclusive."""

    after: int = 0
    before: int | None = None
    """None: up to the wallet's version."""
    newest_first: bool = False


class JournalPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events in the requested order."""

    events: list[RecordedEvent]
    next_version: int | None
    """The version of the last event, if the range has more; else None."""
    wallet_version: int
    """At the read. The page has no later event."""


class JournalReader:
    """Reads the write side's tables."""

    def __init__(self, reads: ReadPool) -> None:
        self._reads = reads

    async def events(
        self, wallet_id: WalletId, wanted: JournalRange, *, limit: int
    ) -> JournalPage | None:
        """At most ``limit`` events; None if the wallet doesn't exist.

        Raises:
            ReadUnavailable: Postgres did not respond.
        """
        row = await self._reads.row(_VERSION, wallet_id)
        if row is None:
            return None
        version: int = row["version"]
        end = version + 1
        before = end if wanted.before is None else min(wanted.before, end)
        versions = range(wanted.after + 1, before)
        if not versions:
            return JournalPage(events=[], next_version=None, wallet_version=version)
        order = NEWEST_FIRST if wanted.newest_first else OLDEST_FIRST
        rows = await self._reads.rows(order, wallet_id, wanted.after, before, limit)
        ordered = versions[::-1] if wanted.newest_first else versions
        _assert_contiguous(rows, ordered[:limit])
        return JournalPage(
            events=[recorded_event_from_row(row) for row in rows],
            next_version=ordered[limit - 1] if len(ordered) > limit else None,
            wallet_version=version,
        )


def _assert_contiguous(rows: list[Row], versions: range) -> None:
    """Postcondition of a page: the journal has every version up to the wallet's."""
    assert [row["version"] for row in rows] == list(versions), "INV-10 versions are contiguous"
