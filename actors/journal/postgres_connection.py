"""One Postgres connection that is opened again when needed and dropped when in doubt.

Theory of operation. A statement has three bounds: `lock_timeout` and `statement_timeout` on the
server, and this client's own time-out above them. The server's are for what it can end cleanly:
the statement is rolled back and the error says so. The client's is for a server that says nothing,
and for the one wait that no server time-out ends: a commit that waits for a synchronous standby.
A statement that the client gives up goes on in its backend, so the next connection first ends that
backend. There is never more than one statement of a connection under way, and never more than a
few backends.

A connection has a number, its session. What was read over one session may not be true over the
next one: the server behind it may be a standby that was promoted and lacks the last commits.
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
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_CONNECTION_ERRORS: Final = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    TimeoutError,
)
"""The connection broke, or was broken in the middle of something."""

_BREAKER_FAILURES: Final = 3
_BREAKER_OPEN_S: Final = 0.5
"""After so many failures in a row Postgres is not asked for so long: callers are answered at once
instead of each waiting for its own time-out."""

T = TypeVar("T")
if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_CONFLICTS: Final = frozenset({"WV001", "WV002", "WV003", "23505", "40001", "40P01"})
"""Ours, unique violation, serialization failure, deadlock: somebody else wrote first."""

_ROLLED_BACK: Final = frozenset({"57014", "55P03"})
"""`statement_timeout` and `lock_timeout`: the server ended the statement, and is well."""

_SHUTDOWN_STATES: Final = frozenset({"57P01", "57P02", "57P03", "57P05"})
"""The server is going away; what it was doing may have been finished."""

_CONTENT_CLASSES: Final = ("22", "23", "42")
"""Data exceptions, integrity, names and rights: the statement is at fault, not the server."""

_STANDBY_WAIT: Final = "SyncRepWaitForLSN"
"""The server's function whose warnings say that a commit is reported as a success though no
synchronous standby has it. Their SQLSTATE is that of any warning, and their text is translated."""

_STATEMENT_SHARE: Final = 0.8
_LOCK_SHARE: Final = 0.3
"""The server's bounds as parts of the client's time-out: they must come first. Who waits for a lock
holds up a whole batch, so that bound is the tighter one."""

_CHECK_CLIENT_MS: Final = 1_000
"""How often a server that executes looks whether its client is still there."""

_END_BACKEND_MS: Final = 250
"""For how long the end of a backend that was given up is awaited. It may not end at all, if a disk
hangs. The connection is used all the same: the journal's locks and rules keep it right."""

_GIVEN_UP_MAX: Final = 4
"""Backends remembered that did not end; the oldest is forgotten."""

_WHO: Final = "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"

_END_BACKEND: Final = """
SELECT pg_terminate_backend(pid, $3) FROM pg_stat_activity WHERE pid = $1 AND backend_start = $2
"""


_CONFIRM: Final = """
SELECT set_config('synchronous_commit', 'on', true), pg_logical_emit_message(true, 'wallet', '')
WHERE current_setting('synchronous_standby_names') <> ''
"""


