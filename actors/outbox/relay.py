"""The relay: committed events on their way to the stream, in order, whatever happens.

Theory of operation. Ranges (a wallet's events from one version to another) queue in the order
in which they were committed (`OutboxQueue`). The relay takes as many as fit one publish, gets
their events (from memory, or from the journal once memory is full or after a crash), and publishes
them (`RangePublisher`). It is a single task and a publish ends at the first message that fails, so
a wallet's events reach the stream in version order (INV-9).

An acknowledgement says that the server has the events, not that its disk has. Their outbox rows
are kept until it must have (`OutboxRetention`); when the connection ends before that, the server
may have lost power, and what it had acknowledged is published again before anything newer. What it
still has it drops by the events' ids.

A range that a predecessor left behind is met in two ways: loading a wallet returns its
unpublished ranges, which queue before anything new of that wallet can; and a sweep finds old rows
of wallets that this shard owns (`OutboxSweep`). Both may publish again what is on the stream
already: the event's id makes the stream drop it.

A stream that somebody deleted is made again and filled from the journal before anything new goes
to it (`Backfiller`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from actors.journal.ports import (
    EventRange,
    EventStream,
    JournalUnavailable,
    Outbox,
    PublishFailed,
    StreamBackfill,
)
from actors.outbox.backfill import Backfiller
from actors.outbox.publisher import RangePublisher
from actors.outbox.queue import OutboxQueue, QueuedRange
from actors.outbox.retention import OutboxRetention
from actors.outbox.state import RelayState
from actors.outbox.sweep import OutboxSweep
from runtime.metrics.histogram import Histogram
from wallet.events import RecordedEvent
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)


class RelayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a relay; see the settings of the same names for their reasons."""

    publish_batch_max: int
    outbox_memory_events_max: int
    outbox_sweep_interval_s: float
    partitions: int
    publish_interval_s: float = 0.0
    outbox_retention_s: float = 0.0
    """For how long after its acknowledgement an event may be lost with the server's memory."""


