"""The relay: committed events on their way to the stream, in order, whatever happens.

Theory of operation. Spans (a wallet's events from one version to another) queue in the order
in which they were committed. The relay takes as many as fit one publish, gets their events
(from memory, or from the journal once memory is full or after a crash), publishes them, and
deletes their outbox rows after the acknowledgement. It is a single task, and a publish is all or
nothing, so a wallet's events reach the stream in version order (INV-9).

A span that a predecessor left behind is met in two ways: loading a wallet returns its
unpublished spans, which queue before anything new of that wallet can; and a sweep looks for
old rows of wallets that this shard owns. Both may publish again what is on the stream already:
the event's id makes the stream drop it.

A stream that somebody deleted is made again and filled from the journal before anything new goes
to it: until then it is shut to everything else, also to relays that have not noticed yet. Its
creation time tells one incarnation from another, also to a relay that starts later.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec
import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from actors.ports import (
    EventStream,
    JournalUnavailable,
    Message,
    Outbox,
    PublishFailed,
    Refill,
    Span,
)
from actors.traces import publishing
from telemetry import tracing
from telemetry.histogram import Histogram
from wallet.event_codec import encode_event, subject_of
from wallet.events import Recorded
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_SWEEP_LIMIT: Final = 10_000
"""Spans looked at in one sweep; the next sweep sees the rest."""


_REFILL_PAGE: Final = 1_000
"""Wallets looked up at once when a lost stream is filled again."""

_LOOK_S: Final = 10.0
"""How often a relay looks whether the stream is still the one that it was."""

_REFILL_POLL_S: Final = 0.5
"""How often a relay looks whether another one has filled the stream."""


def _parts(span: Span, size: int) -> Iterator[Span]:
    """``span`` in pieces of at most ``size`` events."""
    for first in range(span.first, span.last + 1, size):
        yield Span(span.wallet_id, first, min(first + size - 1, span.last))


class RelayLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a relay; see the settings of the same names for their reasons."""

    publish_batch_max: int
    outbox_memory_max: int
    outbox_sweep_s: float
    partitions: int
    publish_interval_s: float = 0.0


class _Waiting:
    """A span in the queue, with its events if memory allows."""

    __slots__ = ("bodies", "queued_at", "recorded", "span")

    def __init__(
        self, span: Span, recorded: list[Recorded] | None, bodies: list[bytes] | None
    ) -> None:
        self.span = span
        self.recorded = recorded
        self.bodies = bodies
        self.queued_at = asyncio.get_running_loop().time()


