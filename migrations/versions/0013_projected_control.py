"""Projections have a wallet's status, direction of a freeze, overdraft limit and present metadata.

Why: these may change now, and a read must show them without a look at the write side.
`project_batch` takes them in columns of their own, which are empty in nearly every batch.
`catch_up` takes them from `wallet_changes`, and a wallet's metadata from its creation, not from
today's row.

Old consumers call the function with its 36 parameters during an upgrade. They can't read the new
types of events, so they leave a gap, which `catch_up` closes from the journal.

The column has a constant default, so the table is not rewritten.

Revision ID: 0013
"""

from importlib import import_module
from typing import Final

from migrations.scripts import run_script

revision = "0013"
down_revision = "0012"

_COLUMNS: Final = """
ALTER TABLE wallet_projections
    ADD COLUMN frozen text,
    ADD COLUMN frozen_reason text,
    ADD COLUMN overdraft_limit numeric(38, 0) NOT NULL DEFAULT 0;
ALTER TABLE wallet_projections
    ALTER COLUMN frozen SET STATISTICS 10,
    ALTER COLUMN frozen_reason SET STATISTICS 10,
    ALTER COLUMN overdraft_limit SET STATISTICS 10;
"""

_PROJECT_BATCH: Final = """
CREATE FUNCTION project_batch(
    -- wallets that came to be
    n_id uuid[], n_reference_id text[], n_currency text[], n_scale smallint[], n_status text[],
    n_metadata text[], n_created_at timestamptz[],
    -- wallets: the first and last version in this batch, what the last one left, the hash before
    -- the first one and that of the last one (empty: recorded before the chain)
    w_id uuid[], w_first bigint[], w_last bigint[], w_balance text[], w_pending_debit text[],
    w_pending_credit text[], w_updated_at timestamptz[], w_previous_hash bytea[], w_hash bytea[],
    -- transfers that came to be, as the batch leaves them
    t_wallet_id uuid[], t_id uuid[], t_type text[], t_status text[], t_amount text[],
    t_reference_id text[], t_metadata text[], t_failure_reason text[],
    t_created_at timestamptz[], t_settled_at timestamptz[], t_created_version bigint[],
    t_version bigint[],
    -- transfers from before this batch, settled by it
    s_wallet_id uuid[], s_id uuid[], s_status text[], s_reference_id text[], s_metadata text[],
    s_failure_reason text[], s_settled_at timestamptz[], s_version bigint[],
    -- what the last of its own events says of a wallet
    c_id uuid[], c_status text[], c_frozen text[], c_frozen_reason text[],
    c_overdraft_limit text[], c_metadata text[],
    -- the wallets of which nothing was applied: 'gap' (events are missing before the batch's
    -- first), 'lost_events' (the journal does not have the batch's last), 'lost_history' (it does
    -- not have the event that the projection is at)
    OUT refused_id uuid, OUT reason text
) RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
    w       record;
    s       record;
    head    record;
    sound   boolean;
    skipped uuid[] := '{}';
BEGIN
    -- At version 0, where the loop moves them from.
    IF cardinality(n_id) > 0 THEN
        INSERT INTO wallet_projections (wallet_id, reference_id, currency, scale, status, balance,
            pending_debit, pending_credit, version, metadata, created_at, updated_at)
        SELECT id, reference_id, currency, scale, status, 0, 0, 0, 0, metadata::json,
            created_at, created_at
        FROM unnest(n_id, n_reference_id, n_currency, n_scale, n_status, n_metadata, n_created_at)
            AS n(id, reference_id, currency, scale, status, metadata, created_at)
        ON CONFLICT DO NOTHING;
    END IF;

    FOR w IN
        SELECT l.*, e.version IS NOT NULL AS recorded
        FROM unnest(w_id, w_first, w_last, w_balance, w_pending_debit, w_pending_credit,
            w_updated_at, w_previous_hash, w_hash)
            AS l(id, first, last, balance, pending_debit, pending_credit, updated_at,
            previous_hash, hash)
        LEFT JOIN LATERAL (
            SELECT version FROM wallet_events
            WHERE wallet_id = l.id AND version = l.last AND coalesce(hash, '') = l.hash OFFSET 0
        ) e ON true
        ORDER BY l.id
    LOOP
        IF w.recorded THEN
            UPDATE wallet_projections SET
                version = w.last, balance = w.balance::numeric, updated_at = w.updated_at,
                pending_debit = w.pending_debit::numeric,
                pending_credit = w.pending_credit::numeric, hash = w.hash, hash_version = w.last
            WHERE wallet_id = w.id AND version = w.first - 1
                AND (hash = w.previous_hash OR hash = '' OR hash_version <> version
                    OR w.previous_hash = '');
            CONTINUE WHEN FOUND;
        END IF;

        -- Rare from here on: a repetition, a gap, or a history that was lost.
        SELECT version, CASE WHEN hash_version = version THEN hash ELSE '' END AS hash INTO head
        FROM wallet_projections WHERE wallet_id = w.id FOR UPDATE;
        sound := coalesce(head.version, 0) = 0 OR EXISTS (
            SELECT FROM wallet_events WHERE wallet_id = w.id AND version = head.version
                AND (head.hash = '' OR hash = head.hash));
        reason := CASE
            WHEN NOT sound THEN 'lost_history'
            -- A row without a hash may be of the history that this event belongs to.
            WHEN NOT w.recorded AND head.version > 0 AND head.hash = '' THEN 'lost_history'
            WHEN NOT w.recorded THEN 'lost_events'
            WHEN coalesce(head.version, 0) < w.first THEN 'gap'
        END;
        IF reason IS NULL AND head.version < w.last THEN
            -- The batch repeats some events and continues: it contains the row's version.
            UPDATE wallet_projections SET
                version = w.last, balance = w.balance::numeric, updated_at = w.updated_at,
                pending_debit = w.pending_debit::numeric,
                pending_credit = w.pending_credit::numeric, hash = w.hash, hash_version = w.last
            WHERE wallet_id = w.id;
            CONTINUE;
        END IF;
        skipped := skipped || w.id;
        IF reason IS NOT NULL THEN
            IF head.version = 0 THEN
                DELETE FROM wallet_projections WHERE wallet_id = w.id;
            END IF;
            refused_id := w.id;
            RETURN NEXT;
        END IF;
    END LOOP;

    FOR s IN
        SELECT * FROM unnest(c_id, c_status, c_frozen, c_frozen_reason, c_overdraft_limit,
            c_metadata) AS c(id, status, frozen, frozen_reason, overdraft_limit, metadata)
        WHERE id <> ALL (skipped) ORDER BY id
    LOOP
        UPDATE wallet_projections SET status = s.status, frozen = s.frozen,
            frozen_reason = s.frozen_reason, overdraft_limit = s.overdraft_limit::numeric,
            metadata = s.metadata::json
        WHERE wallet_id = s.id;
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
        WHERE wallet_id <> ALL (skipped)
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
        WHERE wallet_id <> ALL (skipped)
        ORDER BY wallet_id, id
    LOOP
        UPDATE transfer_projections SET
            status = s.status, reference_id = s.reference_id, metadata = s.metadata::json,
            failure_reason = s.failure_reason, settled_at = s.settled_at, version = s.version
        WHERE wallet_id = s.wallet_id AND transfer_id = s.id AND version < s.version;
    END LOOP;
END $$;
"""

