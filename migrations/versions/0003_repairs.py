"""What went wrong and is being mended: events that a projection can't fold, streams that were lost.

Why: a poison event must not stop its partition, and must not be forgotten either
(`projection_dead_letters`). A stream that was deleted and made again has lost events that the
outbox no longer knows: `stream_incarnations` remembers which incarnation of the stream holds all
of the journal, so that a new one is noticed, also after a restart, and refilled.

Revision ID: 0003
"""

from migrations.scripts import run_script

revision = "0003"
down_revision = "0002"

_TABLES = """
CREATE TABLE projection_dead_letters (
    stream_sequence bigint NOT NULL,
    event_id        text NOT NULL,
    subject         text NOT NULL,
    payload         bytea NOT NULL,
    reason          text NOT NULL,
    attempts        integer NOT NULL,
    failed_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (event_id, stream_sequence)
);

CREATE TABLE stream_incarnations (
    stream      text PRIMARY KEY,
    created     text NOT NULL,
    refilled_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


def upgrade() -> None:
    run_script(_TABLES)


def downgrade() -> None:
    run_script("DROP TABLE stream_incarnations, projection_dead_letters")
