"""A wallet as it was: at a version, or at a time.

An event has the balances after it, and `wallet_changes` has the rest (status, freeze, limit,
metadata) by version, with a row per change. So the wallet at a version is three look-ups by key.

A time is turned into a version by a search over the wallet's events, by their primary key: an index
by time would cost every write. The search finds a version N whose event is at or before the time,
and whose next event is after it. Where a shard's clock was ahead of the next one's, several
versions are so; the answer is one of them, and always the same one for the events that were looked
at.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec

from runtime.postgres.reads import ReadPool, Row
from wallet.ids import WalletId
from wallet.representation import WalletView


def version_at(wallet: str, moment: str, *, at_or_before: bool = True) -> str:
    """SQL for the version of ``wallet`` (a row of `wallets`) at ``moment``; 0 before its creation.

    ``at_or_before``: events at the moment itself count.

    From the highest power of two to one, a step is taken if the event that it leads to is early
    enough. The event after the last one that was reached was looked at and was too late.
    """
    comparison = "<=" if at_or_before else "<"
    return f"""(
    WITH RECURSIVE search (step, version) AS (
        SELECT 1::bigint << 61, 0::bigint
        UNION ALL
        SELECT step >> 1, CASE
            WHEN version + step <= {wallet}.version AND (
                SELECT occurred_at {comparison} {moment} FROM wallet_events e
                WHERE e.wallet_id = {wallet}.id AND e.version = search.version + step)
            THEN version + step ELSE version END
        FROM search WHERE step > 0
    )
    SELECT version FROM search WHERE step = 0
)"""


def _state(version: str) -> str:
    return f"""
SELECT w.id::text, w.reference_id, w.currency, w.scale, w.created_at,
    w.version AS wallet_version, e.version, e.occurred_at AS updated_at, e.balance::text,
    e.pending_debit::text, e.pending_credit::text, coalesce(c.status, 'active') AS status, c.frozen,
    c.frozen_reason, coalesce(c.overdraft_limit, 0)::text AS overdraft_limit,
    CASE WHEN c.version IS NULL THEN first.metadata ELSE c.metadata END AS metadata
FROM wallets w
CROSS JOIN LATERAL (SELECT {version} AS version OFFSET 0) wanted
LEFT JOIN LATERAL (
    SELECT * FROM wallet_events WHERE wallet_id = w.id AND version = wanted.version OFFSET 0
) e ON true
LEFT JOIN LATERAL (
    SELECT * FROM wallet_changes
    WHERE wallet_id = w.id AND version <= e.version ORDER BY version DESC LIMIT 1
) c ON true
LEFT JOIN LATERAL (
    SELECT metadata FROM wallet_events WHERE wallet_id = w.id AND version = 1 OFFSET 0
) first ON true
WHERE w.id = $1::uuid
"""


AT_VERSION: Final = _state("$2::bigint")
AT_TIME: Final = _state(version_at("w", "$2::timestamptz"))


class PastWallet(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet as it was."""

    wallet: WalletView | None
    """None: it has not reached the version, or did not exist at the time."""
    wallet_version: int
    """The version that it is at now."""
    created_at: datetime


class WalletHistory:
    """Reads the journal. ``view``: a wallet's view, from a row that has its columns."""

    def __init__(self, reads: ReadPool, view: Callable[[Row], WalletView]) -> None:
        self._reads = reads
        self._view = view

    async def at_version(self, wallet_id: WalletId, version: int) -> PastWallet | None:
        """The wallet after ``version`` events; None if it doesn't exist."""
        return self._past(await self._reads.row(AT_VERSION, wallet_id, version))

    async def at_time(self, wallet_id: WalletId, moment: datetime) -> PastWallet | None:
        """The wallet after its last event at or before ``moment``; None if it doesn't exist."""
        return self._past(await self._reads.row(AT_TIME, wallet_id, moment))

    def _past(self, row: Row | None) -> PastWallet | None:
        if row is None:
            return None
        return PastWallet(
            wallet=self._view(row) if row["version"] is not None else None,
            wallet_version=row["wallet_version"],
            created_at=row["created_at"],
        )
