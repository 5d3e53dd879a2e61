"""A look at the tables from outside, a few wallets at a time: do they contradict each other.

Every wallet's row must equal what its last journal entry says, and its projection, where that is
at the same version, must equal both. A projection may be behind, but not for long: one that still
lacks an event after a minute stands still, be it that the stream lost its last event, or that
nobody follows the stream. One statement sees all three as of one moment, so a
wallet that is being written never looks wrong. A round over all wallets takes as long as it takes:
its load is bounded, not its length. The whole history is checked by `verification`.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

import asyncpg
import structlog

from projections.statistics import AuditStatistics

_log = structlog.get_logger(__name__)

PERIOD_S: Final = 5.0
"""How often the auditor looks."""

WALLETS_MAX: Final = 500
"""Wallets compared in one look: some 10 ms of the database's time."""

STANDS_STILL_S: Final = 60.0
"""A projection that lacks an event for so long does not follow."""

_NAMED_MAX: Final = 5
"""Wallets of one look that the log names."""

_FIRST: Final = "00000000-0000-0000-0000-000000000000"

_COMPARE: Final = """
SELECT w.id::text,
    e.version IS NULL
    OR (w.balance, w.pending_debit, w.pending_credit)
        IS DISTINCT FROM (e.balance, e.pending_debit, e.pending_credit)
    OR EXISTS (
        SELECT FROM wallet_events later WHERE later.wallet_id = w.id AND later.version > w.version
    )
    OR p.version > w.version
    OR (p.version = w.version
        AND (w.balance, w.pending_debit, w.pending_credit)
            IS DISTINCT FROM (p.balance, p.pending_debit, p.pending_credit)) AS contradicts,
    EXISTS (
        SELECT FROM wallet_events missing
        WHERE missing.wallet_id = w.id AND missing.version = coalesce(p.version, 0) + 1
            AND missing.occurred_at < clock_timestamp() - make_interval(secs => $3)
    ) AS stands_still
FROM (SELECT * FROM wallets WHERE id > $1::uuid ORDER BY id LIMIT $2) w
LEFT JOIN LATERAL (
    SELECT * FROM wallet_events WHERE wallet_id = w.id AND version = w.version OFFSET 0
) e ON true
LEFT JOIN LATERAL (SELECT * FROM wallet_projections WHERE wallet_id = w.id OFFSET 0) p ON true
ORDER BY w.id
"""

_OUTBOX: Final = "SELECT created_at FROM outbox ORDER BY created_at LIMIT 1"
_DEAD_LETTERS: Final = "SELECT count(*) FROM projection_dead_letters"

_FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Auditor:
    """Compares wallets round after round. ``run`` is its task."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._cursor = _FIRST
        self._found_this_round = 0
        self._drift = 0
        self._still_found = 0
        self._still = 0
        self._wallets = 0
        self._rounds = 0
        self._failures = 0
        self._dead_letters = 0
        self._outbox_since: datetime | None = None

    async def run(self) -> None:
        """Look now and then until cancelled; an outage of Postgres is waited out."""
        while True:
            try:
                await self.check_next_page()
            except _FAILURES as failure:
                self._failures += 1
                _log.warning("audit interrupted", error=f"{type(failure).__name__}: {failure}")
            await asyncio.sleep(PERIOD_S)

    async def check_next_page(self) -> None:
        """Compare the next wallets, and see what waits or was put aside."""
        rows = await self._pool.fetch(_COMPARE, self._cursor, WALLETS_MAX, STANDS_STILL_S)
        for wallet_id, contradicts, _ in rows:
            if contradicts:
                self._found_this_round += 1
                _log.error("audit mismatch", wallet_id=wallet_id)
        self._note_still([wallet_id for wallet_id, _, stands_still in rows if stands_still])
        self._wallets += len(rows)
        if len(rows) < WALLETS_MAX:
            self._cursor, self._drift, self._found_this_round = _FIRST, self._found_this_round, 0
            self._still, self._still_found = self._still_found, 0
            self._rounds += 1
        else:
            self._cursor = rows[-1][0]
        self._dead_letters = await self._pool.fetchval(_DEAD_LETTERS)
        self._outbox_since = await self._pool.fetchval(_OUTBOX)

    def _note_still(self, wallets: list[str]) -> None:
        self._still_found += len(wallets)
        if wallets:
            # All of them, if nobody follows the stream: some names say as much.
            _log.error("projections stalled", count=len(wallets), some=wallets[:_NAMED_MAX])

    def statistics(self) -> AuditStatistics:
        since = self._outbox_since
        waited_s = (datetime.now(UTC) - since).total_seconds() if since is not None else 0.0
        return AuditStatistics(
            mismatched_wallets=max(self._drift, self._found_this_round),
            standing_still=max(self._still, self._still_found),
            wallets=self._wallets,
            rounds=self._rounds,
            failures=self._failures,
            dead_letters=self._dead_letters,
            outbox_age_s=max(waited_s, 0.0),
        )
