"""The SQL of the row-locking baseline: the same for the web service and, inlined, for pgbench."""

from typing import Final

LOCK: Final = """
SELECT version, balance::bigint, pending_debit::bigint, pending_credit::bigint
FROM wallets WHERE id = $1 FOR UPDATE
"""

# One statement writes all four rows: fewer round trips under the lock than most people's code has.
WRITE: Final = """
WITH transfer AS (
    INSERT INTO transfers (wallet_id, id, type, status, amount, created_version, created_at,
        settled_at)
    VALUES ($1, $6, $7, $8, $9::bigint, $2, now(), CASE WHEN $8 = 'completed' THEN now() END)
), event AS (
    INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
        pending_credit, transfer_id, transfer_type, amount)
    VALUES ($1, $2, 'transfer.' || $8, now(), $3::bigint, $4::bigint, $5::bigint, $6, $7,
        $9::bigint)
), unpublished AS (
    INSERT INTO outbox (wallet_id, first_version, last_version) VALUES ($1, $2, $2)
)
UPDATE wallets SET version = $2, balance = $3::bigint, pending_debit = $4::bigint,
    pending_credit = $5::bigint, updated_at = now()
WHERE id = $1
"""
