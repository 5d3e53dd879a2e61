"""Shards of earlier releases leave alone what they would misjudge; wallets by metadata.

Why: during an upgrade, and after a rollback, they read the same wallets as this release's shards.
Money was safe: no old function settles what expires or has parts (0014), and versions are checked.
Their answers were not, as a test of both releases side by side showed:

- A wallet that is frozen in one direction looked frozen in both. A credit was refused for good, 409
  under its key, where only debits are stopped. Now that is a conflict of the wallet: 503, nothing
  applied.
- The repetition of a settlement got the transfer without the part that had been completed of it, as
  if all or nothing had moved. Now a batch that answers from what it read is a conflict for wallets
  that have such a transfer. `transfers_completed_in_part` finds them; it is nearly always empty.
- A settlement that an old function declines (WV002) named no wallet, so the shard answered 503 for
  all wallets of the batch. Now it names them, and the others are written.

Only functions of earlier releases are changed. (Decision 0083)

And an index of wallets by what their metadata contains, for lists: `wallet_projections_by_metadata`
(Decision 0084). Indexes are built after this migration (`migrations.online_indexes`).

Revision ID: 0019
"""

from importlib import import_module
from typing import Final

from migrations.online_indexes import drop_statements
from migrations.scripts import run_script

revision = "0019"
down_revision = "0018"

_BEFORE: Final = (
    "    -- A transaction of an earlier delivery may be open: wait for its end before reading "
    "versions.\n"
)
_GUARD: Final = """    -- What this release's callers don't know: see the migration 0019.
    IF existing > 0 THEN
        SELECT string_agg(w.id::text, ',') INTO conflicting FROM wallets w
        WHERE w.id = ANY (w_id) AND (w.frozen IN ('debit', 'credit') OR (confirm AND EXISTS (
            SELECT FROM transfers t WHERE t.wallet_id = w.id AND t.settled_amount IS NOT NULL)));
        IF conflicting IS NOT NULL THEN
            RAISE EXCEPTION 'a later release knows more of a wallet'
                USING ERRCODE = 'WV001', DETAIL = conflicting;
        END IF;
    END IF;

"""

_SETTLED: Final = (
    "            RAISE EXCEPTION 'a transfer was settled already' USING ERRCODE = 'WV002';"
)
_SETTLED_NAMED: Final = """\
            RAISE EXCEPTION 'a transfer was settled already' USING ERRCODE = 'WV002', DETAIL = (
                SELECT coalesce(string_agg(DISTINCT e.wallet_id::text, ','), '')
                FROM unnest(e_wallet_id, e_transfer_id, e_previous)
                    AS e(wallet_id, transfer_id, previous)
                LEFT JOIN transfers t ON t.wallet_id = e.wallet_id AND t.id = e.transfer_id
                WHERE e.previous IS NOT NULL
                    AND t.xmin IS DISTINCT FROM pg_current_xact_id()::xid);"""

_KNOWS_CONTROL: Final = 48
_KNOWS_HOLDS: Final = 52
"""Parameters of the first function whose callers know freezes by direction, and parts."""

edit_installed: Final = import_module("migrations.versions.0014_transfer_expiries").edit_installed


def _edit(old: str, new: str, *, below: int) -> None:
    run_script(edit_installed("commit_batch", old, new, below=below), single_statement=True)


def upgrade() -> None:
    _edit(_BEFORE, _GUARD + _BEFORE, below=_KNOWS_CONTROL)
    _edit(_SETTLED, _SETTLED_NAMED, below=_KNOWS_HOLDS)


def downgrade() -> None:
    run_script(drop_statements(revision))
    _edit(_SETTLED_NAMED, _SETTLED, below=_KNOWS_HOLDS)
    _edit(_GUARD + _BEFORE, _BEFORE, below=_KNOWS_CONTROL)
