"""The write side: wallets, transfers, journal, idempotency keys, outbox, and `commit_batch`.

Why: everything that a batch changes must change together or not at all, in one round trip.
`commit_batch` is that statement. It takes columns as arrays, so that a batch of any size is
one prepared call, and it compares every wallet's version with the one that the batch was
decided on: a mismatch raises SQLSTATE WV001 and nothing is written.

No foreign keys: the function is the only writer, inserts parents with children, and a check
per row would cost more than the row. Every unique key includes wallet_id, so that the tables
can be distributed by it; `wallet_references` is distributed by its own key.

Revision ID: 0001
"""

from migrations.scripts import run_script

revision = "0001"
down_revision = None

_TABLES = """
CREATE TABLE wallets (
    id              uuid PRIMARY KEY,
    currency        text NOT NULL,
    scale           smallint NOT NULL CHECK (scale BETWEEN 0 AND 18),
    status          text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'frozen', 'closed')),
    balance         numeric(38, 0) NOT NULL,
    pending_debit   numeric(38, 0) NOT NULL CHECK (pending_debit >= 0),
    pending_credit  numeric(38, 0) NOT NULL CHECK (pending_credit >= 0),
    overdraft_limit numeric(38, 0) NOT NULL DEFAULT 0 CHECK (overdraft_limit >= 0),
    version         bigint NOT NULL CHECK (version > 0),
    reference_id    text,
    metadata        json,
    created_at      timestamptz NOT NULL,
    updated_at      timestamptz NOT NULL,
    CONSTRAINT balance_within_limit CHECK (balance >= -overdraft_limit)
) WITH (fillfactor = 50);
-- Half-empty pages: a wallet's row is updated by every batch and should stay on its page (HOT).

CREATE TABLE wallet_references (
    reference_id text PRIMARY KEY,
    wallet_id    uuid NOT NULL
);

CREATE TABLE transfers (
    wallet_id       uuid NOT NULL,
    id              uuid NOT NULL,
    type            text NOT NULL CHECK (type IN ('debit', 'credit')),
    status          text NOT NULL CHECK (status IN ('pending', 'completed', 'failed')),
    amount          numeric(38, 0) NOT NULL CHECK (amount > 0),
    settled_amount  numeric(38, 0),
    created_version bigint NOT NULL,
    reference_id    text,
    metadata        json,
    failure_reason  text CHECK (failure_reason IN ('reverted', 'expired')),
    created_at      timestamptz NOT NULL,
    settled_at      timestamptz,
    expires_at      timestamptz,
    PRIMARY KEY (wallet_id, id)
) WITH (fillfactor = 90);

CREATE TABLE wallet_events (
    wallet_id           uuid NOT NULL,
    version             bigint NOT NULL CHECK (version > 0),
    type                text NOT NULL CHECK (type IN
        ('wallet.created', 'transfer.pending', 'transfer.completed', 'transfer.failed')),
    occurred_at         timestamptz NOT NULL,
    balance             numeric(38, 0) NOT NULL,
    pending_debit       numeric(38, 0) NOT NULL,
    pending_credit      numeric(38, 0) NOT NULL,
    transfer_id         uuid,
    transfer_type       text,
    previous_status     text,
    amount              numeric(38, 0),
    transfer_created_at timestamptz,
    created_version     bigint,
    failure_reason      text,
    reference_id        text,
    metadata            json,
    made_by             text,
    PRIMARY KEY (wallet_id, version)
);

CREATE TABLE idempotency_keys (
    wallet_id   uuid NOT NULL,
    key         text NOT NULL,
    fingerprint bytea NOT NULL,
    request_id  text NOT NULL,
    refused     boolean NOT NULL,
    answer      text NOT NULL,
    version     bigint NOT NULL,
    created_at  timestamptz NOT NULL,
    PRIMARY KEY (wallet_id, key)
);

-- A row says: this wallet's events from first to last are in the journal, and JetStream has
-- not acknowledged all of them yet. One row a wallet and batch, however many events.
CREATE TABLE outbox (
    wallet_id     uuid NOT NULL,
    first_version bigint NOT NULL,
    last_version  bigint NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (wallet_id, first_version),
    CHECK (last_version >= first_version)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX outbox_by_age ON outbox (created_at);
"""

_COMMIT_BATCH = """
CREATE FUNCTION commit_batch(
    now              timestamptz,
    -- wallets: what each was decided on, and what it becomes (version = expected: only checked)
    w_id             uuid[],
    w_expected       bigint[],
    w_version        bigint[],
    w_balance        text[],
    w_pending_debit  text[],
    w_pending_credit text[],
    -- wallets that come to be (expected version 0), in addition to the above
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
    -- idempotency keys and their answers
    k_wallet_id      uuid[],
    k_key            text[],
    k_fingerprint    bytea[],
    k_request_id     text[],
    k_refused        boolean[],
    k_answer         text[],
    k_version        bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    touched integer;
BEGIN
    -- Wallets first: a conflict found here costs least. (INV-5)
    IF cardinality(w_id) > cardinality(n_id) THEN
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
        IF touched <> cardinality(w_id) - cardinality(n_id) THEN
            RAISE EXCEPTION 'wallet version conflict' USING ERRCODE = 'WV001';
        END IF;
    END IF;

    IF cardinality(n_id) > 0 THEN
        INSERT INTO wallet_references (reference_id, wallet_id)
        SELECT reference_id, id FROM unnest(n_id, n_reference_id) AS n(id, reference_id)
        WHERE reference_id IS NOT NULL;

        INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit,
            version, reference_id, metadata, created_at, updated_at)
        SELECT n.id, n.currency, n.scale, i.balance::numeric, i.pending_debit::numeric,
            i.pending_credit::numeric, i.version, n.reference_id, n.metadata::json, now, now
        FROM unnest(n_id, n_currency, n_scale, n_reference_id, n_metadata)
            AS n(id, currency, scale, reference_id, metadata)
        JOIN unnest(w_id, w_version, w_balance, w_pending_debit, w_pending_credit)
            AS i(id, version, balance, pending_debit, pending_credit) ON i.id = n.id;
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
END $$;
"""


def upgrade() -> None:
    run_script(_TABLES)
    run_script(_COMMIT_BATCH, single_statement=True)


def downgrade() -> None:
    run_script("DROP FUNCTION commit_batch")
    run_script(
        "DROP TABLE outbox, idempotency_keys, wallet_events, transfers, wallet_references, wallets"
    )
