"""In-memory adapters of the journal, the outbox and the backfill lock.

For tests and simulations, which need a journal as strict as Postgres without a server. Both kinds
of adapters pass the same tests (`tests/contract`), so a shard behaves the same on either.

Theory of operation. A `MemoryDatabase` is the server. An adapter reaches it over a
`MemoryConnection`, which runs statements and transactions, and does nothing else. Faults on the way
(no server, a lost response, a transaction that outlives its client) are injected by other
connection classes of the tests and the simulation. `DirectConnection` never fails: every call lets
other tasks run once, and waits for locks that another transaction holds.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from actors.journal.expiry_ports import ExpiringTransfer
from actors.journal.memory_database import MemoryDatabase
from actors.journal.memory_transactions import MemoryTransaction
from actors.journal.ports import (
    Acknowledged,
    CommitRequest,
    EventRange,
    FilledStream,
    JournalConflict,
    JournalUnavailable,
    LoadedState,
    OutcomeUnknown,
    ReadSet,
    SessionLost,
    StreamMark,
)
from wallet.events import RecordedEvent
from wallet.ids import WalletId
from wallet.slots import ALL_SLOTS, SlotRange

T = TypeVar("T")


class MemoryConnection(Protocol):
    """A client's connection to a `MemoryDatabase`. ``session``: the one to use; None: any."""

    def connect(self) -> int:
        """The session that the next call will use."""

    async def execute(self, statement: Callable[[], T], *, session: int | None = None) -> T:
        """Run ``statement`` on the server and return its result.

        Raises:
            SessionLost: ``session`` has ended.
            JournalUnavailable: not run.
            JournalConflict, JournalError: run, and ended with that error.
            OutcomeUnknown: no response.
        """

    async def commit(self, transaction: MemoryTransaction, *, session: int | None = None) -> None:
        """Run ``transaction`` on the server until it has committed; raises what `execute` does."""


class DirectConnection:
    """Implements `MemoryConnection`: a connection that breaks only when it is dropped."""

    def __init__(self) -> None:
        self._session = 1

    def drop(self) -> None:
        """End the session. The next call uses another one."""
        self._session += 1

    def connect(self) -> int:
        return self._session

    async def execute(self, statement: Callable[[], T], *, session: int | None = None) -> T:
        self.require(session)
        result = statement()
        await asyncio.sleep(0)
        return result

    async def commit(self, transaction: MemoryTransaction, *, session: int | None = None) -> None:
        self.require(session)
        await asyncio.sleep(0)
        await self.take_locks(transaction)
        transaction.commit()

    def require(self, session: int | None) -> None:
        """Raises `SessionLost` if ``session`` has ended."""
        if session not in (None, self._session):
            raise SessionLost(f"session {session} has ended")

    async def take_locks(self, transaction: MemoryTransaction) -> None:
        """Return once ``transaction`` holds all its locks; it is rolled back if that is cancelled.

        Raises:
            JournalConflict: and it is rolled back.
        """
        try:
            while (holder := transaction.advance()) is not None:
                await self.wait_for(holder)
        except asyncio.CancelledError:
            transaction.roll_back()
            raise

    async def wait_for(self, holder: MemoryTransaction) -> None:
        """Return once ``holder`` has ended."""
        ended = asyncio.Event()
        holder.on_end(ended.set)
        await ended.wait()


class _Adapter:
    def __init__(
        self,
        database: MemoryDatabase | None = None,
        connection: MemoryConnection | None = None,
    ) -> None:
        self.database = database or MemoryDatabase()
        self._connection = connection or DirectConnection()

    async def _read(self, statement: Callable[[], T], *, session: int | None = None) -> T:
        """Run a statement that may be repeated: no response counts as not run."""
        try:
            return await self._connection.execute(statement, session=session)
        except (OutcomeUnknown, JournalConflict) as failure:
            raise JournalUnavailable(str(failure)) from failure


class MemoryJournal(_Adapter):
    """Implements `Journal`."""

    async def connect(self) -> int:
        return self._connection.connect()

    async def load(self, missing: ReadSet, *, session: int | None = None) -> LoadedState:
        return await self._read(lambda: self.database.load(missing), session=session)

    async def commit(self, batch: CommitRequest, *, session: int | None = None) -> None:
        await self._connection.commit(self.database.transaction(batch), session=session)

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        return await self._read(lambda: self.database.locked(wallet_ids))


