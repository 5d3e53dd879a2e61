"""Refusals that bind earlier deliveries, locks in key order, and confirmed replays.

Why:

- A command that is delivered a second time may be refused while its first delivery is still
  pending: in an open transaction, in a socket, in the mailbox of a live shard. The refusal is
  correct only if the first delivery can't be applied any more. `refused_deliveries` stores it, in
  the transaction of the refusal; a later write of a transfer with that id is rejected (WV003). Both
  lock the wallet's row, so one of them sees the other.
- Rows are locked in key order. Two shards that own the same wallets for a while then wait for each
  other and don't deadlock.
- A conflict's detail names its wallets, so that the others don't have to wait.
- ``confirm``: an answer of the batch depends on what was read. It must wait until a synchronous
  standby has what was read, so something is written and its replication awaited.

Old shards call the function with its 36 parameters during an upgrade. They can't write what was
refused permanently, lock in the same order, and wait for open transactions; they record no
refusals.

Revision ID: 0006
"""

from importlib import import_module
from typing import Final

from migrations.scripts import run_script

revision = "0006"
down_revision = "0005"

_TABLES: Final = """
CREATE TABLE refused_deliveries (
    wallet_id   uuid NOT NULL,
    transfer_id uuid NOT NULL,
    answer      text NOT NULL,
    refused_at  timestamptz NOT NULL,
    PRIMARY KEY (wallet_id, transfer_id)
);
"""

