"""Marks: which sequences the stream has acknowledged and synced.

Why: a NATS store that is put back from a copy keeps the stream's creation time, and a purge does,
too. Only the sequences tell. A mark is written by the statement that deletes the outbox rows of its
events, so that each event is in the outbox or at or below a mark (`stream_marks`). `fill` names the
last fill of a stream in place that was finished.

Shards of earlier releases write no marks and don't read `fill`: they work as before.

Revision ID: 0010
"""

from migrations.scripts import run_script

revision = "0010"
down_revision = "0009"

_TABLES = """
ALTER TABLE stream_incarnations ADD COLUMN fill text NOT NULL DEFAULT '';

CREATE TABLE stream_marks (
    stream          text NOT NULL,
    incarnation     text NOT NULL,
    sequence        bigint NOT NULL,
    acknowledged_at timestamptz NOT NULL,
    max_age_s       double precision NOT NULL,
    since           timestamptz NOT NULL,
    PRIMARY KEY (stream, incarnation, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.0, autovacuum_vacuum_threshold = 5000);

COMMENT ON COLUMN stream_marks.acknowledged_at IS 'When its publish began, before it was stored.';
COMMENT ON COLUMN stream_marks.max_age_s IS 'How long the stream keeps it; 0: no limit.';
COMMENT ON COLUMN stream_marks.since IS
    'Oldest outbox row of the events between the mark below and this one.';
"""


def upgrade() -> None:
    run_script(_TABLES)


def downgrade() -> None:
    run_script("DROP TABLE stream_marks;\nALTER TABLE stream_incarnations DROP COLUMN fill")
