"""The in-memory journal over a connection with injected faults."""

import asyncio
from collections import deque
from enum import Enum, auto

from actors.journal.memory import DirectConnection, MemoryJournal, MemoryOutbox
from actors.journal.memory_database import MemoryDatabase
from actors.journal.memory_transactions import MemoryTransaction
from actors.journal.ports import (
    JournalConflict,
    JournalUnavailable,
    LoadedState,
    OutcomeUnknown,
    ReadSet,
)


class Fault(Enum):
    """How the next commit fails."""

    CONFLICT = auto()
    """A version conflict, as if another writer had committed first."""
    UNAVAILABLE = auto()
    """Not applied, and the client gets the error."""
    LOST_BEFORE_APPLYING = auto()
    """The response is lost; the commit was not applied."""
    LOST_AFTER_APPLYING = auto()
    """The response is lost; the commit was applied."""
    LOST_AND_APPLIED_LATE = auto()
    """The response is lost; the transaction keeps its locks until another one waits for it."""


class _FaultyConnection(DirectConnection):
    """Each commit consumes one of ``commit_faults``. A lost response ends the session."""

    def __init__(self) -> None:
        super().__init__()
        self.commit_faults: deque[Fault | None] = deque()
        self.commits = 0
        self._abandoned: list[MemoryTransaction] = []
        """Open transactions whose client has timed out."""

    async def commit(self, transaction: MemoryTransaction, *, session: int | None = None) -> None:
        self.require(session)
        fault = self.commit_faults.popleft() if self.commit_faults else None
        if fault is not None:
            await asyncio.sleep(0)
        if fault is Fault.CONFLICT:
            raise JournalConflict("injected: conflict")
        if fault is Fault.UNAVAILABLE:
            raise JournalUnavailable("injected: unavailable")
        if fault is Fault.LOST_BEFORE_APPLYING:
            self._lose("injected: request lost")
        if fault is Fault.LOST_AND_APPLIED_LATE:
            await self.take_locks(transaction)
            self._abandoned.append(transaction)
            self._lose("injected: response lost, the transaction is still open")
        await super().commit(transaction, session=session)
        self.commits += 1
        if fault is Fault.LOST_AFTER_APPLYING:
            self._lose("injected: response lost")

    async def wait_for(self, holder: MemoryTransaction) -> None:
        if holder not in self._abandoned:
            await super().wait_for(holder)
            return
        self._abandoned.remove(holder)
        await asyncio.sleep(0)
        holder.commit()
        self.commits += 1

    def _lose(self, how: str) -> None:
        self.drop()
        raise OutcomeUnknown(how)


class FaultyJournal(MemoryJournal, MemoryOutbox):
    """Counts calls by outcome. Each load consumes one of ``loads_unavailable``."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        self.connection = _FaultyConnection()
        super().__init__(database, self.connection)
        self.loads_unavailable = 0
        self.loads = 0

    @property
    def commit_faults(self) -> deque[Fault | None]:
        return self.connection.commit_faults

    @property
    def commits(self) -> int:
        """Committed transactions."""
        return self.connection.commits

    def lose_connection(self) -> None:
        """The next call uses a new session."""
        self.connection.drop()

    async def load(self, missing: ReadSet, *, session: int | None = None) -> LoadedState:
        self.connection.require(session)
        self.loads += 1
        if self.loads_unavailable:
            self.loads_unavailable -= 1
            await asyncio.sleep(0)
            raise JournalUnavailable("injected: unavailable")
        return await super().load(missing, session=session)
