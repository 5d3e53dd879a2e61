"""Pending transfers may expire, and be completed in parts.

Why: a hold that nobody settles keeps its money for ever. A transfer and its events say when it
expires and whether it fails or completes then. `transfer_expiries` has a row for each pending
transfer that expires, and no other: a partial index on `transfers` would make every settlement of
any transfer write its indexes. (Decision 0077)

`completed_amount` is what was completed of a hold, if only a part was. `transfers.settled_amount`
has the same.

A batch without such a transfer passes four empty arrays and runs no other statement than before.

Functions of earlier releases stay for their shards during an upgrade. They don't settle a transfer
that expires (WV002): they would leave its row behind, and complete it after its time. Nor one of
which a part is completed: they would move all of it. (Decision 0081)

`transfers.expires_at` and `settled_amount` are there since the first revision; nothing has written
them yet. The new columns have no default, so no table is rewritten.

Revision ID: 0014
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from migrations.scripts import run_script

revision = "0014"
down_revision = "0013"

_TABLES: Final = """
ALTER TABLE transfers ADD COLUMN on_expiry text;
ALTER TABLE wallet_events
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN on_expiry text,
    ADD COLUMN completed_amount numeric(38, 0),
    ADD COLUMN completed_before numeric(38, 0);
ALTER TABLE wallet_events DROP CONSTRAINT wallet_events_type_check;
ALTER TABLE wallet_events ADD CONSTRAINT wallet_events_type_check CHECK (type IN ('wallet.created',
    'transfer.pending', 'transfer.completed', 'transfer.failed', 'transfer.partially_completed',
    'wallet.rewound', 'wallet.updated', 'wallet.frozen', 'wallet.unfrozen', 'wallet.closed'))
    NOT VALID;
ALTER TABLE transfers ALTER COLUMN on_expiry SET STATISTICS 10;
ALTER TABLE wallet_events
    ALTER COLUMN expires_at SET STATISTICS 10,
    ALTER COLUMN on_expiry SET STATISTICS 10,
    ALTER COLUMN completed_amount SET STATISTICS 10,
    ALTER COLUMN completed_before SET STATISTICS 10;
