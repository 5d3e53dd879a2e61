"""Rebuilds a wallet with a long history in pieces, each a transaction of bounded size.

First the wallet's row is replaced by its state in the journal at the row's own version. Then its
transfers are replaced in the order of their creation, each by its state at the row's version. The
row is locked during a piece, so its version does not change; between two pieces the consumer goes
on. At any moment each transfer is either correct or as before, and no existing transfer is missing.

A row of a history that the journal lost has, until the last piece is done, a hash that no event
has. If the rebuild is interrupted, the next event of this wallet, or the auditor, starts it again.

A transfer may be settled millions of versions after its creation, and the journal has no index for
that. So the settlements are collected in a temporary table, which is extended before each piece.
"""

from typing import Final

import asyncpg
import asyncpg.pool

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy

_REPLACE_ROW: Final = """
INSERT INTO wallet_projections (wallet_id, reference_id, currency, scale, status, balance,
    pending_debit, pending_credit, version, metadata, created_at, updated_at, frozen, frozen_reason,
    overdraft_limit, hash, hash_version)
SELECT w.id, w.reference_id, w.currency, w.scale, coalesce(c.status, 'active'), e.balance,
    e.pending_debit, e.pending_credit, e.version,
    CASE WHEN c.version IS NULL THEN first.metadata ELSE c.metadata END, w.created_at,
    e.occurred_at, c.frozen, c.frozen_reason, coalesce(c.overdraft_limit, 0),
    CASE WHEN p.hash_version = e.version AND p.hash = e.hash OR e.hash IS NULL
        THEN coalesce(e.hash, '') ELSE '\\x00' END,
    e.version
FROM wallets w
CROSS JOIN LATERAL (
    SELECT * FROM wallet_events
    WHERE wallet_id = w.id AND version = coalesce(
        (SELECT p.version FROM wallet_projections p
            WHERE p.wallet_id = w.id AND p.version BETWEEN 1 AND w.version),
        w.version)
    OFFSET 0
) e
CROSS JOIN LATERAL (
    SELECT metadata FROM wallet_events WHERE wallet_id = w.id AND version = 1 OFFSET 0
) first
LEFT JOIN LATERAL (
    SELECT * FROM wallet_changes
    WHERE wallet_id = w.id AND version <= e.version ORDER BY version DESC LIMIT 1
) c ON true
LEFT JOIN LATERAL (SELECT * FROM wallet_projections WHERE wallet_id = w.id OFFSET 0) p ON true
WHERE w.id = $1::uuid
ON CONFLICT (wallet_id) DO UPDATE SET
    reference_id = excluded.reference_id, currency = excluded.currency, scale = excluded.scale,
    status = excluded.status, balance = excluded.balance, pending_debit = excluded.pending_debit,
    pending_credit = excluded.pending_credit, version = excluded.version,
    metadata = excluded.metadata, created_at = excluded.created_at,
    updated_at = excluded.updated_at, frozen = excluded.frozen,
    frozen_reason = excluded.frozen_reason, overdraft_limit = excluded.overdraft_limit,
    hash = excluded.hash, hash_version = excluded.hash_version
"""

# A row that a batch moved meanwhile (one of the previous release) has lost the mark already.
_FINISH: Final = """
UPDATE wallet_projections SET hash = coalesce(
    (SELECT hash FROM wallet_events WHERE wallet_id = $1::uuid AND version = $2), '')
WHERE wallet_id = $1::uuid AND version = $2 AND hash_version = $2 AND hash = '\\x00'
"""

_VERSION: Final = "SELECT version FROM wallet_projections WHERE wallet_id = $1::uuid"
_LOCK: Final = "SELECT version FROM wallet_projections WHERE wallet_id = $1::uuid FOR UPDATE"

_SETTLEMENTS: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS rebuilt_settlements (
    created_version bigint PRIMARY KEY, version bigint NOT NULL
)
"""

_COLLECT_SETTLEMENTS: Final = """
INSERT INTO rebuilt_settlements (created_version, version)
SELECT created_version, max(version) FROM wallet_events
WHERE wallet_id = $1::uuid AND version > $2 AND version <= $3 AND previous_status IS NOT NULL
GROUP BY created_version
ON CONFLICT (created_version) DO UPDATE SET version = excluded.version
"""

_REFUNDS: Final = """
CREATE TEMPORARY TABLE IF NOT EXISTS rebuilt_refunds (
    transfer_id uuid PRIMARY KEY, version bigint NOT NULL
)
"""

_COLLECT_REFUNDS: Final = """
INSERT INTO rebuilt_refunds (transfer_id, version)
SELECT refunds, max(version) FROM wallet_events
WHERE wallet_id = $1::uuid AND version > $2 AND version <= $3 AND refunds IS NOT NULL
GROUP BY refunds
ON CONFLICT (transfer_id) DO UPDATE SET version = excluded.version
"""

_REMOVE: Final = """
DELETE FROM transfer_projections
WHERE wallet_id = $1::uuid AND created_version > $2 AND created_version <= $3
"""

_REMOVE_BEYOND: Final = """
DELETE FROM transfer_projections WHERE wallet_id = $1::uuid AND created_version > $2
"""

# ``c``: the creating event; ``l``: the transfer's last event up to the row's version; ``r``: the
# last event of a refund of it.
_REPLACE: Final = """
INSERT INTO transfer_projections (wallet_id, transfer_id, type, status, amount, reference_id,
    metadata, failure_reason, created_at, settled_at, created_version, version, expires_at,
    on_expiry, completed_amount, refunds, refunded_amount, refund_pending_amount)
