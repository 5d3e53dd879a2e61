"""Wallets under control: frozen, closed, with an overdraft; and events as they were published.

Why:

- A wallet's status, overdraft limit and metadata may change now. An event says what they were after
  it, so it is read back as it was published: a row of a wallet's own event has all of it in
  ``metadata``. `wallet_changes` has the same by version, so that the state at a version is one
  look-up in a wallet with millions of transfers. The hot path writes neither.
- ``format`` says which release encoded an event: later ones add fields to the JSON of new events,
  and must publish earlier ones again without them. NULL: before this revision, or written by a
  shard of an earlier release.
- A completion that a second delivery was refused because the wallet was frozen must not be applied
  by the first one once the wallet is unfrozen. Its deliveries have an id, which
  `refused_deliveries` has in place of a transfer's.

Old shards call the function with its 45 parameters during an upgrade. They know the status and the
limit, and take no transfers of a frozen wallet in either direction. An old relay can't read the new
types of events and stops publishing at one, as does an old consumer; those of this release go on.

The columns have constant defaults, and the new constraints are for new rows only, so no table is
rewritten or scanned.

Revision ID: 0012
"""

from typing import Final

from migrations.scripts import run_script

revision = "0012"
down_revision = "0011"

_TABLES: Final = """
ALTER TABLE wallets ADD COLUMN frozen text, ADD COLUMN frozen_reason text;
ALTER TABLE wallets ADD CONSTRAINT wallets_frozen_check
    CHECK (frozen IN ('both', 'debit', 'credit')) NOT VALID;
ALTER TABLE wallets
    ALTER COLUMN frozen SET STATISTICS 10,
    ALTER COLUMN frozen_reason SET STATISTICS 10;
ALTER TABLE wallet_events ADD COLUMN format smallint;
ALTER TABLE wallet_events ALTER COLUMN format SET STATISTICS 10;
ALTER TABLE wallet_events DROP CONSTRAINT wallet_events_type_check;
ALTER TABLE wallet_events ADD CONSTRAINT wallet_events_type_check CHECK (type IN ('wallet.created',
    'transfer.pending', 'transfer.completed', 'transfer.failed', 'wallet.rewound',
    'wallet.updated', 'wallet.frozen', 'wallet.unfrozen', 'wallet.closed')) NOT VALID;
CREATE TABLE wallet_changes (
    wallet_id       uuid NOT NULL,
    version         bigint NOT NULL,
    status          text NOT NULL,
    frozen          text,
    frozen_reason   text,
    overdraft_limit numeric(38, 0) NOT NULL,
    metadata        json,
    PRIMARY KEY (wallet_id, version)
);
ALTER TABLE wallet_changes
    ALTER COLUMN wallet_id SET STATISTICS 10,
    ALTER COLUMN version SET STATISTICS 10,
    ALTER COLUMN status SET STATISTICS 10,
    ALTER COLUMN frozen SET STATISTICS 10,
    ALTER COLUMN frozen_reason SET STATISTICS 10,
    ALTER COLUMN overdraft_limit SET STATISTICS 10,
    ALTER COLUMN metadata SET STATISTICS 10;
"""

