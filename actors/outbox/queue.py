"""Queue of committed event ranges to publish, in commit order."""

import asyncio
from collections import deque
from collections.abc import Iterable
from itertools import islice

from actors.journal.ports import EventRange, Message
from actors.outbox.ranges import join_adjacent
from actors.outbox.state import RelayState
from wallet.events import RecordedEvent
from wallet.ids import WalletId


class QueuedRange:
    """A queued event range, with its events if they fit in memory."""

    __slots__ = ("event_range", "messages", "queued_at", "recorded", "rows")

    def __init__(
        self,
        event_range: EventRange,
        recorded: list[RecordedEvent] | None = None,
        *,
        rows: int = 1,
    ) -> None:
        self.event_range = event_range
        self.rows = rows
        """Number of its outbox rows, which are adjacent."""
        self.messages: list[Message] | None = None
        """Its events, read from the journal and encoded during the previous publish."""
        self.recorded = recorded
        self.queued_at = asyncio.get_running_loop().time()


class OutboxQueue:
    """Event ranges to publish. Also tracks the outbox rows that are retained after it."""

    def __init__(self, state: RelayState, *, publish_batch_max: int, memory_max: int) -> None:
        self._state = state
        self._publish_batch_max = publish_batch_max
        self._memory_max = memory_max
        self._ranges: deque[QueuedRange] = deque()
        self._tracked: set[tuple[WalletId, int]] = set()
        """Outbox rows that are queued or retained: a sweep skips them."""
        self._events_in_memory = 0
        self._has_room = asyncio.Event()
        self.backlog = 0
        """Events."""

    def __len__(self) -> int:
        return len(self._ranges)

    @property
    def age_s(self) -> float:
        """How long the oldest event has been waiting here; 0 if none is."""
        if not self._ranges:
            return 0.0
        return asyncio.get_running_loop().time() - self._ranges[0].queued_at

    def add(self, event_range: EventRange, recorded: list[RecordedEvent]) -> None:
        """Queue events just committed by this shard."""
        ends = recorded[0].wallet_after.version, recorded[-1].wallet_after.version
        assert ends == (event_range.first, event_range.last), "INV-10 a range is its events"
        if (event_range.wallet_id, event_range.first) in self._tracked:
            return  # A sweep found the row first; its events will be read from the journal.
        self._tracked.add((event_range.wallet_id, event_range.first))
        if self._events_in_memory + len(recorded) > self._memory_max:
            self._enqueue(QueuedRange(event_range))
            return
        self._events_in_memory += len(recorded)
        self._enqueue(QueuedRange(event_range, recorded))

    def add_from_table(self, event_ranges: Iterable[EventRange]) -> None:
        """Queue ranges of outbox rows, unless they are tracked already.

        Adjacent ranges of one wallet are queued, read and deleted as one.
        """
        unknown = [
            event_range
            for event_range in event_ranges
            if (event_range.wallet_id, event_range.first) not in self._tracked
        ]
        self._tracked.update((event_range.wallet_id, event_range.first) for event_range in unknown)
        for rows in join_adjacent(unknown, self._publish_batch_max):
            self._enqueue(QueuedRange(rows[0]._replace(last=rows[-1].last), rows=len(rows)))

    def _enqueue(self, queued: QueuedRange) -> None:
        event_range = queued.event_range
        self._ranges.append(queued)
        self.backlog += event_range.last - event_range.first + 1
        self._state.wake.set()

    def next_publish(self, *, after: int = 0) -> list[QueuedRange]:
        """As many ranges as fit one publish, at least one, if there are more than ``after``.

        They stay queued until they are acknowledged.
        """
        taken: list[QueuedRange] = []
        events = 0
        for queued in islice(self._ranges, after, None):
            size = queued.event_range.last - queued.event_range.first + 1
            if taken and events + size > self._publish_batch_max:
                break
            taken.append(queued)
            events += size
        return taken

    def remove(self, acknowledged: Iterable[QueuedRange]) -> None:
        """Remove the acknowledged ranges at the head. Their rows stay tracked."""
        for queued in acknowledged:
            assert self._ranges.popleft() is queued, "ranges leave in the order they came"
            event_range = queued.event_range
            events = event_range.last - event_range.first + 1
            self.backlog -= events
            if queued.recorded is not None:
                self._events_in_memory -= events
        self._has_room.set()

    def untrack(self, event_ranges: Iterable[EventRange]) -> None:
        """Stop tracking rows that are deleted."""
        for wallet_id, first, last in event_ranges:
            # A joined range has several rows; each may begin at any of these versions.
            self._tracked.difference_update((wallet_id, v) for v in range(first, last + 1))

    def clear(self) -> None:
        self._ranges.clear()
        self._tracked.clear()
        self._has_room.set()
        self._events_in_memory = self.backlog = 0

    async def wait_for_room(self, ranges_max: int) -> None:
        """Return when at most ``ranges_max`` ranges are queued."""
        while len(self._ranges) > ranges_max:
            self._has_room.clear()
            await self._has_room.wait()
