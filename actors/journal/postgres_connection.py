"""One Postgres connection that reconnects when needed and is closed after any doubtful error.

Theory of operation. A statement has three time limits: `lock_timeout` and `statement_timeout` on
the server, and this client's own time-out above them. With the server's, the statement is rolled
back and the error says so. The client's is for a server that does not respond, and for the one wait
that no server time-out ends: a commit that waits for a synchronous standby. A statement that the
client abandons continues in its backend, so the next connection first terminates that backend. A
connection never has more than one statement running, and never leaves more than a few backends.

A connection has a number, its session. What was read over one session may not hold in the next one:
its server may be a promoted standby that lacks the last commits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import asyncpg
import structlog
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from actors.journal.ports import (
    JournalBusy,
    JournalConflict,
    JournalError,
    JournalUnavailable,
    OutcomeUnknown,
    SessionLost,
)
from runtime.postgres.connect import CONNECT_ERRORS, Connector
from runtime.postgres.session import Session
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_CONNECTION_ERRORS: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)
"""The connection broke, possibly during a statement."""

_BREAKER_FAILURES: Final = 3
_BREAKER_OPEN_S: Final = 0.5
"""After this many failures in a row, calls fail immediately for this long, instead of each waiting
for its own time-out (circuit breaker)."""

T = TypeVar("T")
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_CONFLICTS: Final = frozenset({"WV001", "WV002", "WV003", "WV004", "23505", "40001", "40P01"})
"""Ours, unique violation, serialization failure, deadlock: another writer committed first."""

_ROLLED_BACK: Final = frozenset({"57014", "55P03"})
"""`statement_timeout` and `lock_timeout`: the server cancelled the statement, and is healthy."""

_SHUTDOWN_STATES: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})
"""The server is shutting down; the statement may have been applied."""

_CONTENT_CLASSES: Final = ("22", "23", "42")
"""Data exceptions, integrity violations, syntax and access rules: errors of the statement, not of
the server."""

_STANDBY_WAIT: Final = "SyncRepWaitForLSN"
"""The server's function whose warnings say that a commit is reported as a success though no
synchronous standby has it. Their SQLSTATE is that of any warning, and their text is translated."""

_STATEMENT_SHARE: Final = 0.8
_LOCK_SHARE: Final = 0.3
"""The server's time-outs as fractions of the client's: they must fire first. Waiting for a lock
delays a whole batch, so `lock_timeout` is the shorter one."""

_CHECK_CLIENT_MS: Final = 1_000
"""How often a backend checks during a statement whether its client is still connected."""

_END_BACKEND_MS: Final = 250
"""How long to wait for an abandoned backend to terminate. It may never do so, if a disk hangs. The
connection is used anyway: the journal's locks and constraints keep the data correct."""

_GIVEN_UP_MAX: Final = 4
"""Most abandoned backends that are tracked; the oldest is dropped."""

_WHO: Final = "SELECT pid, backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"

_END_BACKEND: Final = """
SELECT pg_terminate_backend(pid, $3) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
"""


_CONFIRM: Final = """
SELECT set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'wallet', '')
WHERE current_setting('synchronous_standby_names') <> ''
"""


class _Backend(NamedTuple):
    """A server process. ``started`` distinguishes it from a later one with the same pid."""

    pid: int
    started: datetime


