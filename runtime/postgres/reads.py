"""A pool of connections for reads, with one time limit and one error for whatever goes wrong."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

Row = asyncpg.Record

_FAILURES: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)


class ReadUnavailable(Exception):
    """Postgres did not respond to a read."""


class ReadPool:
    """Runs single statements. The composition root owns the pool."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float) -> None:
        """``timeout_s``: of a statement, with the wait for a connection."""
        self._pool = pool
        self._timeout_s = timeout_s

    async def row(self, sql: str, *arguments: object) -> Row | None:
        """The first row; None if there is none.

        Raises:
            ReadUnavailable: no response, or an error.
        """
        row: Row | None = await self._execute(lambda: self._pool.fetchrow(sql, *arguments))
        return row

    async def rows(self, sql: str, *arguments: object) -> list[Row]:
        """All rows.

        Raises:
            ReadUnavailable: no response, or an error.
        """
        rows: list[Row] = await self._execute(lambda: self._pool.fetch(sql, *arguments))
        return rows

    async def _execute(self, operation: Callable[[], Awaitable[Any]]) -> Any:
        try:
            # Includes the wait for a connection: a read never queues longer than this.
            async with asyncio.timeout(self._timeout_s):
                return await operation()
        except _FAILURES as error:
            raise ReadUnavailable(f"{type(error).__name__}: {error}") from error
