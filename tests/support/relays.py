"""An outbox relay with an in-memory outbox and stream, and helpers that commit events."""

import asyncio
from collections.abc import Collection, Sequence

from actors.journal.memory import MemoryBackfill
from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import CommitRequest, EventRange, JournalUnavailable, StreamMark
from actors.outbox.relay import OutboxRelay, RelayLimits
from tests.support.domain import make_transfer, transfer_id
from tests.support.fake_stream import FakeStream
from tests.support.faulty_journal import FaultyJournal
from tests.support.writes import CommitRequestBuilder
from wallet.events import RecordedEvent
from wallet.ids import WalletId
from wallet.slots import ALL_SLOTS, SlotRange, slot_of
from wallet.state import TransferStatus

LIMITS = RelayLimits(
    publish_batch_max=10, outbox_memory_events_max=100, outbox_sweep_interval_s=0.005, partitions=4
)


class InstrumentedOutbox(FaultyJournal):
    """Counts the relay's reads and injects faults."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        super().__init__(database)
        self.ranges_read: list[EventRange] = []
        self.reads = 0
        self.reads_unavailable = 0
        self.deletes_unavailable = 0
        self.sweeps = 0
        self.deleted = asyncio.Event()

    @property
    def rows(self) -> list[tuple[WalletId, int]]:
        """Wallet and first version of each row, sorted."""
        outbox = self.database.outbox
        return [(wallet_id, row.first) for wallet_id in sorted(outbox) for row in outbox[wallet_id]]

    def clear_rows(self) -> None:
        """Delete all rows, as if the stream had synced all events to disk."""
        self.database.outbox.clear()

    async def read(self, event_ranges: Sequence[EventRange]) -> Sequence[Sequence[RecordedEvent]]:
        self.reads += 1
        self.ranges_read += event_ranges
        if self.reads_unavailable:
            self.reads_unavailable -= 1
            raise JournalUnavailable("injected: unavailable")
        return await super().read(event_ranges)

    async def delete(
        self, event_ranges: Collection[EventRange], *, mark: StreamMark | None = None
    ) -> None:
        if self.deletes_unavailable:
            self.deletes_unavailable -= 1
            raise JournalUnavailable("injected: unavailable")
        await super().delete(event_ranges, mark=mark)
        self.deleted.set()

    async def unpublished(
        self,
        *,
        limit: int,
        slots: Sequence[SlotRange] = ALL_SLOTS,
        after: EventRange | None = None,
        older_than_s: float = 0.0,
    ) -> Sequence[EventRange]:
        self.sweeps += after is None
        return await super().unpublished(
            limit=limit, slots=slots, after=after, older_than_s=older_than_s
        )


class RelayFixture:
    """A relay between an outbox and a stream, and a way to commit something."""

    def __init__(
        self,
        limits: RelayLimits = LIMITS,
        slots: Sequence[SlotRange] = ALL_SLOTS,
        backfill: MemoryBackfill | None = None,
    ) -> None:
        self.outbox = InstrumentedOutbox(backfill.database if backfill else None)
        self.stream = FakeStream()
        self.relay = OutboxRelay(
            outbox=self.outbox, stream=self.stream, limits=limits, slots=slots, backfill=backfill
        )
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, *, sweeping: bool = False) -> None:
        self._tasks.append(asyncio.create_task(self.relay.run()))
        self._tasks.append(asyncio.create_task(self.relay.prune()))
        if sweeping:
            self._tasks.append(asyncio.create_task(self.relay.sweep()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for ended in await asyncio.gather(*self._tasks, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended

    async def commit(self, wallet: WalletId, *numbers: int) -> CommitRequest:
        """Commit one debit per number; a new wallet is created first."""
        known = self.outbox.database.wallets.get(wallet)
        making = CommitRequestBuilder(*([known] if known else []))
        if known is None:
            making.create(wallet)
        for number in numbers:
            making.transfer(
                wallet, make_transfer(id=transfer_id(number), status=TransferStatus.COMPLETED)
            )
        await self.outbox.commit(making.write)
        return making.write

    async def commit_and_add(self, wallet: WalletId, *numbers: int) -> CommitRequest:
        write = await self.commit(wallet, *numbers)
        self.add(write)
        return write

    def add(self, write: CommitRequest) -> None:
        for event_range in write.spans():
            recorded = [one for one in write.events if one.wallet_after.id == event_range.wallet_id]
            self.relay.add(event_range, recorded)

    async def until_empty(self) -> None:
        async with asyncio.timeout(5):
            while self.outbox.rows:
                self.outbox.deleted.clear()
                await self.outbox.deleted.wait()


def slots_of(*wallets: WalletId) -> list[SlotRange]:
    """The slots of these wallets, in order."""
    return [SlotRange(slot, slot) for slot in sorted(set(map(slot_of, wallets)))]


def ids(wallet: WalletId, *versions: int) -> list[str]:
    return [f"{wallet}:{version}" for version in versions]
