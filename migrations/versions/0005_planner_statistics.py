"""Small samples for the planner.

Why: rows are only found by key, so the planner needs few statistics. With the default sample of
30,000 rows, autoanalyze sorted the samples of three growing tables, column by column, whenever a
tenth of the rows was new. Under load that was every ten seconds and took a quarter of a second of
CPU at once; requests at that moment were among the slowest percent. A tenth of the sample takes a
tenth of the time.

Revision ID: 0005
"""

from typing import Final

from migrations.scripts import run_script

revision = "0005"
down_revision = "0004"

TARGET: Final = 10
"""Most common values and histogram steps kept of a column; 300 times as many rows are sampled."""

TABLES: Final = (
    "wallets",
    "wallet_references",
    "transfers",
    "wallet_events",
    "idempotency_keys",
    "outbox",
    "wallet_projections",
    "transfer_projections",
)
"""Tables that grow with wallets or transfers."""

_SET: Final = """
DO $$
DECLARE
    name text;
    tab regclass;
BEGIN
    FOR tab, name IN
        SELECT attrelid, attname FROM pg_attribute
        WHERE attrelid = ANY ('{TABLES}'::regclass[]) AND attnum > 0 AND NOT attisdropped
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET STATISTICS TARGET', tab, name);
    END LOOP;
END
$$
"""


def upgrade() -> None:
    run_script(_set(TARGET), single_statement=True)


def downgrade() -> None:
    run_script(_set(-1), single_statement=True)


def _set(target: int) -> str:
    """-1: the server's `default_statistics_target`."""
    return _SET.replace("TABLES", ",".join(TABLES)).replace("TARGET", str(target))
