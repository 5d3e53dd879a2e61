"""Opens connections to Postgres. Nothing else in the service calls the driver's `connect`.

Theory of operation. The hosts of a DSN are tried one by one, and the time-out is divided: each host
gets the time that is left, divided by the hosts that are left. A host that refuses at once leaves
its time to the others, and one that accepts and never answers (a stopped process, a hung disk, a
dropped packet) can't use up the time of the next. The driver alone gives all hosts one time-out.

The host that was connected to last is tried first, so that a hung primary delays one connection and
not each. A host is used only if it is in the role that the caller needs: a standby is skipped.
`runtime.postgres.session` closes connections whose host hangs later.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import structlog
from asyncpg.connect_utils import SessionAttribute

from runtime.postgres.dsn import Host, PostgresDsn
from runtime.postgres.errors import InvalidDsn, NoHostAvailable, PoolerRefused
from runtime.postgres.pooler import MARKER, pooler_evidence, refused_startup
from runtime.postgres.session import Session, Watch

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Pool = asyncpg.Pool

_log = structlog.get_logger(__name__)

CONNECT_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ValueError,
)
"""What `Connector.connect` raises."""


class Role(Enum):
    """Which hosts a caller can use. `?target_session_attrs=` of the DSN has precedence."""

    WRITER = "read-write"
    """A primary that accepts writes."""
    READER = "primary"
    """A primary, read-only or not: a standby lags. A DSN's only host is used whatever it is."""


class Connector:
    """Connects to one DSN. One per pool or connection: it remembers where it connected last."""

    def __init__(
        self,
        dsn: str,
        *,
        timeout_s: float,
        role: Role = Role.WRITER,
        settings: Mapping[str, str] | None = None,
        command_timeout_s: float | None = None,
    ) -> None:
        """``timeout_s``: for all hosts together. ``settings``: the server's, for the session.

        Raises:
            InvalidDsn: the DSN can't be read.
        """
        self.dsn = PostgresDsn.parse(dsn)
        self._hosts: tuple[Host | None, ...] = self.dsn.hosts or (None,)
        self._timeout_s = timeout_s
        self._target = self._required(role)
        self._settings = {**(settings or {}), **MARKER}
        self._command_timeout_s = command_timeout_s
        self._last = 0

    async def connect(self) -> Session:
        """Open a connection to the first usable host, in at most the time-out.

        Raises:
            PoolerRefused: a host is a connection pooler that doesn't keep sessions.
            NoHostAvailable: none of several hosts can be used, or the only one is a standby.
            OSError, asyncpg.PostgresError: the only host can't be used (TimeoutError is an
                OSError).
            asyncpg.ClientConfigurationError: an option of the DSN is wrong.
        """
        return await self._first_usable(self._last, *self._others(self._last))

    def pool(self, *, max_size: int, reset: Callable[[Any], Awaitable[None]] | None = None) -> Pool:
        """A pool of at most ``max_size`` connections, which are opened when they are needed.

        ``reset`` runs when a connection is released; None: the driver's own.
        """

        async def open_session(*_arguments: object, **_options: object) -> Session:
            return await self.connect()

        async def start_watch(connection: Any) -> None:
            connection.watch.start()

        async def stop_watch(connection: Any) -> None:
            connection.watch.stop()
            await (connection.reset() if reset is None else reset(connection))

        return asyncpg.create_pool(
            connect=open_session,
            connection_class=Session,
            min_size=0,
            max_size=max_size,
            setup=start_watch,
            reset=stop_watch,
        )

    def _required(self, role: Role) -> SessionAttribute:
        is_only_choice = role is Role.READER and len(self._hosts) == 1
        needed = "any" if is_only_choice else role.value
        try:
            return SessionAttribute(self.dsn.target_session_attrs or needed)
        except ValueError:
            raise InvalidDsn("The DSN's target_session_attrs is unknown.") from None

    def _others(self, number: int) -> list[int]:
        return [other for other in range(len(self._hosts)) if other != number]

    async def _first_usable(self, *numbers: int, known: str | None = None) -> Session:
        """A connection to the first of these hosts that can be used.

        ``known``: why another one can't be, for the log.
        """
        now = asyncio.get_running_loop().time
        deadline = now() + self._timeout_s
        failures = [] if known is None else [known]
        for tried, number in enumerate(numbers):
            share_s = (deadline - now()) / (len(numbers) - tried)
            try:
                session = await self._open_within(number, share_s)
            except (PoolerRefused, asyncpg.ClientConfigurationError):
                raise
            except CONNECT_ERRORS as failure:
                is_wrong_role = isinstance(failure, asyncpg.TargetServerAttributeNotMatched)
                if len(self._hosts) == 1 and not is_wrong_role:
                    raise
                failures.append(f"{self._hosts[number] or self.dsn}: {_reason(failure)}")
            else:
                self._note_host(number, failures)
                return session
        raise NoHostAvailable("; ".join(failures))

    def _note_host(self, number: int, failures: list[str]) -> None:
        if number != self._last:
            _log.warning(
                "postgres host changed", host=str(self._hosts[number]), reason="; ".join(failures)
            )
        self._last = number

    async def _hangs(self, number: int) -> bool:
        """Whether a host doesn't answer while another one can be used."""
        try:
            session = await self._open_within(number, self._timeout_s / len(self._hosts))
        except PoolerRefused:
            return False
        except OSError:
            pass
        except CONNECT_ERRORS:
            return False  # It answered.
        else:
            session.terminate()
            return False
        try:
            known = f"{self._hosts[number]}: hangs"
            session = await self._first_usable(*self._others(number), known=known)
        except CONNECT_ERRORS:
            return False
        session.terminate()
        return True

    async def _open_within(self, number: int, share_s: float) -> Session:
        host = self._hosts[number]
        async with asyncio.timeout(share_s):
            session = await self._open(host)
            try:
                evidence = await pooler_evidence(session, lambda: self._open(host))
            except BaseException:
                session.terminate()
                raise
        if evidence is not None:
            session.terminate()
            raise PoolerRefused(host or self.dsn, evidence)
        session.host = host
        session.watch = Watch(session, number, self._hangs if len(self._hosts) > 1 else None)
        return session

    async def _open(self, host: Host | None) -> Session:
        try:
            return await asyncpg.connect(
                self.dsn.without_hosts,
                host=host and host.name,
                port=host and host.port,
                timeout=self._timeout_s,  # The caller's share of it ends earlier.
                server_settings=self._settings,
                command_timeout=self._command_timeout_s,
                target_session_attrs=self._target,
                connection_class=Session,
            )
        except asyncpg.PostgresError as error:
            evidence = refused_startup(error)
            if evidence is None:
                raise
            raise PoolerRefused(host or self.dsn, evidence) from error


async def connect(
    dsn: str,
    *,
    timeout_s: float,
    role: Role = Role.WRITER,
    settings: Mapping[str, str] | None = None,
) -> Session:
    """Open one connection; raises what `Connector` raises."""
    return await Connector(dsn, timeout_s=timeout_s, role=role, settings=settings).connect()


def _reason(failure: BaseException) -> str:
    if isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
        return "not a primary that accepts this session"
    if isinstance(failure, TimeoutError):
        return "no answer in time"
    return str(failure) or type(failure).__name__
