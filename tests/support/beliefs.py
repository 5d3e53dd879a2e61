"""What the planner believes about tables: the statistics of other content than they have."""

import asyncpg

_GROWN = """
WITH w AS (
    INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit, version,
        created_at, updated_at)
    SELECT gen_random_uuid(), 'USD', 2, 0, 0, 0, 5, now(), now() FROM generate_series(1, $1)
    RETURNING id
), r AS (
    INSERT INTO wallet_references SELECT id::text, id FROM w
), t AS (
    INSERT INTO transfers (wallet_id, id, type, status, amount, created_version, created_at)
    SELECT id, gen_random_uuid(), 'debit', 'completed', 1, v, now() FROM w, generate_series(2, 5) v
), e AS (
    INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
        pending_credit)
    SELECT id, v, 'wallet.created', now(), 0, 0, 0 FROM w, generate_series(1, 5) v
), k AS (
    INSERT INTO idempotency_keys
    SELECT id, v::text, '', '', false, '', v, now() FROM w, generate_series(1, 5) v
), p AS (
    INSERT INTO wallet_projections
    SELECT id, NULL, 'USD', 2, 'active', 0, 0, 0, 5, NULL, now(), now() FROM w
), q AS (
    INSERT INTO transfer_projections (wallet_id, transfer_id, type, status, amount, created_at,
        created_version, version)
    SELECT id, gen_random_uuid(), 'debit', 'completed', 1, now(), v, v
    FROM w, generate_series(2, 5) v
), x AS (
    INSERT INTO transfer_expiries
    SELECT id, gen_random_uuid(), now() FROM w, generate_series(1, 5) v
)
INSERT INTO outbox SELECT id, v, v FROM w, generate_series(1, 5) v
"""

TABLES = (
    "wallets, wallet_references, transfers, wallet_events, idempotency_keys, outbox, "
    "wallet_projections, transfer_projections, transfer_expiries"
)

Believed = str
"""The statistics of every table, independent of its content."""

BELIEFS: tuple[Believed, ...] = ("empty", "young", "large")


async def believe(database: str, belief: Believed) -> None:
    """Fill or empty the tables, then run ANALYZE."""
    rows = {"empty": 0, "young": 3, "large": 2_000}[belief]
    plain = await asyncpg.connect(database)
    try:
        for table in TABLES.split(", "):
            await plain.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        if rows:
            await plain.execute(_GROWN, rows)
        else:
            # Only the outbox can have been full and be empty: its pages are there, with nothing in.
            await plain.execute(
                "INSERT INTO outbox SELECT gen_random_uuid(), 1, 1 FROM generate_series(1, 2000)"
            )
            await plain.execute("DELETE FROM outbox")
        # Autovacuum analyzes no table before it has rows; the outbox is analyzed all the time.
        for table in TABLES.split(", ") if rows else ["outbox"]:
            await plain.execute(f"VACUUM (ANALYZE, TRUNCATE off) {table}")
        if rows == 3:
            await plain.execute(_GROWN, 200)
    finally:
        await plain.close()
