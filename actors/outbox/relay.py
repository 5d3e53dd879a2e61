"""The outbox relay: publishes committed events to the stream, in order.

Theory of operation. Event ranges (a wallet's events from one version to another) queue in commit
order (`OutboxQueue`). The relay takes as many as fit one publish, gets their events (from memory,
or from the journal once memory is full or after a crash), and publishes them (`RangePublisher`). It
is a single task and a publish ends at the first message that fails, so a wallet's events reach the
stream in version order (INV-9).

An acknowledgement means that the server has the events, not that they are on its disk. Their outbox
rows are retained until they must be (`OutboxRetention`). If the connection ends before that, the
server may have lost power, and the acknowledged events are published again before any newer one.
The server drops those that it still has by their ids.

Event ranges that a previous owner left unpublished are found in two ways. Loading a wallet returns
its unpublished ranges, which queue before new events of that wallet. A sweep finds old rows of
the slots that this shard owns (`OutboxSweep`). Both may publish an event twice: the stream drops
the duplicate by its id.

A stream that lost events is filled from the journal before any new event is published to it
(`Backfiller`). It is checked at each connection and periodically. A row is deleted together with
writing down, as a mark, the sequence up to which the stream must have its events.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TypeVar

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
    StreamState,
)
from actors.outbox.backfill import Backfiller
from actors.outbox.publisher import RangePublisher
from actors.outbox.queue import OutboxQueue, QueuedRange
from actors.outbox.retention import Acknowledgement, OutboxRetention
from actors.outbox.state import RelayState
from actors.outbox.stream_loss import StreamLoss
from actors.outbox.sweep import OutboxSweep
from runtime.metrics.histogram import Histogram
from wallet.events import RecordedEvent
from wallet.slots import SlotRange

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class RelayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a relay; see the settings of the same names for their reasons."""

    publish_batch_max: int
    outbox_memory_events_max: int
    outbox_sweep_interval_s: float
    partitions: int
    publish_interval_s: float = 0.0
    outbox_retention_s: float = 0.0
    """How long after its acknowledgement an event may be lost if the server loses power."""


