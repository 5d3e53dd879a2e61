"""The relay: committed events on their way to the stream, in order, whatever happens.

Theory of operation. Spans (a wallet's events from one version to another) queue in the order
in which they were committed. The relay takes as many as fit one publish, gets their events
(from memory, or from the journal once memory is full or after a crash), and publishes them. It
is a single task and a publish ends at the first message that fails, so a wallet's events reach the
stream in version order (INV-9).

An acknowledgement says that the server has the events, not that its disk has. Their outbox rows
are kept until it must have (`outbox_keep_s`); when the connection ends before that, the server may
have lost power, and what it had acknowledged is published again before anything newer. What it
still has it drops by the events' ids.

A span that a predecessor left behind is met in two ways: loading a wallet returns its
unpublished spans, which queue before anything new of that wallet can; and a sweep looks for
old rows of wallets that this shard owns. Both may publish again what is on the stream already:
the event's id makes the stream drop it.

A stream that somebody deleted is made again and filled from the journal before anything new goes
to it. Its creation time tells one incarnation from another, also to a relay that starts later.
Whatever is published is published to one incarnation: what a relay that has not noticed yet sends
to the former one arrives nowhere, live or as part of a filling.
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

_FORGET_S: Final = 0.5
"""Least time between two deletions of outbox rows that are kept for a while."""

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
    outbox_keep_s: float = 0.0
    """For how long after its acknowledgement an event may be lost with the server's memory."""


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


class _Kept:
    """Acknowledged spans whose rows stay until loop time ``until``."""

    __slots__ = ("spans", "until")

    def __init__(self, spans: list[Span], until: float) -> None:
        self.spans = spans
        self.until = until