_COMMIT_BATCH: Final = """
CREATE FUNCTION commit_batch(
    now              timestamptz,
    -- wallets: what each was decided on, and what it becomes (version = expected: only checked);
    -- by id, so that rows are locked in that order, and those that come to be after the others
    w_id             uuid[],
    w_expected       bigint[],
    w_version        bigint[],
    w_balance        text[],
    w_pending_debit  text[],
    w_pending_credit text[],
    -- more of the wallets that come to be (expected version 0), in the order that they have above
    n_id             uuid[],
    n_currency       text[],
    n_scale          smallint[],
    n_reference_id   text[],
    n_metadata       text[],
    -- events, in order
    e_wallet_id      uuid[],
    e_version        bigint[],
    e_type           text[],
    e_balance        text[],
    e_pending_debit  text[],
    e_pending_credit text[],
    e_transfer_id    uuid[],
    e_transfer_type  text[],
    e_previous       text[],
    e_amount         text[],
    e_created_at     timestamptz[],
    e_created_version bigint[],
    e_failure_reason text[],
    e_reference_id   text[],
    e_metadata       text[],
    e_made_by        text[],
    settlements      integer,
    -- idempotency keys and their answers; by wallet and key
    k_wallet_id      uuid[],
    k_key            text[],
    k_fingerprint    bytea[],
    k_request_id     text[],
    k_refused        boolean[],
    k_answer         text[],
    k_version        bigint[],
    -- transfers that must never be written, though an earlier delivery may still try
    r_wallet_id      uuid[],
    r_transfer_id    uuid[],
    r_answer         text[],
    -- whether the batch answers from what was read
    confirm          boolean
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    existing integer := cardinality(w_id) - cardinality(n_id);
    touched integer;
    conflicting text;
BEGIN
    -- A transaction of an earlier delivery may be open: wait for its end before reading versions.
    IF cardinality(r_wallet_id) > 0 THEN
        PERFORM 1 FROM wallets w WHERE w.id = ANY (w_id) ORDER BY w.id FOR NO KEY UPDATE;
    END IF;

    -- Wallets first: a conflict found here costs least. (INV-5)
    IF existing > 0 THEN
        UPDATE wallets w SET
            version = i.version, balance = i.balance::numeric, updated_at = now,
            pending_debit = i.pending_debit::numeric, pending_credit = i.pending_credit::numeric
        FROM unnest(w_id, w_expected, w_version, w_balance, w_pending_debit, w_pending_credit)
            AS i(id, expected, version, balance, pending_debit, pending_credit)
        WHERE w.id = i.id AND w.version = i.expected AND i.version > i.expected;
        GET DIAGNOSTICS touched = ROW_COUNT;

        -- Wallets that were only refused: their answer, too, must rest on the current version.
        touched := touched + (
            SELECT count(*) FROM wallets w
            JOIN unnest(w_id, w_expected, w_version) AS i(id, expected, version) ON w.id = i.id
            WHERE w.version = i.expected AND i.version = i.expected);
        IF touched <> existing THEN
            RAISE EXCEPTION 'wallet version conflict' USING ERRCODE = 'WV001', DETAIL = (
                SELECT coalesce(string_agg(i.id::text, ','), '')
                FROM unnest(w_id, w_expected, w_version) AS i(id, expected, version)
                LEFT JOIN wallets w ON w.id = i.id
                WHERE i.expected > 0 AND CASE
                    -- Another writer may have come to the same version.
                    WHEN i.version > i.expected
                    THEN w.xmin IS DISTINCT FROM pg_current_xact_id()::xid
                    ELSE w.version IS DISTINCT FROM i.expected END);
        END IF;

        -- The wallets are locked: a refusal of these transfers is visible here, or waits. (INV-7)
        IF EXISTS (SELECT FROM refused_deliveries WHERE wallet_id = ANY (w_id)) THEN
            SELECT string_agg(e.wallet_id::text, ',') INTO conflicting
            FROM unnest(e_wallet_id, e_transfer_id, e_previous)
                AS e(wallet_id, transfer_id, previous)
            JOIN refused_deliveries r
                ON r.wallet_id = e.wallet_id AND r.transfer_id = e.transfer_id
            WHERE e.previous IS NULL;
            IF conflicting IS NOT NULL THEN
                RAISE EXCEPTION 'a transfer was refused for good'
                    USING ERRCODE = 'WV003', DETAIL = conflicting;
            END IF;
        END IF;
    END IF;

    IF cardinality(n_id) > 0 THEN
        INSERT INTO wallet_references (reference_id, wallet_id)
        SELECT reference_id, id FROM unnest(n_id, n_reference_id) AS n(id, reference_id)
        WHERE reference_id IS NOT NULL ORDER BY reference_id;

        INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit,
            version, reference_id, metadata, created_at, updated_at)
        SELECT id, currency, scale, balance::numeric, pending_debit::numeric,
            pending_credit::numeric, version, reference_id, metadata::json, now, now
        FROM unnest(n_id, n_currency, n_scale, n_reference_id, n_metadata,
            w_version[existing + 1:], w_balance[existing + 1:],
            w_pending_debit[existing + 1:], w_pending_credit[existing + 1:])
            AS n(id, currency, scale, reference_id, metadata, version, balance, pending_debit,
            pending_credit);
    END IF;

    IF cardinality(e_wallet_id) > 0 THEN
        INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
            pending_credit, transfer_id, transfer_type, previous_status, amount,
            transfer_created_at, created_version, failure_reason, reference_id, metadata, made_by)
        SELECT wallet_id, version, type, now, balance::numeric, pending_debit::numeric,
            pending_credit::numeric, transfer_id, transfer_type, previous, amount::numeric,
            created_at, created_version, failure_reason, reference_id, metadata::json, made_by
        FROM unnest(e_wallet_id, e_version, e_type, e_balance, e_pending_debit, e_pending_credit,
            e_transfer_id, e_transfer_type, e_previous, e_amount, e_created_at, e_created_version,
            e_failure_reason, e_reference_id, e_metadata, e_made_by)
            AS e(wallet_id, version, type, balance, pending_debit, pending_credit, transfer_id,
            transfer_type, previous, amount, created_at, created_version, failure_reason,
            reference_id, metadata, made_by);

        INSERT INTO transfers (wallet_id, id, type, status, amount, created_version, reference_id,
            metadata, created_at, settled_at)
        SELECT wallet_id, transfer_id, transfer_type, substr(type, 10), amount::numeric, version,
            reference_id, metadata::json, now, CASE WHEN type = 'transfer.completed' THEN now END
        FROM unnest(e_wallet_id, e_version, e_type, e_transfer_id, e_transfer_type, e_previous,
            e_amount, e_reference_id, e_metadata)
            AS e(wallet_id, version, type, transfer_id, transfer_type, previous, amount,
            reference_id, metadata)
        WHERE transfer_id IS NOT NULL AND previous IS NULL;

        INSERT INTO outbox (wallet_id, first_version, last_version)
        SELECT id, expected + 1, version FROM unnest(w_id, w_expected, w_version)
            AS i(id, expected, version)
        WHERE version > expected;
    END IF;

    -- After the inserts: a transfer may be created and settled by one batch. (INV-4)
    IF settlements > 0 THEN
        UPDATE transfers t SET
            status = substr(e.type, 10), failure_reason = e.failure_reason, settled_at = now,
            reference_id = e.reference_id, metadata = e.metadata::json
        FROM unnest(e_wallet_id, e_type, e_transfer_id, e_previous, e_failure_reason,
            e_reference_id, e_metadata)
            AS e(wallet_id, type, transfer_id, previous, failure_reason, reference_id, metadata)
        WHERE t.wallet_id = e.wallet_id AND t.id = e.transfer_id AND t.status = e.previous;
        GET DIAGNOSTICS touched = ROW_COUNT;
        IF touched <> settlements THEN
            RAISE EXCEPTION 'a transfer was settled already' USING ERRCODE = 'WV002';
        END IF;
    END IF;

    IF cardinality(k_key) > 0 THEN
        INSERT INTO idempotency_keys (wallet_id, key, fingerprint, request_id, refused, answer,
            version, created_at)
        SELECT wallet_id, key, fingerprint, request_id, refused, answer, version, now
        FROM unnest(k_wallet_id, k_key, k_fingerprint, k_request_id, k_refused, k_answer, k_version)
            AS k(wallet_id, key, fingerprint, request_id, refused, answer, version);
    END IF;

    IF cardinality(r_wallet_id) > 0 THEN
        INSERT INTO refused_deliveries (wallet_id, transfer_id, answer, refused_at)
        SELECT wallet_id, transfer_id, answer, now
        FROM unnest(r_wallet_id, r_transfer_id, r_answer) AS r(wallet_id, transfer_id, answer)
        ORDER BY wallet_id, transfer_id;
    END IF;

    -- What was read may be on this server only: a wait for a standby that was cancelled makes it
    -- visible here. A later record that a standby has says that it has the earlier ones.
    IF confirm AND cardinality(e_wallet_id) + cardinality(k_key) + cardinality(r_wallet_id) = 0
        AND current_setting('synchronous_standby_names') <> ''
    THEN
        PERFORM pg_logical_emit_message(true, 'wallet', 'confirm');
    END IF;
END $$;
"""