class OutboxRelay:
    """Publishes what was committed. ``run`` and ``sweep`` are its tasks."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        stream: EventStream,
        limits: RelayLimits,
        owns: Callable[[WalletId], bool],
        refill: Refill | None = None,
    ) -> None:
        self._outbox = outbox
        self._stream = stream
        self._limits = limits
        self._owns = owns
        self._refill = refill
        self._incarnation: str | None = None
        self._queue: deque[_Waiting] = deque()
        self._queued: set[tuple[WalletId, int]] = set()
        self._in_memory = 0
        self._wake = asyncio.Event()
        self._not_before = 0.0
        """Loop time of the next publish, unless a full one waits."""
        self.backlog = 0
        self.published = 0
        self.publish_failures = 0
        self.publish_seconds = Histogram()
        """From an event's commit to its acknowledgement."""
        self.stream_ready = False

    def add(self, span: Span, recorded: list[Recorded], bodies: list[bytes]) -> None:
        """Queue events just committed by this shard."""
        if (span.wallet_id, span.first) in self._queued:
            return  # A sweep saw the row first; its events will be read from the journal.
        if self._in_memory + len(recorded) > self._limits.outbox_memory_max:
            self._enqueue(_Waiting(span, None, None))
            return
        self._in_memory += len(recorded)
        self._enqueue(_Waiting(span, recorded, bodies))

    def add_unread(self, spans: Iterable[Span]) -> None:
        """Queue spans that are in the journal, unless they are queued already."""
        for span in spans:
            if (span.wallet_id, span.first) not in self._queued:
                self._enqueue(_Waiting(span, None, None))

    def _enqueue(self, waiting: _Waiting) -> None:
        span = waiting.span
        self._queue.append(waiting)
        self._queued.add((span.wallet_id, span.first))
        self.backlog += span.last - span.first + 1
        self._wake.set()

    @property
    def age_s(self) -> float:
        """How long the oldest event has been waiting here; 0 if none is."""
        if not self._queue:
            return 0.0
        return asyncio.get_running_loop().time() - self._queue[0].queued_at

    # -- publishing --------------------------------------------------------------------------

    async def run(self) -> None:
        """Publish until cancelled. The stream is made first: readers wait for it, too."""
        await self._until_done(self._prepare)
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.stream_ready:
                await self._until_done(self._prepare)
            while self._queue:
                await self._pace()
                await self._relay_some()

    async def _pace(self) -> None:
        """A publish costs much and an event in it little: let some gather, for a moment."""
        clock = asyncio.get_running_loop().time
        if (
            self.backlog < self._limits.publish_batch_max
            and (wait_s := self._not_before - clock()) > 0
        ):
            await asyncio.sleep(wait_s)
        self._not_before = clock() + self._limits.publish_interval_s

    async def _relay_some(self) -> None:
        taken = self._peek()
        await self._until_done(lambda: self._publish_prepared(taken))
        spans = [waiting.span for waiting in taken]
        try:
            await self._outbox.delete(spans)
        except JournalUnavailable as failure:
            # The rows stay, and a later sweep publishes again what the stream then drops.
            _log.warning("outbox rows not deleted", rows=len(spans), cause=str(failure))
        self._drop(taken)

    async def _until_done(self, step: Callable[[], Awaitable[None]]) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type((PublishFailed, JournalUnavailable)),
            # No end: the outbox is bounded by refusing writes, never by losing events.
            wait=wait_random_exponential(multiplier=0.05, max=2.0),
            after=self._note_failure,
        ):
            with attempt:
                await step()
        self.stream_ready = True

    async def _publish_prepared(self, taken: Sequence[_Waiting]) -> None:
        if not self.stream_ready:
            await self._prepare()
        await self._publish(taken)

    async def _prepare(self) -> None:
        """Connect; and if the stream is another one than before, see that it has the journal.

        One relay fills it with everything that is written, and opens it. The others wait, and
        whoever does not know of it finds it shut, so that nothing newer comes before it.
        """
        incarnation = await self._stream.prepare()
        if incarnation is not None and incarnation != self._incarnation:
            await self._see_it_filled(incarnation)
        await self._stream.open(incarnation)
        self._incarnation = incarnation

    async def _see_it_filled(self, incarnation: str) -> None:
        refill = self._refill
        if refill is None:
            return
        while await refill.filled() != incarnation:
            if not await refill.begin():
                await asyncio.sleep(_REFILL_POLL_S)
                continue
            done = None
            try:
                await self._stream.shut()
                await self._fill(refill)
                done = incarnation
            finally:
                await refill.end(done)

    async def _fill(self, refill: Refill) -> None:
        after: WalletId | None = None
        events = 0
        while spans := await refill.written(after=after, limit=_REFILL_PAGE):
            for span in spans:
                for part in _parts(span, self._limits.publish_batch_max):
                    await self._publish([_Waiting(part, None, None)], filling=True)
                    events += part.last - part.first + 1
            after = spans[-1].wallet_id
        if events:
            _log.error("the stream was lost: filled again from the journal", events=events)

    def _note_failure(self, state: RetryCallState) -> None:
        self.publish_failures += 1
        self.stream_ready = False
        # The first of an outage, and then every now and then: it may last for hours.
        if state.attempt_number in (1, 10) or state.attempt_number % 100 == 0:
            outcome = state.outcome
            _log.warning(
                "events not published",
                attempt=state.attempt_number,
                waiting=self.backlog,
                cause=str(outcome.exception()) if outcome is not None else "",
            )

    def _peek(self) -> list[_Waiting]:
        """As many spans as fit one publish, at least one. They stay queued until relayed."""
        taken: list[_Waiting] = []
        events = 0
        for waiting in self._queue:
            size = waiting.span.last - waiting.span.first + 1
            if taken and events + size > self._limits.publish_batch_max:
                break
            taken.append(waiting)
            events += size
        return taken

    async def _publish(self, taken: Sequence[_Waiting], *, filling: bool = False) -> None:
        messages: list[Message] = []
        for waiting in taken:
            messages.extend(await self._messages(waiting))
        size = self._limits.publish_batch_max
        for start in range(0, len(messages), size):
            await self._publish_part(messages[start : start + size], filling=filling)

    async def _publish_part(self, messages: Sequence[Message], *, filling: bool) -> None:
        if not tracing.on:
            await self._stream.publish(messages, filling=filling)
            return
        messages, spans = publishing(messages)
        try:
            await self._stream.publish(messages, filling=filling)
        finally:
            for span in spans:
                span.end()

    async def _messages(self, waiting: _Waiting) -> list[Message]:
        partitions = self._limits.partitions
        recorded: Sequence[Recorded]
        if waiting.recorded is None or waiting.bodies is None:
            recorded = await self._outbox.read(waiting.span)
            bodies: Sequence[bytes | None] = [None] * len(recorded)
        else:
            recorded, bodies = waiting.recorded, waiting.bodies
        return [
            Message(
                subject_of(event.wallet.id, event.event.type, partitions),
                event.id,
                encode_event(event, body),
                event.trace,
            )
            for event, body in zip(recorded, bodies, strict=True)
        ]

    def _drop(self, taken: list[_Waiting]) -> None:
        now = asyncio.get_running_loop().time()
        for waiting in taken:
            assert self._queue.popleft() is waiting, "spans leave in the order they came"
            span = waiting.span
            events = span.last - span.first + 1
            self._queued.discard((span.wallet_id, span.first))
            self.backlog -= events
            self.published += events
            self.publish_seconds.observe(now - waiting.queued_at, events)
            if waiting.recorded is not None:
                self._in_memory -= events

    # -- what predecessors left -----------------------------------------------------------------

    async def sweep(self) -> None:
        """Look for unpublished events of this shard's wallets, for ever."""
        clock = asyncio.get_running_loop().time
        looked_at = clock()
        while True:
            # While nothing can be published, what others left can wait, too.
            if self.stream_ready:
                await self._sweep_once()
            if clock() - looked_at > _LOOK_S:
                looked_at = clock()
                await self._look_for_loss()
            await asyncio.sleep(self._limits.outbox_sweep_s)

    async def _look_for_loss(self) -> None:
        """A stream that is lost while nothing is published must be noticed, too."""
        try:
            incarnation = await self._stream.prepare()
        except PublishFailed:
            self.stream_ready = False
        else:
            self.stream_ready = self.stream_ready and incarnation == self._incarnation
        if not self.stream_ready:
            self._wake.set()

    async def _sweep_once(self) -> None:
        try:
            spans = await self._outbox.unpublished(limit=_SWEEP_LIMIT)
        except JournalUnavailable as failure:
            _log.warning("outbox not swept", cause=str(failure))
        else:
            self.add_unread(span for span in spans if self._owns(span.wallet_id))
