"""Online consistency check: compares wallets, journal and projections, one page at a time.

Every wallet row must equal its last journal entry, and its projection, if it is at the same
version, must equal both. A projection may lag briefly. One that still lacks an event after a
minute is stalled: the stream lost the event, or no consumer follows the stream. One SQL statement
reads all three in one snapshot, so a concurrent write never looks like a mismatch. The load of a
round over all wallets is bounded; its duration is not. `verification` checks the whole history.

A projection of a history that the journal lost (it is ahead of the journal, or has another hash) is
taken anew from the journal. A projection that differs in another way is evidence of a bug, and is
only reported.
"""

import asyncio
from datetime import UTC, datetime
from typing import Final

import asyncpg
import structlog

from projections.statistics import AuditStatistics
from projections.store import ProjectionStore
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

PERIOD_S: Final = 5.0
"""Interval between two pages."""

WALLETS_MAX: Final = 500
"""Wallets compared per page: about 10 ms of database time."""

STANDS_STILL_S: Final = 60.0
"""A projection that lacks an event for longer than this is stalled."""

_LOGGED_WALLETS_MAX: Final = 5
"""Stalled wallets listed in one log line."""

_NIL_UUID: Final = "00000000-0000-0000-0000-000000000000"
_LAST_UUID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"

_COMPARE: Final = """
SELECT w.id::text,
    e.version IS NULL
    OR (w.balance, w.pending_debit, w.pending_credit)
        IS DISTINCT FROM (e.balance, e.pending_debit, e.pending_credit)
    OR EXISTS (
        SELECT FROM wallet_events later WHERE later.wallet_id = w.id AND later.version > w.version
    )
    OR (w.hash_version = w.version AND w.hash <> e.hash)
    OR (p.version = w.version AND (p.hash_version < p.version OR p.hash IN ('', w.hash))
        AND (w.balance, w.pending_debit, w.pending_credit, w.status, w.frozen,
                w.overdraft_limit)
            IS DISTINCT FROM (p.balance, p.pending_debit, p.pending_credit, p.status, p.frozen,
                p.overdraft_limit)) AS contradicts,
    EXISTS (
        SELECT FROM wallet_events missing
        WHERE missing.wallet_id = w.id AND missing.version = coalesce(p.version, 0) + 1
            AND missing.occurred_at < clock_timestamp() - make_interval(secs => $3)
    ) AS stands_still,
    p.version > w.version
    OR (p.version > 0 AND p.hash_version = p.version AND p.hash <> ''
        AND at_projection.hash IS DISTINCT FROM p.hash) AS is_lost
FROM (SELECT * FROM wallets WHERE id > $1::uuid ORDER BY id LIMIT $2) w
LEFT JOIN LATERAL (
    SELECT * FROM wallet_events WHERE wallet_id = w.id AND version = w.version OFFSET 0
) e ON true
LEFT JOIN LATERAL (SELECT * FROM wallet_projections WHERE wallet_id = w.id OFFSET 0) p ON true
LEFT JOIN LATERAL (
    SELECT hash FROM wallet_events WHERE wallet_id = w.id AND version = p.version OFFSET 0
) at_projection ON true
ORDER BY w.id
"""

# Wallets that the journal lost, up to the end of the page.
_WITHOUT_WALLET: Final = """
SELECT p.wallet_id::text FROM (
    SELECT wallet_id FROM wallet_projections
    WHERE wallet_id > $1::uuid AND wallet_id <= $2::uuid ORDER BY wallet_id
) p
LEFT JOIN LATERAL (SELECT id FROM wallets WHERE id = p.wallet_id OFFSET 0) w ON true
WHERE w.id IS NULL LIMIT $3
"""

_OUTBOX: Final = "SELECT created_at FROM outbox ORDER BY created_at LIMIT 1"
_DEAD_LETTERS: Final = "SELECT count(*) FROM projection_dead_letters"
_FORKED_WALLETS: Final = "SELECT count(*) FROM forked_wallets"

_FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class Auditor:
    """Compares all wallets, round after round. ``run`` is its background task."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._store = ProjectionStore(pool)
        self._retaken = 0
        self._cursor = _NIL_UUID
        self._found_this_round = 0
        self._drift = 0
        self._stalled_this_round = 0
        self._stalled = 0
        self._wallets = 0
        self._rounds = 0
        self._failures = 0
        self._dead_letters = 0
        self._forked_wallets = 0
        self._outbox_since: datetime | None = None

    async def run(self) -> None:
        """Check a page every ``PERIOD_S`` until cancelled; retry after a Postgres failure."""
        while True:
            try:
                await self.check_next_page()
            except _FAILURES as failure:
                self._failures += 1
                _log.warning("audit interrupted", error=f"{type(failure).__name__}: {failure}")
            await asyncio.sleep(PERIOD_S)

    async def check_next_page(self) -> None:
        """Compare the next page of wallets, and take anew the projections of a lost history; read
        the outbox age and the dead-letter count."""
        rows = await self._pool.fetch(_COMPARE, self._cursor, WALLETS_MAX, STANDS_STILL_S)
        for wallet_id, contradicts, _, _ in rows:
            if contradicts:
                self._found_this_round += 1
                _log.error("audit mismatch", wallet_id=wallet_id)
        await self._catch_up([row[0] for row in rows if row[2]])
        await self._retake([row[0] for row in rows if row[3]])
        until = rows[-1][0] if len(rows) == WALLETS_MAX else _LAST_UUID
        lost = await self._pool.fetch(_WITHOUT_WALLET, self._cursor, until, WALLETS_MAX)
        await self._retake([row[0] for row in lost])
        self._wallets += len(rows)
        if len(rows) < WALLETS_MAX:
            self._cursor, self._drift, self._found_this_round = _NIL_UUID, self._found_this_round, 0
            self._stalled, self._stalled_this_round = self._stalled_this_round, 0
            self._rounds += 1
        else:
            self._cursor = rows[-1][0]
        self._dead_letters = await self._pool.fetchval(_DEAD_LETTERS)
        self._forked_wallets = await self._pool.fetchval(_FORKED_WALLETS)
        self._outbox_since = await self._pool.fetchval(_OUTBOX)

    async def _retake(self, wallets: list[str]) -> None:
        for wallet_id in wallets:
            _log.error("audit found a lost history", wallet_id=wallet_id)
            await self._store.retake(WalletId(wallet_id))
            self._retaken += 1

    async def _catch_up(self, wallets: list[str]) -> None:
        """Apply what no consumer will: a database that was put back has projections that lack what
        their consumer acknowledged."""
        self._record_stalled(wallets)
        for wallet_id in wallets:
            await self._store.catch_up(WalletId(wallet_id))

    def _record_stalled(self, wallets: list[str]) -> None:
        self._stalled_this_round += len(wallets)
        if wallets:
            # All wallets stall if no consumer runs: log only a few ids.
            _log.error(
                "projections stalled", count=len(wallets), some=wallets[:_LOGGED_WALLETS_MAX]
            )

    def statistics(self) -> AuditStatistics:
        oldest = self._outbox_since
        age_s = (datetime.now(UTC) - oldest).total_seconds() if oldest is not None else 0.0
        return AuditStatistics(
            mismatched_wallets=max(self._drift, self._found_this_round),
            standing_still=max(self._stalled, self._stalled_this_round),
            retaken=self._retaken,
            wallets=self._wallets,
            rounds=self._rounds,
            failures=self._failures,
            dead_letters=self._dead_letters,
            outbox_age_s=max(age_s, 0.0),
            forked_wallets=self._forked_wallets,
        )