class OutboxRelay:
    """Publishes what was committed. ``run``, ``forget`` and ``sweep`` are its tasks."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        stream: EventStream,
        limits: RelayLimits,
        owns: Callable[[WalletId], bool],
        refill: StreamBackfill | None = None,
    ) -> None:
        batch_max, retention_s = limits.publish_batch_max, limits.outbox_retention_s
        self._stream = stream
        self._limits = limits
        self._state = state = RelayState()
        self._queue = queue = OutboxQueue(
            state, publish_batch_max=batch_max, memory_max=limits.outbox_memory_events_max
        )
        self._publisher = publisher = RangePublisher(
            outbox=outbox, stream=stream, publish_batch_max=batch_max, partitions=limits.partitions
        )
        self._retention = OutboxRetention(
            state, queue, publisher, outbox=outbox, stream=stream, retention_s=retention_s
        )
        self._backfiller: Backfiller | None = None
        if refill is not None:
            self._backfiller = Backfiller(refill, publisher, stream=stream, retention_s=retention_s)
        self._sweep = OutboxSweep(
            state,
            queue,
            outbox=outbox,
            owns=owns,
            check_stream=self._check_stream,
            interval_s=limits.outbox_sweep_interval_s,
            retention_s=retention_s,
        )
        self._not_before = 0.0
        """Loop time of the next publish, unless a full one waits."""
        self.published = 0
        self.publish_failures = 0
        self.publish_seconds = Histogram()
        """From an event's commit to its acknowledgement."""
        self.failures = state.failures
        """Of what goes on beside publishing, by its name: tried again, and nothing is lost."""

    @property
    def backlog(self) -> int:
        """Events committed and not yet acknowledged by the stream."""
        return self._queue.backlog

    @property
    def age_s(self) -> float:
        """How long the oldest event has been waiting here; 0 if none is."""
        return self._queue.age_s

    @property
    def stream_ready(self) -> bool:
        return self._state.stream_ready

    def add(self, span: EventRange, recorded: list[RecordedEvent], bodies: list[bytes]) -> None:
        """Queue events just committed by this shard."""
        self._queue.add(span, recorded, bodies)

    def add_from_journal(self, spans: Iterable[EventRange]) -> None:
        """Queue spans that are in the journal, unless they are known already."""
        self._queue.add_from_table(spans)

    def reset(self) -> None:
        """Forget everything that is queued or kept, and look for it in the table.

        For a database that may be another one than before: what is in memory may never have
        happened there. Whoever calls this forgets its wallets as well, so that each is loaded
        again, and with it what is unpublished of it, before anything newer. (INV-9)
        """
        self._state.generation += 1
        self._queue.clear()
        self._retention.clear()
        self._sweep.request(any_age=True)

    # -- its tasks -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish until cancelled. The stream is made first: readers wait for it, too."""
        state = self._state
        await self._retry(self._prepare)
        self._sweep.request()  # It waits for the stream.
        state.wake.set()  # For what is left of a run that failed.
        while True:
            await state.wake.wait()
            state.wake.clear()
            if not state.stream_ready:
                await self._retry(self._prepare)
            while self._queue:
                await self._throttle()
                await self._publish_next()

    async def prune(self) -> None:
        """Delete the rows of what is on the stream's disk, until cancelled."""
        await self._retention.prune()

    async def sweep(self) -> None:
        """Look for unpublished events of this shard's wallets, until cancelled."""
        await self._sweep.run()

    # -- publishing ------------------------------------------------------------------------------

    async def _throttle(self) -> None:
        """A publish costs much and an event in it little: let some gather, for a moment."""
        clock = asyncio.get_running_loop().time
        if (
            self.backlog < self._limits.publish_batch_max
            and (wait_s := self._not_before - clock()) > 0
        ):
            await asyncio.sleep(wait_s)
        self._not_before = clock() + self._limits.publish_interval_s

    async def _publish_next(self) -> None:
        generation, taken = self._state.generation, self._queue.next_publish()
        await asyncio.gather(
            self._retry(lambda: self._publish_prepared(taken, generation)),
            self._publisher.read_ahead(self._queue.next_publish(after=len(taken))),
        )
        if generation == self._state.generation:
            self._queue.remove(taken)
            self._count(taken)
            self._retention.retain(taken)

    async def _retry(self, step: Callable[[], Awaitable[None]]) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((PublishFailed, JournalUnavailable)),
            # No end: the outbox is bounded by refusing writes, never by losing events.
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            after=self._note_failure,
        ):
            with attempt:
                await step()
        self._state.stream_ready = True

    async def _publish_prepared(self, taken: Sequence[QueuedRange], generation: int) -> None:
        state = self._state
        if not state.stream_ready:
            await self._prepare()
        if generation != state.generation:
            return  # Whatever these were, they are not queued any more.
        await self._publisher.publish(taken, state.connection_epoch, state.incarnation)

    async def _prepare(self) -> None:
        """Connect; and if the stream is another one than before, see that it has the journal.

        One relay fills it with everything that is written. The others wait, and whoever does not
        know of it can't reach it, so that nothing newer comes before the journal.
        """
        incarnation = await self._stream.ensure_ready()
        connection = self._stream.connection_epoch
        if incarnation not in (None, self._state.incarnation) and self._backfiller is not None:
            await self._backfiller.ensure_backfilled(incarnation, connection)
        self._state.incarnation = incarnation
        await self._retention.republish(connection)

    async def _check_stream(self) -> None:
        """A stream that is lost while nothing is published must be noticed, too."""
        state = self._state
        try:
            incarnation = await self._stream.ensure_ready()
        except PublishFailed:
            state.stream_ready = False
        else:
            found = (incarnation, self._stream.connection_epoch)
            known = (state.incarnation, state.connection_epoch)
            state.stream_ready = state.stream_ready and found == known
        if not state.stream_ready:
            state.wake.set()

    def _count(self, acknowledged: Sequence[QueuedRange]) -> None:
        now = asyncio.get_running_loop().time()
        for queued in acknowledged:
            events = queued.span.last - queued.span.first + 1
            self.published += events
            self.publish_seconds.observe(now - queued.queued_at, events)

    def _note_failure(self, state: RetryCallState) -> None:
        self.publish_failures += 1
        self._state.stream_ready = False
        # The first of an outage, and then every now and then: it may last for hours.
        if state.attempt_number in (1, 10) or state.attempt_number % 100 == 0:
            outcome = state.outcome
            _log.warning(
                "publish failed",
                attempt=state.attempt_number,
                waiting=self.backlog,
                cause=str(outcome.exception()) if outcome is not None else "",
            )