class _Backend(NamedTuple):
    """A server process. ``started`` tells it from a later one with the same pid."""

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
        self._dsn = dsn
        self._statement_timeout_s = statement_timeout_s
        self._connect_timeout_s = connect_timeout_s
        self._settings = {**_server_bounds(statement_timeout_s), **settings}
        self._connection: Connection | None = None
        self._session = 0
        self._backend: _Backend | None = None
        self._given_up: list[_Backend] = []
        """Backends of dropped connections that may still be at work; the next one ends them."""
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
        self, ask: Callable[[Connection], Awaitable[T]], *, session: int | None = None
    ) -> T:
        """Run ``ask``, which changes nothing that matters if it is lost.

        ``session``: the only one over which it may run; None: any.

        Raises:
            SessionLost: that session has ended.
            JournalUnavailable: no connection, or no answer in time.
        """
        async with self._lock:
            try:
                return await self._guarded(lambda: self._execute(ask, session))
            except OutcomeUnknown as failure:
                raise JournalUnavailable(str(failure)) from failure

    async def write(
        self, ask: Callable[[Connection], Awaitable[T]], *, session: int | None = None
    ) -> T:
        """Run ``ask``, one statement that commits by itself, over ``session`` or any.

        Raises:
            SessionLost: that session has ended; surely not applied.
            JournalConflict: the statement was refused whole by a version or a unique key.
            JournalError: the server refused it; surely not applied.
            JournalUnavailable: surely not applied.
            OutcomeUnknown: sent, and no answer came; or applied, and not replicated.
        """
        async with self._lock:
            self._warning = None
            answer = await self._guarded(lambda: self._execute(ask, session))
            if self._warning is not None:
                raise OutcomeUnknown(self._warning)
            return answer

    async def confirm(self) -> None:
        """Return once a synchronous standby, if one is configured, has all that is visible now.

        Raises:
            JournalUnavailable: none says so in time.
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
            raise JournalUnavailable("Postgres did not answer lately") from error

    async def _execute(self, ask: Callable[[Connection], Awaitable[T]], session: int | None) -> T:
        connection = await self._open() if session is None else self._of(session)
        try:
            async with asyncio.timeout(self._statement_timeout_s):
                return await ask(connection)
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
            # It may be a server that can't write any more (a failover): the next call reconnects.
            self._discard()
        return JournalError(message)

    def _of(self, session: int) -> Connection:
        if self.session != session:
            raise SessionLost(f"session {session} has ended")
        assert self._connection is not None, "an open session has a connection"
        return self._connection

    async def _open(self) -> Connection:
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        self._discard()
        try:
            connection = await asyncpg.connect(
                self._dsn,
                timeout=self._connect_timeout_s,
                server_settings=self._settings,
            )
            try:
                await self._take(connection)
            except BaseException:
                connection.terminate()
                raise
        except (asyncpg.PostgresError, *_CONNECTION_ERRORS) as error:
            raise JournalUnavailable(f"{type(error).__name__}: {error}") from error
        return connection

    async def _take(self, connection: Connection) -> None:
        """Make ``connection`` the one that is used, once nothing of the former is under way."""
        async with asyncio.timeout(
            self._connect_timeout_s + _GIVEN_UP_MAX * _END_BACKEND_MS / 1000
        ):
            await self._end_given_up(connection)
            started: datetime = await connection.fetchval(_WHO)
        connection.add_log_listener(self._note_warning)
        self._backend = _Backend(connection.get_server_pid(), started)
        self._connection = connection
        self._session += 1

    async def _end_given_up(self, connection: Connection) -> None:
        for backend in list(self._given_up):
            try:
                ended = await connection.fetchval(_END_BACKEND, *backend, _END_BACKEND_MS)
            except asyncpg.PostgresError as error:
                ended, cause = False, str(error)
            else:
                cause = "it does not end"
            if ended is False:
                _log.warning("abandoned backend still running", pid=backend.pid, cause=cause)
            else:
                self._given_up.remove(backend)

    def _note_warning(self, _connection: object, message: Any) -> None:
        """Called by the driver before the statement's own answer is passed on."""
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
    """What the server ends by itself, before the client gives it up."""
    return {
        "statement_timeout": str(max(int(timeout_s * _STATEMENT_SHARE * 1000), 1)),
        "lock_timeout": str(max(int(timeout_s * _LOCK_SHARE * 1000), 1)),
        "client_connection_check_interval": str(_CHECK_CLIENT_MS),
    }


def _named_in(error: asyncpg.PostgresError) -> frozenset[WalletId]:
    """The wallets that the server says the conflict is about; empty if it names none."""
    if not (error.sqlstate or "").startswith("WV"):
        return frozenset()
    detail = str(error.as_dict().get("detail") or "")
    return frozenset(WalletId(one) for one in detail.split(",") if one)