# What events say of a wallet besides its balances: a new wallet only if it has a limit, since all
# else is in its creation's columns.
_WALLET_STATES: Final = """
CREATE FUNCTION wallet_states(
    e_wallet_id uuid[], e_version bigint[], e_type text[], e_amount text[], e_metadata text[]
) RETURNS SETOF wallet_changes LANGUAGE sql IMMUTABLE AS $$
    SELECT wallet_id, version, coalesce(metadata::json->>'status', 'active'),
        metadata::json->>'frozen', metadata::json->>'frozen_reason',
        coalesce(metadata::json->>'overdraft_limit', '0')::numeric, metadata::json->'metadata'
    FROM unnest(e_wallet_id, e_version, e_type, e_metadata)
        AS e(wallet_id, version, type, metadata)
    WHERE type IN ('wallet.updated', 'wallet.frozen', 'wallet.unfrozen', 'wallet.closed')
    UNION ALL
    SELECT wallet_id, version, 'active', NULL, NULL, amount::numeric, metadata::json
    FROM unnest(e_wallet_id, e_version, e_type, e_amount, e_metadata)
        AS e(wallet_id, version, type, amount, metadata)
    WHERE type = 'wallet.created' AND amount IS NOT NULL
$$;
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
    w_expected_hash  bytea[],
    w_hash           bytea[],
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
    e_hash           bytea[],
    e_previous_hash  bytea[],
    e_key_digest     bytea[],
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
    confirm          boolean,
    -- deliveries of completions that the batch applies
    d_wallet_id      uuid[],
    d_id             uuid[],
    -- whether an event says what else the wallet is like (wallet_states)
    changes          boolean
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    existing integer := cardinality(w_id) - cardinality(n_id);
    touched integer;
    conflicting text;
BEGIN
    -- A wallet whose history the journal has lost a part of is left alone.
    IF EXISTS (SELECT FROM forked_wallets WHERE wallet_id = ANY (w_id)) THEN
        RAISE EXCEPTION 'the history of a wallet has forked' USING ERRCODE = 'WV004', DETAIL = (
            SELECT string_agg(wallet_id::text, ',') FROM forked_wallets
            WHERE wallet_id = ANY (w_id));
    END IF;

    -- A transaction of an earlier delivery may be open: wait for its end before reading versions.
    -- Two statements that change wallets lock them in the same order.
    IF cardinality(r_wallet_id) > 0 OR changes THEN
        PERFORM 1 FROM wallets w WHERE w.id = ANY (w_id) ORDER BY w.id FOR NO KEY UPDATE;
    END IF;

    -- Wallets first: a conflict found here costs least. (INV-5)
    IF existing > 0 THEN
        IF changes THEN
            -- The limit must allow the balance at any time, so the balance goes with it.
            UPDATE wallets w SET status = c.status, frozen = c.frozen, metadata = c.metadata,
                frozen_reason = c.frozen_reason, overdraft_limit = c.overdraft_limit,
                balance = i.balance::numeric
            FROM unnest(w_id, w_expected, w_version, w_balance, w_expected_hash)
                AS i(id, expected, version, balance, expected_hash)
            JOIN (
                SELECT DISTINCT ON (wallet_id) *
                FROM wallet_states(e_wallet_id, e_version, e_type, e_amount, e_metadata)
                ORDER BY wallet_id, version DESC
            ) c ON c.wallet_id = i.id
            WHERE w.id = i.id AND w.version = i.expected
                AND (w.hash = i.expected_hash OR w.hash_version < w.version);
        END IF;

        UPDATE wallets w SET
            version = i.version, balance = i.balance::numeric, updated_at = now,
            pending_debit = i.pending_debit::numeric, pending_credit = i.pending_credit::numeric,
            hash = i.hash, hash_version = i.version
        FROM unnest(w_id, w_expected, w_version, w_balance, w_pending_debit, w_pending_credit,
            w_expected_hash, w_hash)
            AS i(id, expected, version, balance, pending_debit, pending_credit, expected_hash, hash)
        WHERE w.id = i.id AND w.version = i.expected AND i.version > i.expected
            AND (w.hash = i.expected_hash OR w.hash_version < w.version);
        GET DIAGNOSTICS touched = ROW_COUNT;

        -- Wallets that were only refused: their answer, too, must rest on the current version.
        touched := touched + (
            SELECT count(*) FROM wallets w
            JOIN unnest(w_id, w_expected, w_version, w_expected_hash)
                AS i(id, expected, version, expected_hash) ON w.id = i.id
            WHERE w.version = i.expected AND i.version = i.expected
                AND (w.hash = i.expected_hash OR w.hash_version < w.version));
        IF touched <> existing THEN
            RAISE EXCEPTION 'wallet version conflict' USING ERRCODE = 'WV001', DETAIL = (
                SELECT coalesce(string_agg(i.id::text, ','), '')
                FROM unnest(w_id, w_expected, w_version, w_expected_hash)
                    AS i(id, expected, version, expected_hash)
                LEFT JOIN wallets w ON w.id = i.id
                WHERE i.expected > 0 AND CASE
                    -- Another writer may have come to the same version.
                    WHEN i.version > i.expected
                    THEN w.xmin IS DISTINCT FROM pg_current_xact_id()::xid
                    ELSE w.version IS DISTINCT FROM i.expected
                        OR (w.hash_version = w.version AND w.hash <> i.expected_hash) END);
        END IF;

        -- The wallets are locked: a refusal of these transfers is visible here, or waits. (INV-7)
        IF EXISTS (SELECT FROM refused_deliveries WHERE wallet_id = ANY (w_id)) THEN
            SELECT string_agg(e.wallet_id::text, ',') INTO conflicting
            FROM unnest(e_wallet_id, e_transfer_id, e_previous)
                AS e(wallet_id, transfer_id, previous)
            JOIN refused_deliveries r
                ON r.wallet_id = e.wallet_id AND r.transfer_id = e.transfer_id
            WHERE e.previous IS NULL;
            IF conflicting IS NULL AND cardinality(d_id) > 0 THEN
                SELECT string_agg(d.wallet_id::text, ',') INTO conflicting
                FROM unnest(d_wallet_id, d_id) AS d(wallet_id, id)
                JOIN refused_deliveries r ON r.wallet_id = d.wallet_id AND r.transfer_id = d.id;
            END IF;
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

        -- If there are changes the limit follows below: a join of two lists is quadratic.
        INSERT INTO wallets (id, currency, scale, balance, pending_debit, pending_credit,
            version, reference_id, metadata, created_at, updated_at, hash, hash_version,
            overdraft_limit)
        SELECT id, currency, scale, balance::numeric, pending_debit::numeric,
            pending_credit::numeric, version, reference_id, metadata::json, now, now, hash, version,
            CASE WHEN changes THEN 1e38::numeric - 1 ELSE 0 END
        FROM unnest(n_id, n_currency, n_scale, n_reference_id, n_metadata,
            w_version[existing + 1:], w_balance[existing + 1:],
            w_pending_debit[existing + 1:], w_pending_credit[existing + 1:], w_hash[existing + 1:])
            AS n(id, currency, scale, reference_id, metadata, version, balance, pending_debit,
            pending_credit, hash);
        IF changes THEN
            UPDATE wallets w SET status = coalesce(c.status, 'active'), frozen = c.frozen,
                frozen_reason = c.frozen_reason,
                overdraft_limit = coalesce(c.overdraft_limit, 0),
                metadata = CASE WHEN c.wallet_id IS NULL THEN w.metadata ELSE c.metadata END
            FROM unnest(n_id) AS n(id)
            LEFT JOIN (
                SELECT DISTINCT ON (wallet_id) *
                FROM wallet_states(e_wallet_id, e_version, e_type, e_amount, e_metadata)
                ORDER BY wallet_id, version DESC
            ) c ON c.wallet_id = n.id
            WHERE w.id = n.id;
        END IF;
    END IF;

    IF changes THEN
        INSERT INTO wallet_changes
        SELECT * FROM wallet_states(e_wallet_id, e_version, e_type, e_amount, e_metadata);
    END IF;

    IF cardinality(e_wallet_id) > 0 THEN
        INSERT INTO wallet_events (wallet_id, version, type, occurred_at, balance, pending_debit,
            pending_credit, transfer_id, transfer_type, previous_status, amount,
            transfer_created_at, created_version, failure_reason, reference_id, metadata, made_by,
            hash, previous_hash, key_digest, format)
        SELECT wallet_id, version, type, now, balance::numeric, pending_debit::numeric,
            pending_credit::numeric, transfer_id, transfer_type, previous, amount::numeric,
            created_at, created_version, failure_reason, reference_id, metadata::json, made_by,
            hash, previous_hash, key_digest, 1
        FROM unnest(e_wallet_id, e_version, e_type, e_balance, e_pending_debit, e_pending_credit,
            e_transfer_id, e_transfer_type, e_previous, e_amount, e_created_at, e_created_version,
            e_failure_reason, e_reference_id, e_metadata, e_made_by, e_hash, e_previous_hash,
            e_key_digest)
            AS e(wallet_id, version, type, balance, pending_debit, pending_credit, transfer_id,
            transfer_type, previous, amount, created_at, created_version, failure_reason,
            reference_id, metadata, made_by, hash, previous_hash, key_digest);

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

_NEW_PARAMETERS: Final = 48


def upgrade() -> None:
    run_script(_TABLES)
    run_script(_WALLET_STATES, single_statement=True)
    run_script(_COMMIT_BATCH, single_statement=True)


def downgrade() -> None:
    run_script(_DROP_NEW, single_statement=True)
    run_script("DROP FUNCTION wallet_states")
    run_script("DROP TABLE wallet_changes")
    run_script(_FORMER_TYPES)
    run_script("ALTER TABLE wallets DROP COLUMN frozen, DROP COLUMN frozen_reason")
    run_script("ALTER TABLE wallet_events DROP COLUMN format")


_FORMER_TYPES: Final = """
ALTER TABLE wallet_events DROP CONSTRAINT wallet_events_type_check;
ALTER TABLE wallet_events ADD CONSTRAINT wallet_events_type_check CHECK (type IN ('wallet.created',
    'transfer.pending', 'transfer.completed', 'transfer.failed', 'wallet.rewound')) NOT VALID;
"""

_DROP_NEW: Final = f"""
DO $$ BEGIN
    EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc
        WHERE proname = 'commit_batch' AND pronargs = {_NEW_PARAMETERS});
END $$
"""
