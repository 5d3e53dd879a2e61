"""Committed ranges of events that wait for the stream, in the order of their commits."""

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
    """A range in the queue, with its events if memory allows."""

    __slots__ = ("bodies", "messages", "queued_at", "recorded", "rows", "span")

    def __init__(
        self,
        span: EventRange,
        recorded: list[RecordedEvent] | None = None,
        bodies: list[bytes] | None = None,
        *,
        rows: int = 1,
    ) -> None:
        self.span = span
        self.rows = rows
        """Outbox rows, which follow each other."""
        self.messages: list[Message] | None = None
        """Its events from the journal, read and encoded while those before were published."""
        self.recorded = recorded
        self.bodies = bodies
        self.queued_at = asyncio.get_running_loop().time()


class OutboxQueue:
    """Ranges to publish. It also tracks the rows that are retained after their publish."""

    def __init__(self, state: RelayState, *, publish_batch_max: int, memory_max: int) -> None:
        self._state = state
        self._publish_batch_max = publish_batch_max
        self._memory_max = memory_max
        self._ranges: deque[QueuedRange] = deque()
        self._tracked: set[tuple[WalletId, int]] = set()
        """Rows that are queued or retained: whoever finds them in the table finds nothing new."""
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

    def add(self, span: EventRange, recorded: list[RecordedEvent], bodies: list[bytes]) -> None:
        """Queue events just committed by this shard."""
        ends = recorded[0].wallet_after.version, recorded[-1].wallet_after.version
        assert ends == (span.first, span.last), "INV-10 a span is its events"
        if (span.wallet_id, span.first) in self._tracked:
            return  # A sweep saw the row first; its events will be read from the journal.
        self._tracked.add((span.wallet_id, span.first))
        if self._events_in_memory + len(recorded) > self._memory_max:
            self._enqueue(QueuedRange(span))
            return
        self._events_in_memory += len(recorded)
        self._enqueue(QueuedRange(span, recorded, bodies))

    def add_from_table(self, spans: Iterable[EventRange]) -> None:
        """Queue ranges of outbox rows, unless they are tracked already.

        Those of one wallet that follow each other are queued, read and deleted as one.
        """
        unknown = [span for span in spans if (span.wallet_id, span.first) not in self._tracked]
        self._tracked.update((span.wallet_id, span.first) for span in unknown)
        for rows in join_adjacent(unknown, self._publish_batch_max):
            self._enqueue(QueuedRange(rows[0]._replace(last=rows[-1].last), rows=len(rows)))

    def _enqueue(self, queued: QueuedRange) -> None:
        span = queued.span
        self._ranges.append(queued)
        self.backlog += span.last - span.first + 1
        self._state.wake.set()

    def next_publish(self, *, after: int = 0) -> list[QueuedRange]:
        """As many ranges as fit one publish, at least one, if there are more than ``after``.

        They stay queued until they are acknowledged.
        """
        taken: list[QueuedRange] = []
        events = 0
        for queued in islice(self._ranges, after, None):
            size = queued.span.last - queued.span.first + 1
            if taken and events + size > self._publish_batch_max:
                break
            taken.append(queued)
            events += size
        return taken

    def remove(self, acknowledged: Iterable[QueuedRange]) -> None:
        """Remove the first ranges. Their rows stay tracked."""
        for queued in acknowledged:
            assert self._ranges.popleft() is queued, "ranges leave in the order they came"
            span = queued.span
            events = span.last - span.first + 1
            self.backlog -= events
            if queued.recorded is not None:
                self._events_in_memory -= events
        self._has_room.set()

    def untrack(self, spans: Iterable[EventRange]) -> None:
        """The rows of these ranges are deleted."""
        for wallet_id, first, last in spans:
            # Its rows may begin at any of these.
            self._tracked.difference_update((wallet_id, v) for v in range(first, last + 1))

    def clear(self) -> None:
        self._ranges.clear()
        self._tracked.clear()
        self._has_room.set()
        self._events_in_memory = self.backlog = 0

    async def wait_for_room(self, ranges_max: int) -> None:
        """Return when no more than so many ranges are queued."""
        while len(self._ranges) > ranges_max:
            self._has_room.clear()
            await self._has_room.wait()
