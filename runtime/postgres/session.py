"""A connection that is closed early if its host hangs.

Theory of operation. A server that is stopped, or whose disk hangs, keeps its TCP connections open:
a statement waits until its own time-out. A statement may also wait for a lock or for a standby, on
a healthy server. Only a new connection tells the two apart. So a statement that takes longer than
`SUSPECT_S` has its host examined: if the host doesn't answer a new connection in time, and another
host of the DSN can be used, the connection is closed. The statement then fails with an unknown
outcome, as it would have at its time-out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Self

import asyncpg
import structlog

from runtime.postgres.dsn import Host

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
else:
    Connection = asyncpg.Connection

_log = structlog.get_logger(__name__)

SUSPECT_S: Final = 1.0
"""A statement without a result for this long has its host examined, and again after each further
such time. Almost every statement takes milliseconds."""

Examine = Callable[[int], Awaitable[bool]]
"""Whether the host of this number hangs while another one can be used. Raises nothing."""


class Session(Connection):
    """A connection to one host of a DSN."""

    host: Host | None = None
    """None: a host that the DSN doesn't name."""
    watch: "Watch"


class Watch:
    """Watches one statement at a time: from `start` to `stop`, or as a context manager."""

    def __init__(self, session: Session, host_number: int, examine: Examine | None) -> None:
        """``examine`` None: there is no other host, so nothing is watched."""
        self._session = session
        self._host_number = host_number
        self._examine = examine
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._examine is not None:
            self._timer = asyncio.get_running_loop().call_later(SUSPECT_S, self._suspect)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._timer = self._task = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_failure: Any) -> None:
        self.stop()

    def _suspect(self) -> None:
        # A pool may drop a closed connection without calling `stop`.
        if not self._session.is_closed():
            self._task = asyncio.get_running_loop().create_task(self._close_if_hung())

    async def _close_if_hung(self) -> None:
        assert self._examine is not None, "only then is a timer started"
        if not await self._examine(self._host_number):
            self.start()
            return
        _log.warning("postgres host hangs, connection closed", host=str(self._session.host))
        self._session.terminate()