SELECT c.wallet_id, c.transfer_id, c.transfer_type,
    CASE WHEN l.type = 'transfer.partially_completed' THEN 'pending' ELSE substr(l.type, 10) END,
    c.amount, l.reference_id,
    l.metadata, l.failure_reason, c.occurred_at,
    CASE WHEN l.type NOT IN ('transfer.pending', 'transfer.partially_completed')
        THEN l.occurred_at END, c.version, l.version,
    c.expires_at, c.on_expiry, l.completed_amount, c.refunds, r.refunded_amount,
    r.refund_pending_amount
FROM wallet_events c
LEFT JOIN LATERAL (
    SELECT version FROM rebuilt_settlements
    WHERE created_version = c.version AND version <= $4 OFFSET 0
) s ON true
CROSS JOIN LATERAL (
    SELECT * FROM wallet_events
    WHERE wallet_id = c.wallet_id AND version = coalesce(s.version, c.version) OFFSET 0
) l
LEFT JOIN LATERAL (
    SELECT e.refunded_amount, e.refund_pending_amount FROM rebuilt_refunds f
    CROSS JOIN LATERAL (
        SELECT * FROM wallet_events
        WHERE wallet_id = c.wallet_id AND version = f.version OFFSET 0
    ) e
    WHERE f.transfer_id = c.transfer_id AND f.version <= $4 OFFSET 0
) r ON true
WHERE c.wallet_id = $1::uuid AND c.version > $2 AND c.version <= $3
    AND c.transfer_id IS NOT NULL AND c.previous_status IS NULL
ON CONFLICT (wallet_id, transfer_id) DO UPDATE SET
    type = excluded.type, status = excluded.status, amount = excluded.amount,
    reference_id = excluded.reference_id, metadata = excluded.metadata,
    failure_reason = excluded.failure_reason, created_at = excluded.created_at,
    settled_at = excluded.settled_at, created_version = excluded.created_version,
    version = excluded.version, expires_at = excluded.expires_at, on_expiry = excluded.on_expiry,
    completed_amount = excluded.completed_amount, refunds = excluded.refunds,
    refunded_amount = excluded.refunded_amount,
    refund_pending_amount = excluded.refund_pending_amount
"""


async def rebuild_in_pieces(connection: Connection, wallet_id: str, *, events_max: int) -> None:
    """Rebuild a wallet's projections from the journal, ``events_max`` events at a time."""
    await connection.execute(_SETTLEMENTS)
    await connection.execute(_REFUNDS)
    await connection.execute("TRUNCATE rebuilt_settlements, rebuilt_refunds")
    async with connection.transaction():
        await connection.fetchval(_LOCK, wallet_id)
        await connection.execute(_REPLACE_ROW, wallet_id)
        version = await connection.fetchval(_LOCK, wallet_id) or 0
        await connection.execute(_REMOVE_BEYOND, wallet_id, version)
    # Later events are applied after it, by the consumer or here.
    pieces = _Pieces(connection, wallet_id, events_max, until=version)
    while await pieces.replace_next():
        pass
    await connection.execute(_FINISH, wallet_id, version)
    await _catch_up(connection, wallet_id, events_max)


async def _catch_up(connection: Connection, wallet_id: str, events_max: int) -> None:
    """Apply the journal up to its current end, in case no consumer runs. Events written from now
    on are not waited for: writes may be as fast as these reads."""
    end = await connection.fetchval("SELECT version FROM wallets WHERE id = $1::uuid", wallet_id)
    while await connection.fetchval(_VERSION, wallet_id) < end:
        await connection.fetchval("SELECT catch_up($1::uuid, $2)", wallet_id, events_max)


class _Pieces:
    """Progress of the rebuild of one wallet."""

    def __init__(
        self, connection: Connection, wallet_id: str, events_max: int, *, until: int
    ) -> None:
        self._connection = connection
        self._wallet_id = wallet_id
        self._events_max = events_max
        self._until = until
        self._done = 0
        self._collected = 0
        """Version up to which settlements and refunds are collected."""

    async def replace_next(self) -> bool:
        """Replace the transfers of the next versions; False if these were the last."""
        version = await self._connection.fetchval(_VERSION, self._wallet_id)
        await self._collect_settlements(version or 0)
        async with self._connection.transaction():
            version = await self._connection.fetchval(_LOCK, self._wallet_id) or 0
            await self._collect_settlements(version)
            last = min(self._done + self._events_max, self._until)
            versions = (self._wallet_id, self._done, last)
            await self._connection.execute(_REMOVE, *versions)
            await self._connection.execute(_REPLACE, *versions, version)
        self._done = last
        return last < self._until

    async def _collect_settlements(self, version: int) -> None:
        while self._collected < version:
            last = min(self._collected + self._events_max, version)
            for collect in (_COLLECT_SETTLEMENTS, _COLLECT_REFUNDS):
                await self._connection.execute(collect, self._wallet_id, self._collected, last)
            self._collected = last
