"""The read side's functions, each statement with one plan.

Why: a join between a list and a table is planned by the table's statistics. If they say that it is
empty, as for any new table, the planner scans the whole list once per row. Statements that change
rows now find one row by its key, in key order; those that only read use a subquery that runs once
per list element. Nothing else changes: the previous version of the service calls the same
functions.

Revision ID: 0007
"""

from importlib import import_module

from migrations.scripts import run_script

revision = "0007"
down_revision = "0006"

_PROJECT_BATCH = """
CREATE OR REPLACE FUNCTION project_batch(
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
DECLARE
    w record;
    s record;
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

    FOR w IN
        SELECT * FROM unnest(w_id, w_first, w_last, w_balance, w_pending_debit, w_pending_credit,
            w_updated_at)
            AS w(id, first, last, balance, pending_debit, pending_credit, updated_at)
        ORDER BY id
    LOOP
        UPDATE wallet_projections SET
            version = w.last, balance = w.balance::numeric, updated_at = w.updated_at,
            pending_debit = w.pending_debit::numeric, pending_credit = w.pending_credit::numeric
        WHERE wallet_id = w.id AND version >= w.first - 1 AND version < w.last;
    END LOOP;

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

    FOR s IN
        SELECT * FROM unnest(s_wallet_id, s_id, s_status, s_reference_id, s_metadata,
            s_failure_reason, s_settled_at, s_version)
            AS s(wallet_id, id, status, reference_id, metadata, failure_reason, settled_at,
            version)
        ORDER BY wallet_id, id
    LOOP
        UPDATE transfer_projections SET
            status = s.status, reference_id = s.reference_id, metadata = s.metadata::json,
            failure_reason = s.failure_reason, settled_at = s.settled_at, version = s.version
        WHERE wallet_id = s.wallet_id AND transfer_id = s.id AND version < s.version;
    END LOOP;

    -- What did not connect: events are missing before this batch's first.
    RETURN QUERY
        SELECT l.id FROM unnest(w_id, w_last) AS l(id, last)
        LEFT JOIN LATERAL (
            SELECT version FROM wallet_projections WHERE wallet_id = l.id OFFSET 0
        ) p ON true
        WHERE coalesce(p.version, 0) < l.last;
END $$;
"""

_CATCH_UP = """
CREATE OR REPLACE FUNCTION catch_up(wallet uuid, events_max bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    at     bigint;
    target bigint;
    e      record;
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
    FROM wallet_events
    WHERE wallet_id = wallet AND version > at AND version <= target
        AND transfer_id IS NOT NULL AND previous_status IS NULL
    ON CONFLICT (wallet_id, transfer_id) DO UPDATE SET
        status = excluded.status, reference_id = excluded.reference_id,
        metadata = excluded.metadata, failure_reason = excluded.failure_reason,
        settled_at = excluded.settled_at, version = excluded.version
    WHERE p.version < excluded.version;

    FOR e IN
        SELECT * FROM wallet_events
        WHERE wallet_id = wallet AND version > at AND version <= target
            AND previous_status IS NOT NULL
        ORDER BY version
    LOOP
        UPDATE transfer_projections SET
            status = substr(e.type, 10), reference_id = e.reference_id, metadata = e.metadata,
            failure_reason = e.failure_reason, settled_at = e.occurred_at, version = e.version
        WHERE wallet_id = wallet AND transfer_id = e.transfer_id AND version < e.version;
    END LOOP;

    UPDATE wallet_projections SET
        (version, balance, pending_debit, pending_credit, updated_at) = (
            SELECT version, balance, pending_debit, pending_credit, occurred_at
            FROM wallet_events WHERE wallet_id = wallet AND version = target)
    WHERE wallet_id = wallet;

    RETURN EXISTS (SELECT 1 FROM wallet_events WHERE wallet_id = wallet AND version > target);
END $$;
"""


def upgrade() -> None:
    run_script(_PROJECT_BATCH, single_statement=True)
    run_script(_CATCH_UP, single_statement=True)


def downgrade() -> None:
    former = import_module("migrations.versions.0002_read_side")
    for function in (former._PROJECT_BATCH, former._CATCH_UP):
        run_script(
            function.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION"), single_statement=True
        )
