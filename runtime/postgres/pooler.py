"""Recognises a connection pooler that doesn't keep a session on one backend.

Theory of operation. The service needs a session: settings are sent when it starts, statements are
prepared in it, advisory locks belong to it, and a backend that was abandoned is terminated by its
pid. A pooler in transaction mode (PgBouncer, PgCat, Odyssey, Supavisor) gives each transaction
another backend, and all four break without an error, or with a misleading one.

Each new connection is checked by one statement. It returns the backend's pid, which the server also
sent when the session started, and a setting that the session started with. A server, or a proxy
that forwards bytes (HAProxy, a load balancer), returns both unchanged. A pooler makes up its own
pid. Only then is a second connection opened, and both run a few statements in turn: with a pooler
in transaction mode two open sessions share a backend, or one session changes it, whether the pooler
reuses the most or the least recently used backend. A proxy that keeps sessions is accepted.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

MARKER: Final = {"wallet.session": "kept"}
"""A setting that every session starts with. Postgres accepts any name with a dot."""

_CHECK: Final = "SELECT pg_backend_pid(), current_setting('wallet.session', true)"
_BACKEND: Final = "SELECT pg_backend_pid()"

_ROUNDS: Final = 3

_UNSUPPORTED_PARAMETER: Final = "unsupported startup parameter"
"""PgBouncer's error for a setting that it doesn't forward."""

_FOREIGN_SESSION: Final = (
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
"""A statement that this session prepared is unknown, or one that it didn't prepare is known."""


def refused_startup(error: BaseException) -> str | None:
    """Why ``error`` is a pooler's refusal of the session's settings; None if it is another one."""
    text = _first_line(error)
    return text if _UNSUPPORTED_PARAMETER in text else None


async def pooler_evidence(
    connection: Connection, another: Callable[[], Awaitable[Connection]]
) -> str | None:
    """Why ``connection`` can't be a session of its own; None if it is one.

    ``another`` opens a second connection in the same way, and is called only when in doubt.
    """
    try:
        pid, marker = await connection.fetchrow(_CHECK) or (0, None)
        if marker != MARKER["wallet.session"]:
            return "it drops the settings sent at session start"
        if pid == connection.get_server_pid():
            return None
        return await _changing_backend(connection, another)
    except _FOREIGN_SESSION as error:
        return _first_line(error)  # A hint of the driver follows.


async def _changing_backend(
    connection: Connection, another: Callable[[], Awaitable[Connection]]
) -> str | None:
    first = [await connection.fetchval(_BACKEND) for _ in range(_ROUNDS)]
    second_connection = await another()
    try:
        second = []
        for _ in range(_ROUNDS):
            second.append(await second_connection.fetchval(_BACKEND))
            first.append(await connection.fetchval(_BACKEND))
    finally:
        second_connection.terminate()
    if set(first) & set(second):
        return "two open sessions share a backend"
    if len(set(first)) > 1 or len(set(second)) > 1:
        return "a session changes its backend"
    return None


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