_OLD_PARAMETERS: Final = """
    now timestamptz, w_id uuid[], w_expected bigint[], w_version bigint[], w_balance text[],
    w_pending_debit text[], w_pending_credit text[], n_id uuid[], n_currency text[],
    n_scale smallint[], n_reference_id text[], n_metadata text[], e_wallet_id uuid[],
    e_version bigint[], e_type text[], e_balance text[], e_pending_debit text[],
    e_pending_credit text[], e_transfer_id uuid[], e_transfer_type text[], e_previous text[],
    e_amount text[], e_created_at timestamptz[], e_created_version bigint[],
    e_failure_reason text[], e_reference_id text[], e_metadata text[], e_made_by text[],
    settlements integer, k_wallet_id uuid[], k_key text[], k_fingerprint bytea[],
    k_request_id text[], k_refused boolean[], k_answer text[], k_version bigint[]
"""

_FOR_OLD_SHARDS: Final = f"""
CREATE FUNCTION commit_batch({_OLD_PARAMETERS}) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    -- Old shards name wallets in the order in which they met them, and refuse second deliveries
    -- without saying so: that they wait for an open first one is all that can be done for them.
    SELECT array_agg(id ORDER BY expected = 0, id), array_agg(expected ORDER BY expected = 0, id),
        array_agg(version ORDER BY expected = 0, id), array_agg(balance ORDER BY expected = 0, id),
        array_agg(debit ORDER BY expected = 0, id), array_agg(credit ORDER BY expected = 0, id)
    INTO w_id, w_expected, w_version, w_balance, w_pending_debit, w_pending_credit
    FROM unnest(w_id, w_expected, w_version, w_balance, w_pending_debit, w_pending_credit)
        AS w(id, expected, version, balance, debit, credit);
    SELECT array_agg(id ORDER BY id), array_agg(currency ORDER BY id), array_agg(scale ORDER BY id),
        array_agg(reference_id ORDER BY id), array_agg(metadata ORDER BY id)
    INTO n_id, n_currency, n_scale, n_reference_id, n_metadata
    FROM unnest(n_id, n_currency, n_scale, n_reference_id, n_metadata)
        AS n(id, currency, scale, reference_id, metadata);
    PERFORM 1 FROM wallets w WHERE w.id = ANY (w_id) ORDER BY w.id FOR NO KEY UPDATE;
    PERFORM commit_batch(now,
        coalesce(w_id, ARRAY[]::uuid[]), w_expected, w_version, w_balance, w_pending_debit,
        w_pending_credit, coalesce(n_id, ARRAY[]::uuid[]), n_currency, n_scale, n_reference_id,
        n_metadata, {", ".join(f"${number}" for number in range(13, 37))},
        ARRAY[]::uuid[], ARRAY[]::uuid[], ARRAY[]::text[], false);
END $$
"""


def upgrade() -> None:
    run_script(_TABLES)
    run_script("DROP FUNCTION commit_batch")
    run_script(_COMMIT_BATCH, single_statement=True)
    run_script(_FOR_OLD_SHARDS, single_statement=True)


def downgrade() -> None:
    run_script(f"DROP FUNCTION commit_batch({_types(_OLD_PARAMETERS)})", single_statement=True)
    run_script("DROP FUNCTION commit_batch")
    run_script(
        import_module("migrations.versions.0001_write_side")._COMMIT_BATCH, single_statement=True
    )
    run_script("DROP TABLE refused_deliveries")


def _types(parameters: str) -> str:
    return ", ".join(parameter.split()[1] for parameter in parameters.split(","))