class OutboxRelay:
    """Publishes what was committed. ``run``, ``forget`` and ``sweep`` are its tasks."""

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
        self._connection = 0
        """The connection over which everything kept was acknowledged."""
        self._queue: deque[_Waiting] = deque()
        self._kept: deque[_Kept] = deque()
        self._known: set[tuple[WalletId, int]] = set()
        """The rows that are queued or kept: whoever finds them in the table finds nothing new."""
        self._in_memory = 0
        self._wake = asyncio.Event()
        self._something_kept = asyncio.Event()
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
        if (span.wallet_id, span.first) in self._known:
            return  # A sweep saw the row first; its events will be read from the journal.
        if self._in_memory + len(recorded) > self._limits.outbox_memory_max:
            self._enqueue(_Waiting(span, None, None))
            return
        self._in_memory += len(recorded)
        self._enqueue(_Waiting(span, recorded, bodies))

    def add_unread(self, spans: Iterable[Span]) -> None:
        """Queue spans that are in the journal, unless they are known already."""
        for span in spans:
            if (span.wallet_id, span.first) not in self._known:
                self._enqueue(_Waiting(span, None, None))

    def _enqueue(self, waiting: _Waiting) -> None:
        span = waiting.span
        self._queue.append(waiting)
        self._known.add((span.wallet_id, span.first))
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
        self._drop(taken)
        self._keep([waiting.span for waiting in taken])

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
        await self._publish(taken, self._connection, self._incarnation)

    async def _prepare(self) -> None:
        """Connect; and if the stream is another one than before, see that it has the journal.

        One relay fills it with everything that is written. The others wait, and whoever does not
        know of it can't reach it, so that nothing newer comes before the journal.
        """
        incarnation = await self._stream.prepare()
        connection = self._stream.connection
        if incarnation is not None and incarnation != self._incarnation:
            await self._see_it_filled(incarnation, connection)
        self._incarnation = incarnation
        await self._publish_kept(connection)

    async def _publish_kept(self, connection: int) -> None:
        """What another connection had acknowledged, and the server may have lost since."""
        if connection == self._connection:
            return
        kept = list(self._kept)
        for one in kept:
            for span in one.spans:
                for part in _parts(span, self._limits.publish_batch_max):
                    await self._publish([_Waiting(part, None, None)], connection, self._incarnation)
        until = self._kept_until()  # The server that answered just now may have it in memory, too.
        for one in kept:
            one.until = until
        if kept:
            spans = sum(len(one.spans) for one in kept)
            _log.info("published again what a lost connection had acknowledged", spans=spans)
        self._connection = connection

    # -- forgetting ----------------------------------------------------------------------------

    def _keep(self, spans: list[Span]) -> None:
        self._kept.append(_Kept(spans, self._kept_until()))
        self._something_kept.set()

    def _kept_until(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.outbox_keep_s

    async def forget(self) -> None:
        """Delete the rows of what is on the stream's disk, for ever."""
        clock = asyncio.get_running_loop().time
        pause_s = min(_FORGET_S, self._limits.outbox_keep_s)
        while True:
            await self._something_kept.wait()
            # Whatever is due by then goes in one statement.
            await asyncio.sleep(max(self._kept[0].until - clock(), pause_s))
            try:
                await self._forget_due()
            except (PublishFailed, JournalUnavailable) as failure:
                _log.warning("outbox rows not deleted", cause=str(failure))
                self.stream_ready = self.stream_ready and not isinstance(failure, PublishFailed)
                self._wake.set()
                await asyncio.sleep(_FORGET_S)

    async def _forget_due(self) -> None:
        now = asyncio.get_running_loop().time()
        due = [one for one in self._kept if one.until <= now]
        if not due:
            return
        # Over the connection that took them: the server has been up ever since.
        await self._stream.answers(connection=self._connection)
        await self._outbox.delete([span for one in due for span in one.spans])
        for one in due:
            assert self._kept.popleft() is one, "rows leave in the order they came"
            self._known -= {(span.wallet_id, span.first) for span in one.spans}
        if not self._kept:
            self._something_kept.clear()

    async def _see_it_filled(self, incarnation: str, connection: int) -> None:
        refill = self._refill
        if refill is None:
            return
        while await refill.filled() != incarnation:
            if not await refill.begin():
                await asyncio.sleep(_REFILL_POLL_S)
                continue
            done = None
            try:
                await self._fill(refill, connection, incarnation)
                done = incarnation
            finally:
                await refill.end(done)

    async def _fill(self, refill: Refill, connection: int, incarnation: str) -> None:
        after: WalletId | None = None
        events = 0
        while spans := await refill.written(after=after, limit=_REFILL_PAGE):
            for span in spans:
                for part in _parts(span, self._limits.publish_batch_max):
                    await self._publish([_Waiting(part, None, None)], connection, incarnation)
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

    async def _publish(
        self, taken: Sequence[_Waiting], connection: int, incarnation: str | None
    ) -> None:
        messages: list[Message] = []
        for waiting in taken:
            messages.extend(await self._messages(waiting))
        size = self._limits.publish_batch_max
        for start in range(0, len(messages), size):
            await self._publish_part(messages[start : start + size], connection, incarnation)

    async def _publish_part(
        self, messages: Sequence[Message], connection: int, incarnation: str | None
    ) -> None:
        if not tracing.on:
            await self._stream.publish(messages, connection=connection, incarnation=incarnation)
            return
        messages, spans = publishing(messages)
        try:
            await self._stream.publish(messages, connection=connection, incarnation=incarnation)
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
        older_than_s = 0.0  # The first time all there is: its owner is not this process.
        while True:
            # While nothing can be published, what others left can wait, too.
            if self.stream_ready:
                await self._sweep_once(older_than_s)
                older_than_s = self._limits.outbox_keep_s
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
            found = (incarnation, self._stream.connection)
            known = (self._incarnation, self._connection)
            self.stream_ready = self.stream_ready and found == known
        if not self.stream_ready:
            self._wake.set()

    async def _sweep_once(self, older_than_s: float) -> None:
        try:
            spans = await self._outbox.unpublished(limit=_SWEEP_LIMIT, older_than_s=older_than_s)
        except JournalUnavailable as failure:
            _log.warning("outbox not swept", cause=str(failure))
        else:
            self.add_unread(span for span in spans if self._owns(span.wallet_id))
