"""The read side: projections of wallets and transfers, and the two functions that apply events.

Why: reads must not touch the tables of the write side. `project_batch` applies a batch of events in
one round trip and only in version order: a wallet's row moves only if the batch begins right after
(or before) its version, a transfer's row only forward. It returns the wallets whose events don't
connect; `catch_up` applies theirs from the journal. A rebuild uses it, too.

Revision ID: 0002
"""

from migrations.scripts import run_script

revision = "0002"
down_revision = "0001"

_TABLES = """
CREATE TABLE wallet_projections (
    wallet_id      uuid PRIMARY KEY,
    reference_id   text,
    currency       text NOT NULL,
    scale          smallint NOT NULL,
    status         text NOT NULL,
    balance        numeric(38, 0) NOT NULL,
    pending_debit  numeric(38, 0) NOT NULL,
    pending_credit numeric(38, 0) NOT NULL,
    version        bigint NOT NULL,
    metadata       json,
    created_at     timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX wallet_projections_by_reference ON wallet_projections (reference_id)
    WHERE reference_id IS NOT NULL;

CREATE TABLE transfer_projections (
    wallet_id       uuid NOT NULL,
    transfer_id     uuid NOT NULL,
    type            text NOT NULL,
    status          text NOT NULL,
    amount          numeric(38, 0) NOT NULL,
    reference_id    text,
    metadata        json,
    failure_reason  text,
    created_at      timestamptz NOT NULL,
    settled_at      timestamptz,
    created_version bigint NOT NULL,
    version         bigint NOT NULL,
    PRIMARY KEY (wallet_id, transfer_id)
) WITH (fillfactor = 90);
CREATE UNIQUE INDEX transfer_projections_in_order
    ON transfer_projections (wallet_id, created_version);
"""

_PROJECT_BATCH = """
CREATE FUNCTION project_batch(
    -- wallets that came to be
    n_id uuid[], n_reference_id text[], n_currency text[], n_scale smallint[], n_status text[],
    n_metadata text[], n_created_at timestamptz[],
    -- wallets: the first and last version in this batch, and what the last one left
    w_id uuid[], w_first bigint[], w_last bigint[], w_balance text[], w_pending_debit text[],
    w_pending_credit text[], w_updated_at timestamptz[],
    -- transfers that came to be, as the batch leaves them
    t_wallet_id uuid[], t_id uuid[], t_type text[], t_status text[], t_amount text[],
    t_reference_id text[], t_metadata text[], t_failure_reason text[],
    t_created_at timestamptz[], t_settled_at timestamptz[], t_created_version bigint[],
    t_version bigint[],
    -- transfers from before this batch, settled by it
    s_wallet_id uuid[], s_id uuid[], s_status text[], s_reference_id text[], s_metadata text[],
    s_failure_reason text[], s_settled_at timestamptz[], s_version bigint[]
) RETURNS SETOF uuid LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(n_id) > 0 THEN
        INSERT INTO wallet_projections (wallet_id, reference_id, currency, scale, status, balance,
            pending_debit, pending_credit, version, metadata, created_at, updated_at)
        SELECT id, reference_id, currency, scale, status, 0, 0, 0, 1, metadata::json,
            created_at, created_at
        FROM unnest(n_id, n_reference_id, n_currency, n_scale, n_status, n_metadata, n_created_at)
            AS n(id, reference_id, currency, scale, status, metadata, created_at)
        ON CONFLICT DO NOTHING;
    END IF;

    UPDATE wallet_projections p SET
        version = w.last, balance = w.balance::numeric, updated_at = w.updated_at,
        pending_debit = w.pending_debit::numeric, pending_credit = w.pending_credit::numeric
    FROM unnest(w_id, w_first, w_last, w_balance, w_pending_debit, w_pending_credit, w_updated_at)
        AS w(id, first, last, balance, pending_debit, pending_credit, updated_at)
    WHERE p.wallet_id = w.id AND p.version >= w.first - 1 AND p.version < w.last;

    IF cardinality(t_id) > 0 THEN
        INSERT INTO transfer_projections AS p (wallet_id, transfer_id, type, status, amount,
            reference_id, metadata, failure_reason, created_at, settled_at, created_version,
            version)
        SELECT wallet_id, id, type, status, amount::numeric, reference_id, metadata::json,
            failure_reason, created_at, settled_at, created_version, version
        FROM unnest(t_wallet_id, t_id, t_type, t_status, t_amount, t_reference_id, t_metadata,
            t_failure_reason, t_created_at, t_settled_at, t_created_version, t_version)
            AS t(wallet_id, id, type, status, amount, reference_id, metadata, failure_reason,
            created_at, settled_at, created_version, version)
        ON CONFLICT (wallet_id, transfer_id) DO UPDATE SET
            status = excluded.status, reference_id = excluded.reference_id,
            metadata = excluded.metadata, failure_reason = excluded.failure_reason,
            settled_at = excluded.settled_at, version = excluded.version
        WHERE p.version < excluded.version;
    END IF;

    IF cardinality(s_id) > 0 THEN
        UPDATE transfer_projections p SET
            status = s.status, reference_id = s.reference_id, metadata = s.metadata::json,
            failure_reason = s.failure_reason, settled_at = s.settled_at, version = s.version
        FROM unnest(s_wallet_id, s_id, s_status, s_reference_id, s_metadata, s_failure_reason,
            s_settled_at, s_version)
            AS s(wallet_id, id, status, reference_id, metadata, failure_reason, settled_at,
            version)
        WHERE p.wallet_id = s.wallet_id AND p.transfer_id = s.id AND p.version < s.version;
    END IF;

    -- What did not connect: events are missing before this batch's first.
    RETURN QUERY
        SELECT w.id FROM unnest(w_id, w_last) AS w(id, last)
        LEFT JOIN wallet_projections p ON p.wallet_id = w.id
        WHERE coalesce(p.version, 0) < w.last;
END $$;
"""

