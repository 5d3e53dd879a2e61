"""Reads statements from the journal: their bounds first, then event after event, in pages.

The bounds are versions, which are fixed when the statement begins. The journal only grows, so the
pages are one history although each is a short read of its own: no transaction stays open, however
slowly a client reads. What comes in meanwhile is not in the statement.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

import msgspec

from projections.wallet_history import version_at
from runtime.postgres.reads import ReadPool, Row
from wallet.ids import WalletId
from wallet.statement import Balances, JournalLine

PAGE_EVENTS: Final = 250
"""Events of a page: 3 to 6 ms of an ingress process, so that other requests get their turn."""

BOUNDS: Final = f"""
SELECT w.currency, w.scale, w.version AS wallet_version,
    o.version AS opening_version, o.balance::text AS opening_balance,
    o.pending_credit::text AS opening_pending_credit,
    o.pending_debit::text AS opening_pending_debit,
    c.version AS closing_version, c.balance::text AS closing_balance,
    c.pending_credit::text AS closing_pending_credit,
    c.pending_debit::text AS closing_pending_debit
FROM wallets w
CROSS JOIN LATERAL (
    SELECT {version_at("w", "$2::timestamptz", at_or_before=False)} AS opening,
        CASE WHEN $3::timestamptz IS NULL THEN w.version
            ELSE {version_at("w", "$3::timestamptz", at_or_before=False)} END AS closing
    OFFSET 0
) b
LEFT JOIN LATERAL (
    SELECT * FROM wallet_events WHERE wallet_id = w.id AND version = b.opening OFFSET 0
) o ON true
LEFT JOIN LATERAL (
    SELECT * FROM wallet_events
    WHERE wallet_id = w.id AND version = greatest(b.opening, b.closing) OFFSET 0
) c ON true
WHERE w.id = $1::uuid
"""

EVENTS: Final = """
SELECT version, occurred_at, type, balance::text, pending_credit::text, pending_debit::text,
    transfer_id::text, transfer_type, amount::text, reference_id, refunds::text
FROM wallet_events WHERE wallet_id = $1::uuid AND version > $2 AND version <= $3
ORDER BY version LIMIT $4
"""


class StatementBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a statement has: those after ``opening`` and up to ``closing``."""

    currency: str
    scale: int
    wallet_version: int
    opening: Balances
    closing: Balances


class Statements:
    """Reads the journal."""

    def __init__(self, reads: ReadPool) -> None:
        self._reads = reads

    async def bounds(
        self, wallet_id: WalletId, *, since: datetime | None, until: datetime | None
    ) -> StatementBounds | None:
        """The events from ``since`` on, and before ``until``; None if there is no such wallet."""
        row = await self._reads.row(BOUNDS, wallet_id, since, until)
        if row is None:
            return None
        return StatementBounds(
            currency=row["currency"],
            scale=row["scale"],
            wallet_version=row["wallet_version"],
            opening=_balances(row, "opening_"),
            closing=_balances(row, "closing_"),
        )

    async def pages(
        self, wallet_id: WalletId, bounds: StatementBounds
    ) -> AsyncIterator[list[JournalLine]]:
        """The events in order, up to `PAGE_EVENTS` at a time."""
        after, last = bounds.opening.version, bounds.closing.version
        while after < last:
            rows = await self._reads.rows(EVENTS, wallet_id, after, last, PAGE_EVENTS)
            if not rows:
                return
            yield [_line(row) for row in rows]
            after = rows[-1]["version"]


def _balances(row: Row, prefix: str) -> Balances:
    version = row[f"{prefix}version"]
    if version is None:
        return Balances(version=0)
    return Balances(
        version=version,
        balance=int(row[f"{prefix}balance"]),
        pending_credit=int(row[f"{prefix}pending_credit"]),
        pending_debit=int(row[f"{prefix}pending_debit"]),
    )


def _line(row: Row) -> JournalLine:
    version, time, type, balance, credit, debit, transfer_id, transfer_type = row[:8]
    amount, reference_id, refunds = row[8:]
    after = Balances(
        version=version, balance=int(balance), pending_credit=int(credit), pending_debit=int(debit)
    )
    if transfer_id is None:
        return JournalLine(type=type, time=time, after=after)
    return JournalLine(
        type=type,
        time=time,
        after=after,
        transfer_id=transfer_id,
        transfer_type=transfer_type,
        amount=int(amount),
        reference_id=reference_id,
        refunds=refunds,
    )
