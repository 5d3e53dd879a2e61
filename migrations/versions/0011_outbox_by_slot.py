"""An index of the outbox by hash slot, so that a shard finds its own rows.

Why: each shard read the whole table once a second and dropped what others own, which cost Postgres
25 to 35 ms per shard at 20,000 rows. With this index the cost is that of the shard's own rows.

The slot is an expression of the wallet's id (`wallet.slots`), so shards of earlier releases write
it without knowing of it. Their sweeps use the primary key, as before. The age is in the index so
that young rows, which are almost all of them, are passed over without a look into the table. It is
an expression so that the planner can't prefer `outbox_by_age`, which has dead rows where it begins.

The index is built under a lock that blocks writes of events. The table has the events of a few
seconds, unless the stream is unavailable.

Revision ID: 0011
"""

from typing import Final

from migrations.scripts import run_script

revision = "0011"
down_revision = "0010"

_INDEX: Final = """
CREATE INDEX outbox_by_slot ON outbox
    ((crc32(wallet_id::text::bytea) & 16383), wallet_id, first_version,
    (created_at AT TIME ZONE 'UTC'));
ALTER INDEX outbox_by_slot ALTER COLUMN 1 SET STATISTICS 10;
ALTER INDEX outbox_by_slot ALTER COLUMN 4 SET STATISTICS 10
"""


def upgrade() -> None:
    run_script(_INDEX)


def downgrade() -> None:
    run_script("DROP INDEX outbox_by_slot")
