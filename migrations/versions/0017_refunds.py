"""Refunds name the transfer that they return.

Why: refunds of a transfer never sum up to more than it completed. So the transfer's own row has
what its refunds have returned (`refunded_amount`) and what pending ones hold
(`refund_pending_amount`): a refund, and its end, load and write one row more, however many refunds
there were. Both are set in the transaction of the refund, and a constraint holds the sum. (INV-16)

An event of a refund has the same two numbers, of the transfer that it refunds and after the event,
so that a projection needs no sum either. An event of a transfer that has refunds has its own.

A batch without a refund passes three empty arrays and runs no other statement than before.
`commit_batch` refuses a refund of another wallet's transfer, of one in the same direction, or of
one that is itself a refund (WV005): a shard never sends that.

Functions of earlier releases stay for their shards during an upgrade. They don't settle a refund
(WV002): they would not count it.

The new columns have no default and the constraint is for new rows only, so no table is rewritten
or scanned.

Revision ID: 0017
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from migrations.scripts import run_script

revision = "0017"
down_revision = "0016"

_control = import_module("migrations.versions.0012_wallet_control")
_expiries = import_module("migrations.versions.0014_transfer_expiries")

_TABLES: Final = """
ALTER TABLE transfers
    ADD COLUMN refunds uuid,
    ADD COLUMN refunded_amount numeric(38, 0),
    ADD COLUMN refund_pending_amount numeric(38, 0);
ALTER TABLE transfers ADD CONSTRAINT transfers_refunds_check CHECK (
    refunded_amount IS NULL
    OR (refunds IS NULL AND refunded_amount >= 0 AND refund_pending_amount >= 0
        AND refunded_amount + refund_pending_amount
            <= coalesce(settled_amount, CASE status WHEN 'completed' THEN amount ELSE 0 END)))
    NOT VALID;
ALTER TABLE wallet_events
    ADD COLUMN refunds uuid,
    ADD COLUMN refunded_amount numeric(38, 0),
    ADD COLUMN refund_pending_amount numeric(38, 0);
ALTER TABLE transfers
    ALTER COLUMN refunds SET STATISTICS 10,
    ALTER COLUMN refunded_amount SET STATISTICS 10,
    ALTER COLUMN refund_pending_amount SET STATISTICS 10;
ALTER TABLE wallet_events
    ALTER COLUMN refunds SET STATISTICS 10,
    ALTER COLUMN refunded_amount SET STATISTICS 10,
    ALTER COLUMN refund_pending_amount SET STATISTICS 10;
"""

_COUNT_REFUNDS: Final = """
    -- After the settlements: a batch may complete a transfer and refund it. (INV-16)
    IF cardinality(e_refunds) > 0 THEN
        -- By key, whatever the statistics say. The last event of a refund counts.
        UPDATE transfers t SET refunded_amount = r.refunded, refund_pending_amount = r.pending
        FROM (
            SELECT DISTINCT ON (wallet_id, refunds) wallet_id, refunds, transfer_type,
                refunded::numeric, pending::numeric
            FROM unnest(e_wallet_id, e_version, e_transfer_type, e_refunds, e_refunded,
                e_refund_pending)
                AS e(wallet_id, version, transfer_type, refunds, refunded, pending)
            WHERE refunds IS NOT NULL
            ORDER BY wallet_id, refunds, version DESC
        ) r
        WHERE t.wallet_id = r.wallet_id AND t.id = r.refunds AND t.type <> r.transfer_type
            AND t.refunds IS NULL;
        GET DIAGNOSTICS touched = ROW_COUNT;
        IF touched <> (SELECT count(DISTINCT (wallet_id, refunds))
            FROM unnest(e_wallet_id, e_refunds) AS e(wallet_id, refunds) WHERE refunds IS NOT NULL)
        THEN
            RAISE EXCEPTION 'INV-16 a refund of what can''t be refunded' USING ERRCODE = 'WV005';
        END IF;
    END IF;
"""

_EDITS: Final[Mapping[str, str]] = {
    "    e_before         text[]\n)": (
        "    e_before         text[],\n"
        "    -- the transfer that an event's transfer refunds, and what is refunded of that, and\n"
        "    -- held by pending refunds; the latter two also of a transfer that has refunds;\n"
        "    -- empty if there is none of these\n"
        "    e_refunds        uuid[],\n"
        "    e_refunded       text[],\n"
        "    e_refund_pending text[]\n)"
    ),
    # wallet_events
    "            expires_at, on_expiry, completed_amount, completed_before)": (
        "            expires_at, on_expiry, completed_amount, completed_before, refunds,\n"
        "            refunded_amount, refund_pending_amount)"
    ),
    "            completed::numeric, before::numeric": (
        "            completed::numeric, before::numeric, refunds, refunded::numeric,\n"
        "            refund_pending::numeric"
    ),
    "            e_key_digest, e_expires_at, e_on_expiry, e_completed, e_before)": (
        "            e_key_digest, e_expires_at, e_on_expiry, e_completed, e_before, e_refunds,\n"
        "            e_refunded, e_refund_pending)"
    ),
    "            expires_at, on_expiry, completed, before);": (
        "            expires_at, on_expiry, completed, before, refunds, refunded, refund_pending);"
    ),
    # transfers
    "            metadata, created_at, settled_at, expires_at, on_expiry)\n": (
        "            metadata, created_at, settled_at, expires_at, on_expiry, refunds)\n"
    ),
    "            expires_at, on_expiry\n": "            expires_at, on_expiry, refunds\n",
    "            e_amount, e_reference_id, e_metadata, e_expires_at, e_on_expiry)\n": (
        "            e_amount, e_reference_id, e_metadata, e_expires_at, e_on_expiry, e_refunds)\n"
    ),
    "            reference_id, metadata, expires_at, on_expiry)\n": (
        "            reference_id, metadata, expires_at, on_expiry, refunds)\n"
    ),
    "\n    IF cardinality(k_key) > 0 THEN\n": (
        f"{_COUNT_REFUNDS}\n    IF cardinality(k_key) > 0 THEN\n"
    ),
}
"""What is new in `commit_batch`, beside the text of the release before."""

_SETTLED_FROM: Final = "t.status = e.previous"
_NO_REFUND: Final = f"{_SETTLED_FROM} AND t.refunds IS NULL"

_NEW_PARAMETERS: Final = 55


def upgrade() -> None:
    run_script(_TABLES)
    run_script(
        _expiries.edit_installed("commit_batch", _SETTLED_FROM, _NO_REFUND, below=_NEW_PARAMETERS),
        single_statement=True,
    )
    former = _expiries.edited(_control._COMMIT_BATCH, _expiries._EDITS)
    run_script(_expiries.edited(former, _EDITS), single_statement=True)


def downgrade() -> None:
    run_script(_DROP_NEW, single_statement=True)
    run_script(
        _expiries.edit_installed("commit_batch", _NO_REFUND, _SETTLED_FROM, below=_NEW_PARAMETERS),
        single_statement=True,
    )
    run_script("ALTER TABLE transfers DROP CONSTRAINT transfers_refunds_check")
    for table in ("transfers", "wallet_events"):
        run_script(
            f"ALTER TABLE {table} DROP COLUMN refunds, DROP COLUMN refunded_amount, "
            "DROP COLUMN refund_pending_amount"
        )


_DROP_NEW: Final = f"""
DO $$ BEGIN
    EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc
        WHERE proname = 'commit_batch' AND pronargs = {_NEW_PARAMETERS});
END $$
"""
