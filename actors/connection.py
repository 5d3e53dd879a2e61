"""One Postgres connection that heals: opened when needed, dropped when in doubt."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from actors.ports import JournalConflict, JournalRefused, JournalUnavailable, OutcomeUnknown

_LOST: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)
"""The connection broke, or was broken in the middle of something."""

_BREAKER_FAILURES: Final = 3
_BREAKER_OPEN_S: Final = 0.5
"""After so many failures in a row Postgres is not asked for so long: callers are told at once
instead of each waiting for its own time-out."""

T = TypeVar("T")
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_CONFLICTS: Final = frozenset({"WV001", "WV002", "23505", "40001", "40P01"})
"""Ours, unique violation, serialization failure, deadlock: somebody else wrote first."""

_CLOSING: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})
"""The server is going away; what it was doing may have been finished."""


class HealingConnection:
    """Not a pool: a shard writes one batch at a time, and one connection keeps its order."""

    def __init__(
        self,
        dsn: str,
        *,
        statement_timeout_s: float,
        connect_timeout_s: float,
        settings: Mapping[str, str],
    ) -> None:
        self._dsn = dsn
        self._statement_timeout_s = statement_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._settings = dict(settings)
        self._connection: Connection | None = None
        self._lock = asyncio.Lock()
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=_BREAKER_FAILURES,
            default_ttl=_BREAKER_OPEN_S,
            exclude=[JournalConflict, JournalRefused, asyncio.CancelledError],
        )

    async def read(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """Run ``ask``, which changes nothing that matters if it is lost.

        Raises:
            JournalUnavailable: no connection, or no answer in time.
        """
        async with self._lock:
            try:
                return await self._run(ask)
            except OutcomeUnknown as failure:
                raise JournalUnavailable(str(failure)) from failure

    async def write(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        """Run ``ask``, one statement that commits by itself.

        Raises:
            JournalConflict: the statement was refused whole by a version or a unique key.
            JournalUnavailable: surely not applied.
            OutcomeUnknown: sent, and no answer came.
        """
        async with self._lock:
            return await self._run(ask)

    async def close(self) -> None:
        async with self._lock:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                connection.terminate()

    async def _run(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            async with await self._breakers.get_breaker("postgres"):
                return await self._ask(ask)
        except OpenedState as error:
            raise JournalUnavailable("Postgres did not answer lately") from error

    async def _ask(self, ask: Callable[[Connection], Awaitable[T]]) -> T:
        connection = await self._open()
        try:
            async with asyncio.timeout(self._statement_timeout_s):
                return await ask(connection)
        except asyncpg.PostgresError as error:
            raise self._classified(error) from error
        except _LOST as error:
            self._drop()
            raise OutcomeUnknown(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self._drop()
            raise

    def _classified(self, error: asyncpg.PostgresError) -> Exception:
        state = error.sqlstate or ""
        message = f"{state} {error}"
        if state in _CONFLICTS:
            return JournalConflict(message)
        if state in _CLOSING or state.startswith("08"):
            self._drop()
            return OutcomeUnknown(message)
        # It may be a server that can't write any more (a failover): the next call connects anew.
        self._drop()
        return JournalRefused(message)

    async def _open(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        try:
            self._connection = await asyncpg.connect(
                self._dsn,
                timeout=self._connect_timeout_s,
                server_settings=self._settings,
            )
        except (asyncpg.PostgresError, *_LOST) as error:
            raise JournalUnavailable(f"{type(error).__name__}: {error}") from error
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
