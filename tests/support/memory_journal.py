"""A journal and an outbox in memory, as strict as the real ones, that fail as a test says.

Passes the same contract tests as the Postgres adapters (`tests/contract`), so what a shard does
on it, it does on Postgres.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto

from actors.ports import (
    BatchWrite,
    JournalConflict,
    JournalUnavailable,
    KeyKey,
    Loaded,
    Missing,
    OutcomeUnknown,
    SessionLost,
    Span,
    StoredAnswer,
    TransferKey,
)
from tests.support.memory_database import Database
from tests.support.memory_transactions import Transaction
from wallet.events import Recorded
from wallet.ids import WalletId
from wallet.state import Transfer, Wallet


class Fault(Enum):
    """How the next commit goes wrong."""

    CONFLICT = auto()
    """Refused as if somebody else had written first."""
    UNAVAILABLE = auto()
    """Surely not applied."""
    LOST_BEFORE_APPLYING = auto()
    """No answer, and nothing was applied."""
    LOST_AFTER_APPLYING = auto()
    """No answer, and everything was applied."""
    LOST_AND_APPLIED_LATE = auto()
    """No answer; the transaction stays open, with its locks, until somebody waits for it."""


class MemoryJournal:
    """Implements `Journal` and `Outbox`: a connection to a `Database`.

    ``commit_faults`` and ``loads_unavailable`` are consumed one a call. Every call lets other
    tasks run once, as a real one would. With a lost connection its session ends.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, database: Database | None = None
    ) -> None:
        self.database = database or Database(clock=clock)
        self.session = 1
        self.commit_faults: deque[Fault | None] = deque()
        self.loads_unavailable = 0
        self.commits = 0
        self.loads = 0
        self.open: list[Transaction] = []
        """Transactions whose client has given up."""

    # -- what is in it -------------------------------------------------------------------------

    @property
    def wallets(self) -> dict[WalletId, Wallet]:
        return self.database.wallets

    @property
    def transfers(self) -> dict[TransferKey, Transfer]:
        return self.database.transfers

    @property
    def events(self) -> dict[WalletId, list[Recorded]]:
        return self.database.of_wallet

    @property
    def keys(self) -> dict[KeyKey, StoredAnswer]:
        return self.database.keys

    @property
    def references(self) -> dict[str, WalletId]:
        return self.database.references

    @property
    def rows(self) -> list[tuple[WalletId, int]]:
        """The outbox: wallet and first version of each row, in that order."""
        outbox = self.database.outbox
        return [(wallet_id, row.first) for wallet_id in sorted(outbox) for row in outbox[wallet_id]]

    def clear_rows(self) -> None:
        """As if everything had reached the stream's disk."""
        self.database.outbox.clear()

    # -- Journal -------------------------------------------------------------------------------

    def lose_connection(self) -> None:
        """The next call is made over another one."""
        self.session += 1

    async def connect(self) -> int:
        return self.session

    async def load(self, missing: Missing, *, session: int | None = None) -> Loaded:
        self._require(session)
        self.loads += 1
        if self.loads_unavailable:
            self.loads_unavailable -= 1
            await asyncio.sleep(0)
            raise JournalUnavailable("away, as the test says")
        loaded = self.database.load(missing)
        await asyncio.sleep(0)
        return loaded

    async def commit(self, batch: BatchWrite, *, session: int | None = None) -> None:
        self._require(session)
        fault = self.commit_faults.popleft() if self.commit_faults else None
        await asyncio.sleep(0)
        if fault is Fault.CONFLICT:
            raise JournalConflict("a conflict, as the test says")
        if fault is Fault.UNAVAILABLE:
            raise JournalUnavailable("away, as the test says")
        if fault is Fault.LOST_BEFORE_APPLYING:
            self._lose("the request was lost")
        transaction = await self._ready(batch)
        if fault is Fault.LOST_AND_APPLIED_LATE:
            self.open.append(transaction)
            self._lose("the transaction goes on")
        self._commit(transaction)
        if fault is Fault.LOST_AFTER_APPLYING:
            self._lose("the answer was lost")

    async def locked(self, wallet_ids: Collection[WalletId]) -> frozenset[WalletId]:
        await asyncio.sleep(0)
        return self.database.locked(wallet_ids)

    async def _ready(self, batch: BatchWrite) -> Transaction:
        transaction = self.database.begin(batch)
        while (other := transaction.advance()) is not None:
            ended = asyncio.get_running_loop().create_future()
            other.on_end(lambda ended=ended: ended.done() or ended.set_result(None))  # type: ignore[misc]
            if other in self.open:
                self.open.remove(other)
                await asyncio.sleep(0)
                self._commit(other)
            await ended
        return transaction

    def _commit(self, transaction: Transaction) -> None:
        transaction.commit()
        self.commits += 1

    def _require(self, session: int | None) -> None:
        if session not in (None, self.session):
            raise SessionLost(f"session {session} has ended")

    def _lose(self, how: str) -> None:
        self.lose_connection()
        raise OutcomeUnknown(how)

    # -- Outbox --------------------------------------------------------------------------------

    async def read(self, spans: Sequence[Span]) -> Sequence[Sequence[Recorded]]:
        await asyncio.sleep(0)
        return [self._read(span) for span in spans]

    def _read(self, span: Span) -> Sequence[Recorded]:
        recorded = self.database.span(span)
        assert len(recorded) == span.last - span.first + 1, "INV-10 the journal has no gaps"
        return recorded

    async def delete(self, spans: Collection[Span]) -> None:
        await asyncio.sleep(0)
        self.database.delete(spans)

    async def unpublished(
        self, *, limit: int, after: Span | None = None, older_than_s: float = 0.0
    ) -> Sequence[Span]:
        await asyncio.sleep(0)
        return self.database.unpublished(limit, after, older_than_s)
