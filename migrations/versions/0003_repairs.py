"""Repairs: dead letters of the projection, and the backfill of lost streams.

Why: a poison event must not stop its partition, and must not be lost either
(`projection_dead_letters`). A stream that was deleted and created again has lost events that the
outbox no longer has: `stream_incarnations` stores which incarnation of the stream has the whole
journal, so that a new one is detected, also after a restart, and backfilled.

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
