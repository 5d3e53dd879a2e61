"""A write to Postgres that changes nothing, on a connection of its own.

It asks for what a batch needs: a server that takes writes, and each table for writing (a table that
somebody has locked makes it wait, as it would a batch). What it commits is a message in the
write-ahead log, so its commit waits for the disk and for synchronous standbys as a batch's does.
"""

from typing import Final

import asyncpg

from actors.connection import Connection
from actors.write_health import ProbeFailed

TABLES: Final = {
    "wallets": "id",
    "wallet_references": "wallet_id",
    "transfers": "id",
    "wallet_events": "wallet_id",
    "idempotency_keys": "wallet_id",
    "outbox": "wallet_id",
    "refused_deliveries": "wallet_id",
}
"""What `commit_batch` writes to, each with a column; a test compares the two."""

_INSERTS: Final = "\n".join(
    f"INSERT INTO {table} ({column}) SELECT NULL WHERE false;" for table, column in TABLES.items()
)
_ALLOCATE: Final = """
CREATE TEMPORARY TABLE wallet_probe ON COMMIT DROP AS SELECT n FROM generate_series(1, 8192) AS n;
"""
"""Some 300 KB. Only after the disk was full: each time leaves dead rows in the catalogue."""

_COMMIT: Final = "SELECT pg_logical_emit_message(true, 'wallet.probe', ''); COMMIT"

_LOST: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


class PostgresWriteProbe:
    """Implements `WriteProbe`. A cancelled write is cancelled on the server, too."""

    def __init__(self, dsn: str, *, connect_timeout_s: float) -> None:
        self._dsn = dsn
        self._connect_timeout_s = connect_timeout_s
        self._connection: Connection | None = None

    async def write(self, *, allocating: bool) -> None:
        whole = False
        try:
            connection = await self._open()
            await connection.execute(
                f"BEGIN; {_INSERTS} {_ALLOCATE if allocating else ''} {_COMMIT}"
            )
            whole = True
        except asyncpg.PostgresError as error:
            raise ProbeFailed(f"{error.sqlstate or ''} {error}".strip()) from error
        except _LOST as error:
            raise ProbeFailed(f"{type(error).__name__}: {error}") from error
        finally:
            if not whole:
                self.close()

    def close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.terminate()

    async def _open(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._dsn,
                timeout=self._connect_timeout_s,
                server_settings={"application_name": "wallet-probe", "timezone": "UTC"},
            )
        return self._connection
