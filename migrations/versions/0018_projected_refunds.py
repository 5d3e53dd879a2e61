"""Projections show which transfer a refund refunds, and what is refunded of a transfer.

Why: a read must show it without a look at the write side, and lists filter by it. An event of a
refund says what is refunded of the other transfer after it, so `project_batch` sets both rows from
it; columns of that are empty in a batch without a refund. `catch_up` takes both from the journal.

Old consumers call functions of earlier releases and don't know refunds. Those take it from the
write side's rows.

The columns have no default, so no table is rewritten. The index of refunds is built after this
migration (`migrations.online_indexes`); only refunds are in it.

Revision ID: 0018
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from migrations.online_indexes import drop_statements
from migrations.scripts import run_script

revision = "0018"
down_revision = "0017"

_control = import_module("migrations.versions.0013_projected_control")
_functions = import_module("migrations.versions.0014_transfer_expiries")
_former = import_module("migrations.versions.0015_projected_expiries")

_COLUMNS: Final = """
ALTER TABLE transfer_projections
    ADD COLUMN refunds uuid,
    ADD COLUMN refunded_amount numeric(38, 0),
    ADD COLUMN refund_pending_amount numeric(38, 0);
ALTER TABLE transfer_projections
    ALTER COLUMN refunds SET STATISTICS 10,
    ALTER COLUMN refunded_amount SET STATISTICS 10,
    ALTER COLUMN refund_pending_amount SET STATISTICS 10;
"""

_REFUNDED: Final = """

    -- Absolute numbers, of the batch's last event for each: whatever was applied before.
    FOR s IN
        SELECT * FROM unnest(r_wallet_id, r_id, r_refunded, r_pending)
            AS r(wallet_id, id, refunded, pending)
        WHERE wallet_id <> ALL (skipped)
        ORDER BY wallet_id, id
    LOOP
        UPDATE transfer_projections SET
            refunded_amount = s.refunded::numeric, refund_pending_amount = s.pending::numeric
        WHERE wallet_id = s.wallet_id AND transfer_id = s.id;
    END LOOP;
END $$;
"""

_PROJECT_BATCH_EDITS: Final[Mapping[str, str]] = {
    "    t_completed text[],\n": (
        "    t_completed text[],\n"
        "    -- what they refund; empty if none of them is a refund\n"
        "    t_refunds uuid[],\n"
    ),
    "            created_version, version, expires_at, on_expiry, completed_amount)\n": (
        "            created_version, version, expires_at, on_expiry, completed_amount, refunds)\n"
    ),
    "            expires_at, on_expiry, completed::numeric\n": (
        "            expires_at, on_expiry, completed::numeric, refunds\n"
    ),
    "            t_expires_at, t_on_expiry, t_completed)": (
        "            t_expires_at, t_on_expiry, t_completed, t_refunds)"
    ),
    "            completed)\n        WHERE": "            completed, refunds)\n        WHERE",
    "    c_overdraft_limit text[], c_metadata text[],\n": (
        "    c_overdraft_limit text[], c_metadata text[],\n"
        "    -- transfers that have refunds, what these have returned, and what pending ones hold\n"
        "    r_wallet_id uuid[], r_id uuid[], r_refunded text[], r_pending text[],\n"
    ),
    "\nEND $$;\n": _REFUNDED,
}

_CATCH_UP_EDITS: Final[Mapping[str, str]] = {
    "created_version, version, expires_at, on_expiry)\n": (
        "created_version, version, expires_at, on_expiry,\n        refunds)\n"
    ),
    "        version, version, expires_at, on_expiry\n": (
        "        version, version, expires_at, on_expiry, refunds\n"
    ),
    "\n    UPDATE wallet_projections SET\n        (version,": """
    FOR e IN
        SELECT DISTINCT ON (refunds) refunds, refunded_amount, refund_pending_amount
        FROM wallet_events
        WHERE wallet_id = wallet AND version > at AND version <= target AND refunds IS NOT NULL
        ORDER BY refunds, version DESC
    LOOP
        UPDATE transfer_projections SET refunded_amount = e.refunded_amount,
            refund_pending_amount = e.refund_pending_amount
        WHERE wallet_id = wallet AND transfer_id = e.refunds;
    END LOOP;

    UPDATE wallet_projections SET
        (version,""",
}

_END: Final = "\nEND $function$"
_TAKE_REFUNDS: Final = """

    -- Of a release that knows of no refund.
    UPDATE transfer_projections p SET refunds = t.refunds
    FROM unnest(t_wallet_id, t_id) AS i(wallet_id, id)
    CROSS JOIN LATERAL (
        SELECT * FROM transfers WHERE wallet_id = i.wallet_id AND id = i.id OFFSET 0
    ) t
    WHERE p.wallet_id = i.wallet_id AND p.transfer_id = i.id AND t.refunds IS NOT NULL;

    UPDATE transfer_projections p SET refunded_amount = o.refunded_amount,
        refund_pending_amount = o.refund_pending_amount
    FROM unnest(t_wallet_id || s_wallet_id, t_id || s_id) AS i(wallet_id, id)
    CROSS JOIN LATERAL (
        SELECT * FROM transfers WHERE wallet_id = i.wallet_id AND id = i.id OFFSET 0
    ) t
    CROSS JOIN LATERAL (
        SELECT * FROM transfers WHERE wallet_id = t.wallet_id AND id = t.refunds OFFSET 0
    ) o
    WHERE p.wallet_id = o.wallet_id AND p.transfer_id = o.id;
END $function$"""

_NEW_PARAMETERS: Final = 51


def upgrade() -> None:
    run_script(_COLUMNS)
    _edit_installed(_END, _TAKE_REFUNDS)
    project_batch = _functions.edited(_control._PROJECT_BATCH, _former._PROJECT_BATCH_EDITS)
    run_script(_functions.edited(project_batch, _PROJECT_BATCH_EDITS), single_statement=True)
    catch_up = _functions.edited(_control._CATCH_UP, _former._CATCH_UP_EDITS)
    run_script(_functions.edited(catch_up, _CATCH_UP_EDITS), single_statement=True)


def downgrade() -> None:
    run_script(drop_statements(revision))
    run_script(_DROP_NEW, single_statement=True)
    _edit_installed(_TAKE_REFUNDS, _END)
    catch_up = _functions.edited(_control._CATCH_UP, _former._CATCH_UP_EDITS)
    run_script(catch_up, single_statement=True)
    run_script(
        "ALTER TABLE transfer_projections DROP COLUMN refunds, DROP COLUMN refunded_amount, "
        "DROP COLUMN refund_pending_amount"
    )


def _edit_installed(old: str, new: str) -> None:
    edit = _functions.edit_installed("project_batch", old, new, below=_NEW_PARAMETERS)
    run_script(edit, single_statement=True)


_DROP_NEW: Final = f"""
DO $$ BEGIN
    EXECUTE (SELECT 'DROP FUNCTION ' || oid::regprocedure FROM pg_proc
        WHERE proname = 'project_batch' AND pronargs = {_NEW_PARAMETERS});
END $$
"""
