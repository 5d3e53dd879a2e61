"""A write to Postgres that changes nothing, on a connection of its own.

It needs what a batch needs: a server that accepts writes, and write access to each table (a locked
table makes it wait, like a batch). It commits a message in the write-ahead log, so its commit waits
for the disk and for synchronous standbys as a batch's does.

Its connection is of the same kind as a batch's: the same server time-outs apply, a cancelled wait
for a standby counts as no confirmation, and the backend of an abandoned probe is terminated before
the next one is written. So there are never more than two backends.
"""

from typing import Final

import asyncpg

from actors.journal.ports import JournalConflict, JournalUnavailable, OutcomeUnknown
from actors.journal.postgres_connection import ReconnectingConnection
from actors.journal.probe_ports import ProbeFailed

PROBE_SETTINGS: Final = {"application_name": "wallet-probe", "timezone": "UTC"}

TABLES: Final = {
    "wallets": "id",
    "wallet_references": "wallet_id",
    "transfers": "id",
    "wallet_events": "wallet_id",
    "idempotency_keys": "wallet_id",
    "outbox": "wallet_id",
    "refused_deliveries": "wallet_id",
    "wallet_changes": "wallet_id",
    "transfer_expiries": "wallet_id",
}
"""What `commit_batch` writes to, each with a column; a test compares the two."""

_INSERTS: Final = "\n".join(
    f"INSERT INTO {table} ({column}) SELECT NULL WHERE false;" for table, column in TABLES.items()
)
_ALLOCATE: Final = """
CREATE TEMPORARY TABLE wallet_probe ON COMMIT DROP AS SELECT n FROM generate_series(1, 8192) AS n;
"""
"""About 300 KB. Only after the disk was full: each run leaves dead rows in the system catalogue."""

# One statement: it commits by itself, so no transaction stays open if it is abandoned.
_PROBE: Final = """
DO $$
BEGIN
    {statements}
    PERFORM pg_logical_emit_message(true, 'wallet.probe', '');
END $$
"""
_WRITE: Final = _PROBE.format(statements=_INSERTS)
_WRITE_AND_ALLOCATE: Final = _PROBE.format(statements=_INSERTS + _ALLOCATE)


class PostgresWriteProbe:
    """Implements `WriteProbe`. ``connection`` is used for nothing else."""

    def __init__(self, connection: ReconnectingConnection) -> None:
        self._connection = connection

    async def write(self, *, allocating: bool) -> None:
        statement = _WRITE_AND_ALLOCATE if allocating else _WRITE
        try:
            await self._connection.write(lambda connection: connection.execute(statement))
        except (JournalConflict, JournalUnavailable, OutcomeUnknown) as failure:
            raise ProbeFailed(_reason(failure)) from failure


def _reason(failure: Exception) -> str:
    """The server's SQLSTATE and message, if the server responded."""
    cause = failure.__cause__
    if isinstance(cause, asyncpg.PostgresError):
        return f"{cause.sqlstate or ''} {cause}".strip()
    if isinstance(failure, OutcomeUnknown) and isinstance(cause, TimeoutError):
        return "a probe was not confirmed in time"
    return str(failure)
