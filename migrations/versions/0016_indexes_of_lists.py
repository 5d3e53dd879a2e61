"""Indexes of lists: wallets by age, currency, status and prefix; transfers by what they are.

Why: a list with a filter scanned everything, newest first, until it had a page. Each of these
indexes is in the order of a list, so a page is one scan of it.

They are built after this migration, without a lock that blocks writes
(`migrations.online_indexes`). On the write side there is one, over columns that never change. On
the read side only `transfer_projections_by_status` has a column that does: the settlement of a
transfer writes all indexes of its row.

Revision ID: 0016
"""

from migrations.online_indexes import drop_statements
from migrations.scripts import run_script

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Nothing yet: see `migrations.online_indexes`."""


def downgrade() -> None:
    run_script(drop_statements(revision))
