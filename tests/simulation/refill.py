"""The right to fill a lost stream, and the memory of having done it, in the simulated Postgres."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from actors.ports import JournalConflict, JournalUnavailable, OutcomeUnknown, Span
from tests.simulation.connections import Connection
from tests.simulation.loop import Process
from tests.support.memory_database import Database
from wallet.ids import WalletId

T = TypeVar("T")


class SimulatedRefill:
    """Implements `Refill`. The lock is the session's: it ends with the connection."""

    def __init__(self, database: Database, connection: Connection, owner: Process) -> None:
        self._database = database
        self._connection = connection
        self._session = object()
        owner.on_death(self._end_session)

    async def filled(self) -> str | None:
        return await self._ask(lambda: self._database.filled)

    async def begin(self) -> bool:
        session = self._session
        return await self._ask(lambda: self._lock(session))

    async def end(self, incarnation: str | None) -> None:
        if incarnation is not None:
            await self._ask(lambda: self._mark(incarnation))
        await self._ask(self._release)

    async def written(self, *, after: WalletId | None, limit: int) -> Sequence[Span]:
        return await self._ask(lambda: self._database.written(after, limit))

    def _lock(self, session: object) -> bool:
        if session is not self._session or self._database.filler not in (None, session):
            return False
        self._database.filler = session
        return True

    def _mark(self, incarnation: str) -> None:
        self._database.filled = incarnation

    def _release(self) -> None:
        if self._database.filler is self._session:
            self._database.filler = None

    def _end_session(self) -> None:
        """The connection is dropped, and its locks with it."""
        self._release()
        self._session = object()

    async def _ask(self, statement: Callable[[], T]) -> T:
        try:
            return await self._connection.ask(statement)
        except (JournalConflict, JournalUnavailable, OutcomeUnknown) as failure:
            self._end_session()
            raise JournalUnavailable(str(failure)) from failure