class ReconnectingConnection:
    """Not a pool: a shard writes one batch at a time, and one connection keeps its order."""

    def __init__(
        self,
        dsn: str,
        *,
        statement_timeout_s: float,
        connect_timeout_s: float,
        settings: Mapping[str, str],
    ) -> None:
        self._statement_timeout_s = statement_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._connector = Connector(
            dsn,
            timeout_s=connect_timeout_s,
            settings={**_server_bounds(statement_timeout_s), **settings},
        )
        self._connection: Session | None = None
        self._session = 0
        self._backend: _Backend | None = None
        self._given_up: list[_Backend] = []
        """Backends of closed connections that may still be active; the next connection terminates
        them."""
        self._warning: str | None = None
        self._lock = asyncio.Lock()
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=_BREAKER_FAILURES,
            default_ttl=_BREAKER_OPEN_S,
            exclude=[
                JournalConflict,
                JournalError,
                JournalBusy,
                SessionLost,
                asyncio.CancelledError,
            ],
        )

    @property
    def session(self) -> int | None:
        """Number of the open connection, counted from 1; None while there is none."""
        if self._connection is None or self._connection.is_closed():
            return None
        return self._session

    async def connect(self) -> int:
        """Connect unless connected; returns the session.

        Raises:
            JournalUnavailable: no connection.
        """
        async with self._lock:
            await self._guarded(self._open)
        return self._session

    async def read(
        self, operation: Callable[[Connection], Awaitable[T]], *, session: int | None = None
    ) -> T:
        """Run ``operation``, which is safe to lose or repeat.

        ``session``: the only one that it may use; None: any.

        Raises:
            SessionLost: that session has ended.
            JournalUnavailable: no connection, or no response in time.
        """
        async with self._lock:
            try:
                return await self._guarded(lambda: self._execute(operation, session))
            except OutcomeUnknown as failure:
                raise JournalUnavailable(str(failure)) from failure

    async def write(
        self, operation: Callable[[Connection], Awaitable[T]], *, session: int | None = None
    ) -> T:
        """Run ``operation``, one statement that commits by itself, over ``session`` or any.

        Raises:
            SessionLost: that session has ended; not applied.
            JournalConflict: a version or unique key conflict; not applied.
            JournalError: the server rejected it; not applied.
            JournalUnavailable: not applied.
            OutcomeUnknown: sent, and no response; or applied, and not replicated.
        """
        async with self._lock:
            self._warning = None
            answer = await self._guarded(lambda: self._execute(operation, session))
            if self._warning is not None:
                raise OutcomeUnknown(self._warning)
            return answer

    async def confirm(self) -> None:
        """Return once a synchronous standby, if one is configured, has all that is visible now.

        Raises:
            JournalUnavailable: no confirmation in time.
        """
        try:
            await self.write(lambda connection: connection.execute(_CONFIRM))
        except OutcomeUnknown as failure:
            raise JournalUnavailable(str(failure)) from failure

    async def close(self) -> None:
        async with self._lock:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                connection.terminate()

    async def _guarded(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            async with await self._breakers.get_breaker("postgres"):
                return await work()
        except OpenedState as error:
            raise JournalUnavailable("Postgres has not answered recently") from error

    async def _execute(
        self, operation: Callable[[Connection], Awaitable[T]], session: int | None
    ) -> T:
        connection = await self._open() if session is None else self._of(session)
        try:
            with connection.watch:
                async with asyncio.timeout(self._statement_timeout_s):
                    return await operation(connection)
        except asyncpg.PostgresError as error:
            raise self._translate_error(error) from error
        except _CONNECTION_ERRORS as error:
            self._discard()
            raise OutcomeUnknown(f"{type(error).__name__}: {error}") from error
        except asyncio.CancelledError:
            self._discard()
            raise

    def _translate_error(self, error: asyncpg.PostgresError) -> Exception:
        state = error.sqlstate or ""
        message = f"{state} {error}"
        if state in _CONFLICTS:
            return JournalConflict(message, wallet_ids=_named_in(error))
        if state in _ROLLED_BACK:
            return JournalBusy(message)
        if state in _SHUTDOWN_STATES or state.startswith("08"):
            self._discard()
            return OutcomeUnknown(message)
        if not state.startswith(_CONTENT_CLASSES):
            # The server may have become read-only (a failover): the next call reconnects.
            self._discard()
        return JournalError(message)

    def _of(self, session: int) -> Session:
        if self.session != session:
            raise SessionLost(f"session {session} has ended")
        assert self._connection is not None, "an open session has a connection"
        return self._connection

    async def _open(self) -> Session:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._discard()
        try:
            connection = await self._connector.connect()
            try:
                await self._take(connection)
            except BaseException:
                connection.terminate()
                raise
        except CONNECT_ERRORS as error:
            raise JournalUnavailable(f"{type(error).__name__}: {error}") from error
        return connection

    async def _take(self, connection: Session) -> None:
        """Use ``connection`` from now on, after terminating the backends of previous ones."""
        async with asyncio.timeout(
            self._connect_timeout_s + _GIVEN_UP_MAX * _END_BACKEND_MS / 1000
        ):
            await self._end_given_up(connection)
            who = await connection.fetchrow(_WHO)
        connection.add_log_listener(self._note_warning)
        self._backend = _Backend(*who) if who is not None else None
        self._connection = connection
        self._session += 1

    async def _end_given_up(self, connection: Connection) -> None:
        for backend in list(self._given_up):
            try:
                ended = await connection.fetchval(_END_BACKEND, *backend, _END_BACKEND_MS)
            except asyncpg.PostgresError as error:
                ended, cause = False, str(error)
            else:
                cause = "it does not terminate"
            if ended is False:
                _log.warning("abandoned backend still running", pid=backend.pid, cause=cause)
            else:
                self._given_up.remove(backend)

    def _note_warning(self, _connection: object, message: Any) -> None:
        """Called by the driver before it returns the statement's result."""
        if message.server_source_function == _STANDBY_WAIT:
            self._warning = f"{message.sqlstate} {message}"

    def _discard(self) -> None:
        if self._connection is None:
            return
        self._connection.terminate()
        self._connection = None
        if self._backend is not None:
            self._given_up = [*self._given_up, self._backend][-_GIVEN_UP_MAX:]
            self._backend = None


def _server_bounds(timeout_s: float) -> dict[str, str]:
    """The server's time-outs, which fire before the client's."""
    return {
        "statement_timeout": str(max(int(timeout_s * _STATEMENT_SHARE * 1000), 1)),
        "lock_timeout": str(max(int(timeout_s * _LOCK_SHARE * 1000), 1)),
        "client_connection_check_interval": str(_CHECK_CLIENT_MS),
    }


def _named_in(error: asyncpg.PostgresError) -> frozenset[WalletId]:
    """The wallets that the error's detail names; empty if none."""
    if not (error.sqlstate or "").startswith("WV"):
        return frozenset()
    detail = str(error.as_dict().get("detail") or "")
    return frozenset(WalletId(one) for one in detail.split(",") if one)
