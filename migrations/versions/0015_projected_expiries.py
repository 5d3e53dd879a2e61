"""Projections say when a transfer expires, and what becomes of it then.

Why: a read must show it without a look at the write side. `project_batch` takes it in two columns
that are empty in a batch without such a transfer. `catch_up` takes it from the journal.

Old consumers call functions of earlier releases and don't know what expires. Those take it from the
write side's row, which is there: an event is in the journal before it is on the stream.

The columns have no default, so no table is rewritten.

Revision ID: 0015
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

from migrations.scripts import run_script

revision = "0015"
down_revision = "0014"

_former = import_module("migrations.versions.0013_projected_control")
_functions = import_module("migrations.versions.0014_transfer_expiries")

_COLUMNS: Final = """
ALTER TABLE transfer_projections
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN on_expiry text,
    ADD COLUMN completed_amount numeric(38, 0);
ALTER TABLE transfer_projections
    ALTER COLUMN expires_at SET STATISTICS 10,
    ALTER COLUMN on_expiry SET STATISTICS 10,
    ALTER COLUMN completed_amount SET STATISTICS 10;
"""

_PROJECT_BATCH_EDITS: Final[Mapping[str, str]] = {
    "    t_version bigint[],\n": (
        "    t_version bigint[],\n"
        "    -- when they expire, and how; empty if none of them does\n"
        "    t_expires_at timestamptz[], t_on_expiry text[],\n"
        "    -- what was completed of them, if a part; empty if of none of them\n"
        "    t_completed text[],\n"
    ),
    "            reference_id, metadata, failure_reason, created_at, settled_at, created_version,\n"
    "            version)\n        SELECT": (
        "            reference_id, metadata, failure_reason, created_at, settled_at,\n"
        "            created_version, version, expires_at, on_expiry, completed_amount)\n"
        "        SELECT"
    ),
    "            failure_reason, created_at, settled_at, created_version, version\n": (
        "            failure_reason, created_at, settled_at, created_version, version,\n"
        "            expires_at, on_expiry, completed::numeric\n"
    ),
    "t_failure_reason, t_created_at, t_settled_at, t_created_version, t_version)": (
        "t_failure_reason, t_created_at, t_settled_at, t_created_version, t_version,\n"
        "            t_expires_at, t_on_expiry, t_completed)"
    ),
    "            created_at, settled_at, created_version, version)\n        WHERE": (
        "            created_at, settled_at, created_version, version, expires_at, on_expiry,\n"
        "            completed)\n"
        "        WHERE"
    ),
    "settled_at = excluded.settled_at, version = excluded.version\n": (
        "settled_at = excluded.settled_at, version = excluded.version,\n"
        "            completed_amount = excluded.completed_amount\n"
    ),
    "    s_failure_reason text[], s_settled_at timestamptz[], s_version bigint[],\n": (
        "    s_failure_reason text[], s_settled_at timestamptz[], s_version bigint[],\n"
        "    s_completed text[],\n"
    ),
    "            s_failure_reason, s_settled_at, s_version)\n": (
        "            s_failure_reason, s_settled_at, s_version, s_completed)\n"
    ),
    "failure_reason, settled_at,\n            version)\n": (
        "failure_reason, settled_at,\n            version, completed)\n"
    ),
    "settled_at = s.settled_at, version = s.version\n": (
        "settled_at = s.settled_at, version = s.version,\n"
        "            completed_amount = s.completed::numeric\n"
    ),
}

_CATCH_UP_EDITS: Final[Mapping[str, str]] = {
    "metadata, created_at, settled_at, created_version, version)\n    SELECT": (
        "metadata, created_at, settled_at, created_version, version, expires_at, on_expiry)\n"
        "    SELECT"
    ),
    "        version, version\n    FROM wallet_events\n": (
        "        version, version, expires_at, on_expiry\n    FROM wallet_events\n"
    ),
    "            status = substr(e.type, 10), reference_id": (
        "            status = CASE WHEN e.type = 'transfer.partially_completed' THEN 'pending'\n"
        "                ELSE substr(e.type, 10) END,\n"
        "            reference_id"
    ),
    "settled_at = e.occurred_at, version = e.version\n": (
        "version = e.version,\n"
        "            settled_at = CASE WHEN e.type = 'transfer.partially_completed' THEN NULL\n"
        "                ELSE e.occurred_at END,\n"
        "            completed_amount = e.completed_amount\n"
    ),
}

_END: Final = "\nEND $function$"
_TAKE_EXPIRIES: Final = """

    -- Of a release that knows of no expiry.
    UPDATE transfer_projections p SET expires_at = t.expires_at, on_expiry = t.on_expiry
    FROM unnest(t_wallet_id, t_id) AS i(wallet_id, id)
    CROSS JOIN LATERAL (
        SELECT * FROM transfers WHERE wallet_id = i.wallet_id AND id = i.id OFFSET 0
    ) t
    WHERE p.wallet_id = i.wallet_id AND p.transfer_id = i.id AND t.expires_at IS NOT NULL;

    -- Nor of a part.
    UPDATE transfer_projections p SET completed_amount = t.settled_amount
    FROM unnest(t_wallet_id || s_wallet_id, t_id || s_id) AS i(wallet_id, id)
    CROSS JOIN LATERAL (
        SELECT * FROM transfers WHERE wallet_id = i.wallet_id AND id = i.id OFFSET 0
    ) t
    WHERE p.wallet_id = i.wallet_id AND p.transfer_id = i.id AND p.status = t.status
        AND t.settled_amount IS NOT NULL;
END $function$"""

_NEW_PARAMETERS: Final = 46


def upgrade() -> None:
    run_script(_COLUMNS)
    _edit_installed(_END, _TAKE_EXPIRIES)
    project_batch = _functions.edited(_former._PROJECT_BATCH, _PROJECT_BATCH_EDITS)
    run_script(project_batch, single_statement=True)
    run_script(_functions.edited(_former._CATCH_UP, _CATCH_UP_EDITS), single_statement=True)


def downgrade() -> None:
    run_script(_DROP_NEW, single_statement=True)
    _edit_installed(_TAKE_EXPIRIES, _END)
    run_script(_former._CATCH_UP, single_statement=True)
    run_script(
        "ALTER TABLE transfer_projections DROP COLUMN expires_at, DROP COLUMN on_expiry, "
        "DROP COLUMN completed_amount"
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