_CATCH_UP: Final = """
CREATE OR REPLACE FUNCTION catch_up(wallet uuid, events_max bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    at     bigint;
    target bigint;
    e      record;
BEGIN
    -- Folds up to events_max journal events that the projection lacks; true if more remain.
    -- As the wallet was created: it may have changed since.
    INSERT INTO wallet_projections (wallet_id, reference_id, currency, scale, status, balance,
        pending_debit, pending_credit, version, metadata, created_at, updated_at)
    SELECT id, reference_id, currency, scale, 'active', 0, 0, 0, 0,
        (SELECT metadata FROM wallet_events WHERE wallet_id = wallet AND version = 1),
        created_at, created_at
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
        (version, balance, pending_debit, pending_credit, updated_at, hash, hash_version) = (
            SELECT version, balance, pending_debit, pending_credit, occurred_at,
                coalesce(hash, ''), version
            FROM wallet_events WHERE wallet_id = wallet AND version = target)
    WHERE wallet_id = wallet;

    SELECT * INTO e FROM wallet_changes
    WHERE wallet_id = wallet AND version > at AND version <= target
    ORDER BY version DESC LIMIT 1;
    IF FOUND THEN
        UPDATE wallet_projections SET status = e.status, frozen = e.frozen,
            frozen_reason = e.frozen_reason, overdraft_limit = e.overdraft_limit,
            metadata = e.metadata
        WHERE wallet_id = wallet;
    END IF;

    RETURN EXISTS (SELECT 1 FROM wallet_events WHERE wallet_id = wallet AND version > target);
END $$;
"""

_NEW_PARAMETERS: Final = 42


def upgrade() -> None:
    run_script(_COLUMNS)
    run_script(_PROJECT_BATCH, single_statement=True)
    run_script(_CATCH_UP, single_statement=True)


def downgrade() -> None:
    run_script(_DROP_NEW, single_statement=True)
    former = import_module("migrations.versions.0009_projected_hashes")
    run_script(former._CATCH_UP, single_statement=True)
    run_script(
        "ALTER TABLE wallet_projections DROP COLUMN frozen, DROP COLUMN frozen_reason, "
        "DROP COLUMN overdraft_limit"
    )


_DROP_NEW: Final = f"""
DO $$ BEGIN
    EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc
        WHERE proname = 'project_batch' AND pronargs = {_NEW_PARAMETERS});
END $$
"""