CREATE TABLE transfer_expiries (
    wallet_id   uuid NOT NULL,
    transfer_id uuid NOT NULL,
    expires_at  timestamptz NOT NULL,
    PRIMARY KEY (wallet_id, transfer_id)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX transfer_expiries_by_time ON transfer_expiries (expires_at, wallet_id, transfer_id);
ALTER TABLE transfer_expiries
    ALTER COLUMN wallet_id SET STATISTICS 10,
    ALTER COLUMN transfer_id SET STATISTICS 10,
    ALTER COLUMN expires_at SET STATISTICS 10;
"""

_EXPIRIES: Final = """
    IF cardinality(e_expires_at) > 0 THEN
        INSERT INTO transfer_expiries (wallet_id, transfer_id, expires_at)
        SELECT wallet_id, transfer_id, expires_at
        FROM unnest(e_wallet_id, e_transfer_id, e_previous, e_type, e_expires_at)
            AS e(wallet_id, transfer_id, previous, type, expires_at)
        WHERE expires_at IS NOT NULL AND previous IS NULL AND type = 'transfer.pending';

        -- By key and ctid, whatever the statistics of the table say; a row is never updated.
        DELETE FROM transfer_expiries WHERE ctid = ANY (ARRAY(
            SELECT x.ctid
            FROM unnest(e_wallet_id, e_transfer_id, e_previous, e_type, e_expires_at)
                AS e(wallet_id, transfer_id, previous, type, expires_at)
            CROSS JOIN LATERAL (
                SELECT ctid FROM transfer_expiries
                WHERE wallet_id = e.wallet_id AND transfer_id = e.transfer_id OFFSET 0
            ) x
            WHERE e.expires_at IS NOT NULL AND e.previous IS NOT NULL
                AND e.type <> 'transfer.partially_completed'));
    END IF;
"""

_EDITS: Final[Mapping[str, str]] = {
    "    changes          boolean\n)": (
        "    changes          boolean,\n"
        "    -- when the transfer of an event expires, and how; empty if none of them does\n"
        "    e_expires_at     timestamptz[],\n"
        "    e_on_expiry      text[],\n"
        "    -- what was completed of an event's transfer, if a part; empty if of none of them\n"
        "    e_completed      text[],\n"
        "    -- and what had been completed of it before\n"
        "    e_before         text[]\n)"
    ),
    # wallet_events
    "hash, previous_hash, key_digest, format)": (
        "hash, previous_hash, key_digest, format,\n"
        "            expires_at, on_expiry, completed_amount, completed_before)"
    ),
    "hash, previous_hash, key_digest, 1": (
        "hash, previous_hash, key_digest, 1, expires_at, on_expiry,\n"
        "            completed::numeric, before::numeric"
    ),
    "e_failure_reason, e_reference_id, e_metadata, e_made_by, e_hash, e_previous_hash,\n"
    "            e_key_digest)": (
        "e_failure_reason, e_reference_id, e_metadata, e_made_by, e_hash, e_previous_hash,\n"
        "            e_key_digest, e_expires_at, e_on_expiry, e_completed, e_before)"
    ),
    "hash, previous_hash, key_digest);": (
        "hash, previous_hash, key_digest,\n            expires_at, on_expiry, completed, before);"
    ),
    # transfers
    "            metadata, created_at, settled_at)\n": (
        "            metadata, created_at, settled_at, expires_at, on_expiry)\n"
    ),
    "CASE WHEN type = 'transfer.completed' THEN now END\n": (
        "CASE WHEN type = 'transfer.completed' THEN now END,\n            expires_at, on_expiry\n"
    ),
    "            e_amount, e_reference_id, e_metadata)\n"
    "            AS e(wallet_id, version, type, transfer_id, transfer_type, previous, amount,\n"
    "            reference_id, metadata)\n": (
        "            e_amount, e_reference_id, e_metadata, e_expires_at, e_on_expiry)\n"
        "            AS e(wallet_id, version, type, transfer_id, transfer_type, previous, amount,\n"
        "            reference_id, metadata, expires_at, on_expiry)\n"
    ),
    "    IF settlements > 0 THEN\n        UPDATE": (
        "    IF settlements > 0 AND cardinality(e_completed) > 0 THEN\n"
        "        -- A batch may complete several parts of one transfer: the last one counts.\n"
        "        UPDATE transfers t SET\n"
        "            status = CASE WHEN e.type = 'transfer.partially_completed' THEN 'pending'\n"
        "                ELSE substr(e.type, 10) END,\n"
        "            failure_reason = e.failure_reason,\n"
        "            settled_at = CASE WHEN e.type = 'transfer.partially_completed' THEN NULL\n"
        "                ELSE now END,\n"
        "            reference_id = e.reference_id, metadata = e.metadata::json,\n"
        "            settled_amount = e.completed::numeric\n"
        "        FROM (\n"
        "            SELECT DISTINCT ON (wallet_id, transfer_id) *\n"
        "            FROM unnest(e_wallet_id, e_version, e_type, e_transfer_id, e_previous,\n"
        "                e_failure_reason, e_reference_id, e_metadata, e_completed)\n"
        "                AS e(wallet_id, version, type, transfer_id, previous, failure_reason,\n"
        "                reference_id, metadata, completed)\n"
        "            WHERE previous IS NOT NULL\n"
        "            ORDER BY wallet_id, transfer_id, version DESC\n"
        "        ) e\n"
        "        WHERE t.wallet_id = e.wallet_id AND t.id = e.transfer_id\n"
        "            AND t.status = e.previous;\n"
        "        GET DIAGNOSTICS touched = ROW_COUNT;\n"
        "        IF touched <> settlements THEN\n"
        "            RAISE EXCEPTION 'a transfer was settled already' USING ERRCODE = 'WV002';\n"
        "        END IF;\n"
        "    ELSIF settlements > 0 THEN\n        UPDATE"
    ),
    "\n    IF cardinality(k_key) > 0 THEN\n": (
        f"{_EXPIRIES}\n    IF cardinality(k_key) > 0 THEN\n"
    ),
}
"""What is new in `commit_batch`, beside the text of the release before."""

_SETTLED_FROM: Final = "AND t.status = e.previous"
_NOT_EXPIRING: Final = f"{_SETTLED_FROM} AND t.expires_at IS NULL AND t.settled_amount IS NULL"

_NEW_PARAMETERS: Final = 52


def edited(function: str, edits: Mapping[str, str]) -> str:
    """``function`` with each of ``edits``, which are found exactly once."""
    for old, new in edits.items():
        assert function.count(old) == 1, f"{function.count(old)} times: {old}"
        function = function.replace(old, new)
    return function


def edit_installed(name: str, old: str, new: str, *, below: int) -> str:
    """Replaces ``old`` in each function ``name`` with fewer than ``below`` parameters that has it.

    The oldest ones call others.
    """
    return f"""
DO $edit$ DECLARE
    f      record;
    edited integer := 0;
BEGIN
    FOR f IN SELECT oid, pg_get_functiondef(oid) AS text FROM pg_proc
        WHERE proname = '{name}' AND pronargs < {below}
    LOOP
        CONTINUE WHEN strpos(f.text, $old${old}$old$) = 0;
        EXECUTE replace(f.text, $old${old}$old$, $new${new}$new$);
        edited := edited + 1;
    END LOOP;
    IF edited = 0 THEN
        RAISE EXCEPTION 'no function {name} is as expected';
    END IF;
END $edit$
"""


def upgrade() -> None:
    run_script(_TABLES)
    former = import_module("migrations.versions.0012_wallet_control")
    run_script(
        edit_installed("commit_batch", _SETTLED_FROM, _NOT_EXPIRING, below=_NEW_PARAMETERS),
        single_statement=True,
    )
    run_script(edited(former._COMMIT_BATCH, _EDITS), single_statement=True)


def downgrade() -> None:
    run_script(_DROP_NEW, single_statement=True)
    run_script(
        edit_installed("commit_batch", _NOT_EXPIRING, _SETTLED_FROM, below=_NEW_PARAMETERS),
        single_statement=True,
    )
    run_script("DROP TABLE transfer_expiries")
    run_script("ALTER TABLE transfers DROP COLUMN on_expiry")
    run_script(
        "ALTER TABLE wallet_events DROP COLUMN expires_at, DROP COLUMN on_expiry, "
        "DROP COLUMN completed_amount, DROP COLUMN completed_before"
    )
    run_script(_FORMER_TYPES)


_FORMER_TYPES: Final = """
ALTER TABLE wallet_events DROP CONSTRAINT wallet_events_type_check;
ALTER TABLE wallet_events ADD CONSTRAINT wallet_events_type_check CHECK (type IN ('wallet.created',
    'transfer.pending', 'transfer.completed', 'transfer.failed', 'wallet.rewound',
    'wallet.updated', 'wallet.frozen', 'wallet.unfrozen', 'wallet.closed')) NOT VALID;
"""

_DROP_NEW: Final = f"""
DO $$ BEGIN
    EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc
        WHERE proname = 'commit_batch' AND pronargs = {_NEW_PARAMETERS});
END $$
"""