class OutboxRelay:
    """Publishes committed events. ``run``, ``prune`` and ``sweep`` are its tasks."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        stream: EventStream,
        limits: RelayLimits,
        slots: Sequence[SlotRange],
        backfill: StreamBackfill | None = None,
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
        if backfill is not None:
            self._backfiller = Backfiller(
                backfill, publisher, stream=stream, retention_s=retention_s
            )
        self._sweep = OutboxSweep(
            state,
            queue,
            outbox=outbox,
            slots=slots,
            check_stream=self._check_stream,
            interval_s=limits.outbox_sweep_interval_s,
            retention_s=retention_s,
        )
        self._not_before = 0.0
        """Loop time of the next publish, unless a full batch is queued."""
        self.published = 0
        self.publish_failures = 0
        self.publish_seconds = Histogram()
        """From an event's commit to its acknowledgement."""
        self.failures = state.failures
        """Of background tasks, by name: each is retried, and nothing is lost."""

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

    @property
    def stream_refilling(self) -> bool:
        """Whether the stream lacks events of the journal, and new ones wait for them."""
        return self._backfiller is not None and self._backfiller.refilling

    @property
    def stream_fills(self) -> Mapping[StreamLoss, int]:
        """Fills of the stream that this relay finished, by what it had lost."""
        return self._backfiller.fills if self._backfiller is not None else {}

    def add(self, event_range: EventRange, recorded: list[RecordedEvent]) -> None:
        """Queue events just committed by this shard."""
        self._queue.add(event_range, recorded)

    def add_from_journal(self, event_ranges: Iterable[EventRange]) -> None:
        """Queue event ranges that are in the journal, unless they are tracked already."""
        self._queue.add_from_table(event_ranges)

    def reset(self) -> None:
        """Drop everything that is queued or retained, and read the outbox table again.

        For a database that may be another server (a failover): it may lack what is in memory. The
        caller clears its wallet cache as well, so that each wallet is loaded again, and with it
        its unpublished events, before any newer one. (INV-9)
        """
        self._state.generation += 1
        self._queue.clear()
        self._retention.clear()
        self._sweep.request(any_age=True)

    # -- tasks -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish until cancelled. Creates the stream first: consumers wait for it, too."""
        state = self._state
        await self._retry(self._prepare)
        self._sweep.request()  # The sweep waits for the stream.
        state.wake.set()  # A previous run that failed may have left queued events.
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
        """Read unpublished events of this shard's wallets from the outbox, until cancelled."""
        await self._sweep.run()

    # -- publishing ------------------------------------------------------------------------------

    async def _throttle(self) -> None:
        """Wait for more events: a publish is expensive, an event in it is cheap."""
        clock = asyncio.get_running_loop().time
        if (
            self.backlog < self._limits.publish_batch_max
            and (wait_s := self._not_before - clock()) > 0
        ):
            await asyncio.sleep(wait_s)
        self._not_before = clock() + self._limits.publish_interval_s

    async def _publish_next(self) -> None:
        generation, taken = self._state.generation, self._queue.next_publish()
        acknowledgement, _ = await asyncio.gather(
            self._retry(lambda: self._publish_prepared(taken, generation)),
            self._publisher.read_ahead(self._queue.next_publish(after=len(taken))),
        )
        if generation == self._state.generation:
            self._queue.remove(taken)
            self._count(taken)
            self._retention.retain(taken, acknowledgement)

    async def _retry(self, step: Callable[[], Awaitable[T]]) -> T:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((PublishFailed, JournalUnavailable)),
            # Retries without limit: a full outbox rejects writes, it never drops events.
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            after=self._note_failure,
        ):
            with attempt:
                result = await step()
        self._state.stream_ready = True
        return result

    async def _publish_prepared(
        self, taken: Sequence[QueuedRange], generation: int
    ) -> Acknowledgement:
        state = self._state
        if not state.stream_ready:
            await self._prepare()
        begun, incarnation = asyncio.get_running_loop().time(), state.incarnation
        if generation != state.generation:
            return Acknowledgement(begun)  # A reset has dropped these ranges from the queue.
        sequence = await self._publisher.publish(taken, state.connection_epoch, incarnation)
        return Acknowledgement(begun, incarnation, sequence)

    async def _prepare(self) -> None:
        """Connect. If the stream lost events, make sure that it is filled again.

        One relay fills it from the journal, and the others wait. A relay that does not know the
        incarnation can't publish to it. So no newer event comes before the journal.
        """
        if self._backfiller is not None:
            stream = await self._backfiller.ensure_backfilled()
        else:
            stream = await self._stream.ensure_ready()
        connection = self._stream.connection_epoch  # The one that was checked: nothing ran since.
        self._state.incarnation = stream.incarnation
        await self._retention.republish(connection)

    async def _check_stream(self) -> None:
        """Notice a stream that lost events also while nothing is published."""
        state = self._state
        try:
            stream, is_complete = await self._inspect_stream()
        except JournalUnavailable as failure:
            _log.warning("stream not checked", cause=str(failure))
            return
        except PublishFailed:
            state.stream_ready = False
        else:
            found = (stream.incarnation, self._stream.connection_epoch)
            known = (state.incarnation, state.connection_epoch)
            state.stream_ready = state.stream_ready and found == known and is_complete
        if not state.stream_ready:
            state.wake.set()

    async def _inspect_stream(self) -> tuple[StreamState, bool]:
        """Its state, and whether it has everything that it acknowledged."""
        if self._backfiller is None:
            return await self._stream.ensure_ready(), True
        stream, loss = await self._backfiller.inspect()
        if loss is None:
            await self._backfiller.thin_marks()
        return stream, loss is None

    def _count(self, acknowledged: Sequence[QueuedRange]) -> None:
        now = asyncio.get_running_loop().time()
        for queued in acknowledged:
            events = queued.event_range.last - queued.event_range.first + 1
            self.published += events
            self.publish_seconds.observe(now - queued.queued_at, events)

    def _note_failure(self, state: RetryCallState) -> None:
        self.publish_failures += 1
        self._state.stream_ready = False
        # The first and tenth failure, then every hundredth: an outage may last for hours.
        if state.attempt_number in (1, 10) or state.attempt_number % 100 == 0:
            outcome = state.outcome
            _log.warning(
                "publish failed",
                attempt=state.attempt_number,
                waiting=self.backlog,
                cause=str(outcome.exception()) if outcome is not None else "",
            )