class MemoryOutbox(_Adapter):
    """Implements `Outbox`."""

    async def read(self, event_ranges: Sequence[EventRange]) -> Sequence[Sequence[RecordedEvent]]:
        found = await self._read(
            lambda: [self.database.read_events(event_range) for event_range in event_ranges]
        )
        for event_range, events in zip(event_ranges, found, strict=True):
            assert len(events) == event_range.last - event_range.first + 1, (
                "INV-10 the journal has no gaps"
            )
        return found

    async def delete(
        self, event_ranges: Collection[EventRange], *, mark: StreamMark | None = None
    ) -> None:
        await self._read(lambda: self.database.delete(event_ranges, mark))

    async def unpublished(
        self,
        *,
        limit: int,
        slots: Sequence[SlotRange] = ALL_SLOTS,
        after: EventRange | None = None,
        older_than_s: float = 0.0,
    ) -> Sequence[EventRange]:
        return await self._read(
            lambda: self.database.unpublished(limit, slots, after, older_than_s)
        )


class MemoryExpiries(_Adapter):
    """Implements `Expiries`."""

    async def due(
        self,
        *,
        until: datetime,
        limit: int,
        slots: Sequence[SlotRange] = ALL_SLOTS,
        after: ExpiringTransfer | None = None,
        without: Collection[WalletId] = (),
    ) -> Sequence[ExpiringTransfer]:
        expiring = await self._read(lambda: self.database.expiring(slots))
        return [
            one
            for one in expiring
            if one.expires_at <= until
            and (after is None or one > after)
            and one.wallet_id not in without
        ][:limit]

    async def next_expiry(self, *, slots: Sequence[SlotRange] = ALL_SLOTS) -> datetime | None:
        expiring = await self._read(lambda: self.database.expiring(slots))
        return expiring[0].expires_at if expiring else None


class MemoryBackfill(_Adapter):
    """Implements `StreamBackfill`. The lock ends with the session, as Postgres' lock does."""

    def __init__(
        self,
        database: MemoryDatabase | None = None,
        connection: MemoryConnection | None = None,
    ) -> None:
        super().__init__(database, connection)
        self._owner = object()
        self._session: int | None = None
        """The session that holds the lock."""

    def end_session(self) -> None:
        """Release the lock. A pending request for it will not get it."""
        self.database.unlock_backfill(self._owner)
        self._owner = object()
        self._session = None

    async def acknowledged(self) -> Acknowledged:
        return await self._execute(self._acknowledged)

    def _acknowledged(self) -> Acknowledged:
        database = self.database
        return database.marks.acknowledged(database.backfilled_incarnation)

    async def try_begin(self) -> bool:
        owner = self._owner
        self._session = self._connection.connect()
        return await self._execute(lambda: self._lock(owner))

    async def finish(self, filled: FilledStream | None) -> None:
        if filled is not None:
            await self._execute(lambda: self._mark(filled))
        await self._execute(lambda: self.database.unlock_backfill(self._owner))
        self._session = None

    async def missing_since(self, sequence: int) -> float | None:
        database = self.database
        return await self._execute(
            lambda: database.marks.since(database.backfilled_incarnation, sequence)
        )

    async def wallet_ranges(
        self, *, after: WalletId | None, limit: int, since: float | None = None
    ) -> Sequence[EventRange]:
        return await self._execute(lambda: self.database.wallet_ranges(after, limit, since))

    async def limit_age(self, max_age_s: float) -> None:
        await self._execute(lambda: self.database.marks.limit_age(max_age_s))

    async def thin_marks(self) -> None:
        database = self.database
        await self._execute(lambda: database.marks.thin(database.backfilled_incarnation))

    def _lock(self, owner: object) -> bool:
        return owner is self._owner and self.database.lock_backfill(owner)

    def _mark(self, filled: FilledStream) -> None:
        database = self.database
        database.marks.replace(database.backfilled_incarnation, filled)
        database.backfilled_incarnation = filled.incarnation

    async def _execute(self, statement: Callable[[], T]) -> T:
        try:
            return await self._read(statement, session=self._session)
        except SessionLost as lost:
            self.end_session()
            raise JournalUnavailable(str(lost)) from lost
        except JournalUnavailable:
            self.end_session()
            raise