_CATCH_UP = """
CREATE FUNCTION catch_up(wallet uuid, events_max bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    at     bigint;
    target bigint;
BEGIN
    -- Folds up to events_max journal events that the projection lacks; true if more remain.
    INSERT INTO wallet_projections (wallet_id, reference_id, currency, scale, status, balance,
        pending_debit, pending_credit, version, metadata, created_at, updated_at)
    SELECT id, reference_id, currency, scale, status, 0, 0, 0, 0, metadata, created_at, created_at
    FROM wallets WHERE id = wallet
    ON CONFLICT DO NOTHING;

    SELECT version INTO at FROM wallet_projections WHERE wallet_id = wallet FOR UPDATE;
    IF at IS NULL THEN
        RETURN false;
    END IF;
    SELECT version INTO target FROM wallet_events
    WHERE wallet_id = wallet AND version > at AND version <= at + events_max
    ORDER BY version DESC LIMIT 1;
    IF target IS NULL THEN
        RETURN false;
    END IF;

    INSERT INTO transfer_projections AS p (wallet_id, transfer_id, type, status, amount,
        reference_id, metadata, created_at, settled_at, created_version, version)
    SELECT wallet_id, transfer_id, transfer_type, substr(type, 10), amount, reference_id,
        metadata, occurred_at, CASE WHEN type = 'transfer.completed' THEN occurred_at END,
        version, version
    FROM wallet_events e
    WHERE e.wallet_id = wallet AND e.version > at AND e.version <= target
        AND e.transfer_id IS NOT NULL AND e.previous_status IS NULL
    ON CONFLICT (wallet_id, transfer_id) DO UPDATE SET
        status = excluded.status, reference_id = excluded.reference_id,
        metadata = excluded.metadata, failure_reason = excluded.failure_reason,
        settled_at = excluded.settled_at, version = excluded.version
    WHERE p.version < excluded.version;

    UPDATE transfer_projections p SET
        status = substr(e.type, 10), reference_id = e.reference_id, metadata = e.metadata,
        failure_reason = e.failure_reason, settled_at = e.occurred_at, version = e.version
    FROM wallet_events e
    WHERE e.wallet_id = wallet AND e.version > at AND e.version <= target
        AND e.previous_status IS NOT NULL
        AND p.wallet_id = wallet AND p.transfer_id = e.transfer_id AND p.version < e.version;

    UPDATE wallet_projections p SET
        version = e.version, balance = e.balance, pending_debit = e.pending_debit,
        pending_credit = e.pending_credit, updated_at = e.occurred_at
    FROM wallet_events e
    WHERE e.wallet_id = wallet AND e.version = target AND p.wallet_id = wallet;

    RETURN EXISTS (SELECT 1 FROM wallet_events WHERE wallet_id = wallet AND version > target);
END $$;
"""


def upgrade() -> None:
    run_script(_TABLES)
    run_script(_PROJECT_BATCH, single_statement=True)
    run_script(_CATCH_UP, single_statement=True)


def downgrade() -> None:
    run_script("DROP FUNCTION catch_up")
    run_script("DROP FUNCTION project_batch")
    run_script("DROP TABLE transfer_projections, wallet_projections")
