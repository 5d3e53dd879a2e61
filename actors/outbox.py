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
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice, repeat
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

_SWEEP_PAGE: Final = 1_000
"""Rows that a sweep looks at in one query."""

_SWEEP_AHEAD: Final = 20_000
"""Spans queued with which a sweep waits before it looks for more: a backlog of any size is in the
table, not in memory."""

_SWEEP_SHARE: Final = 0.02
"""Of the time, how much a sweep's queries may take. Beside rows that are deleted and can't be
vacuumed, each is slow: then there are fewer."""

_FORGET_MAX: Final = 1_000
"""Outbox rows deleted by one statement."""


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


def _joined(rows: Iterable[Span], size: int) -> Iterator[list[Span]]:
    """``rows`` in order, those of one wallet that follow each other together.

    At most ``size`` events are together, except in a row that has more by itself.
    """
    joined: list[Span] = []
    for row in rows:
        if joined and not (
            (row.wallet_id, row.first) == (joined[-1].wallet_id, joined[-1].last + 1)
            and row.last - joined[0].first < size
        ):
            yield joined
            joined = []
        joined.append(row)
    if joined:
        yield joined


def _batches(spans: Iterable[Span], size: int) -> Iterator[list[Span]]:
    """``spans`` in order, in lists of at most ``size`` events; what is larger is cut."""
    batch: list[Span] = []
    room = size
    for span in spans:
        for part in _parts(span, size):
            events = part.last - part.first + 1
            if batch and events > room:
                yield batch
                batch, room = [], size
            batch.append(part)
            room -= events
    if batch:
        yield batch


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

    __slots__ = ("bodies", "messages", "queued_at", "recorded", "rows", "span")

    def __init__(
        self,
        span: Span,
        recorded: list[Recorded] | None = None,
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


class _Kept:
    """Acknowledged spans whose ``rows`` stay until loop time ``until``."""

    __slots__ = ("rows", "spans", "until")

    def __init__(self, spans: list[Span], rows: int, until: float) -> None:
        self.spans = spans
        self.rows = rows
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
        self._generation = 0
        """Counts resets: whatever was under way then is not to be noted as done."""
        self._sweep_all = True
        """Whether the next sweep looks at rows of any age."""
        self._sweep_now = asyncio.Event()
        self._has_room = asyncio.Event()
        self._wake = asyncio.Event()
        self._something_kept = asyncio.Event()
        self._not_before = 0.0
        """Loop time of the next publish, unless a full one waits."""
        self.backlog = 0
        self.published = 0
        self.publish_failures = 0
        self.failures: Counter[str] = Counter()
        """Of what goes on beside publishing, by its name: tried again, and nothing is lost."""
        self.publish_seconds = Histogram()
        """From an event's commit to its acknowledgement."""
        self.stream_ready = False

    def add(self, span: Span, recorded: list[Recorded], bodies: list[bytes]) -> None:
        """Queue events just committed by this shard."""
        ends = recorded[0].wallet.version, recorded[-1].wallet.version
        assert ends == (span.first, span.last), "INV-10 a span is its events"
        if (span.wallet_id, span.first) in self._known:
            return  # A sweep saw the row first; its events will be read from the journal.
        self._known.add((span.wallet_id, span.first))
        if self._in_memory + len(recorded) > self._limits.outbox_memory_max:
            self._enqueue(_Waiting(span))
            return
        self._in_memory += len(recorded)
        self._enqueue(_Waiting(span, recorded, bodies))

    def add_unread(self, spans: Iterable[Span]) -> None:
        """Queue spans that are in the journal, unless they are known already.

        Those of one wallet that follow each other are queued, read and deleted as one.
        """
        unknown = [span for span in spans if (span.wallet_id, span.first) not in self._known]
        self._known.update((span.wallet_id, span.first) for span in unknown)
        for rows in _joined(unknown, self._limits.publish_batch_max):
            self._enqueue(_Waiting(rows[0]._replace(last=rows[-1].last), rows=len(rows)))

    def reset(self) -> None:
        """Forget everything that is queued or kept, and look for it in the table.

        For a database that may be another one than before: what is in memory may never have
        happened there. Whoever calls this forgets its wallets as well, so that each is loaded
        again, and with it what is unpublished of it, before anything newer. (INV-9)
        """
        self._generation += 1
        self._queue.clear()
        self._kept.clear()
        self._known.clear()
        self._has_room.set()
        self._in_memory = self.backlog = 0
        self._sweep_all = True
        self._sweep_now.set()

    def _enqueue(self, waiting: _Waiting) -> None:
        span = waiting.span
        self._queue.append(waiting)
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
        self._sweep_now.set()  # It waits for the stream.
        self._wake.set()  # For what is left of a run that failed.
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
        generation, taken = self._generation, self._peek()
        await asyncio.gather(
            self._until_done(lambda: self._publish_prepared(taken, generation)),
            self._read_ahead(self._peek(after=len(taken))),
        )
        if generation == self._generation:
            self._drop(taken)
            self._keep(taken)

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

    async def _publish_prepared(self, taken: Sequence[_Waiting], generation: int) -> None:
        if not self.stream_ready:
            await self._prepare()
        if generation != self._generation:
            return  # Whatever these were, they are not queued any more.
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
        await self._publish_from_journal(
            (span for one in kept for span in one.spans), connection, self._incarnation
        )
        until = self._kept_until()  # The server that answered just now may have it in memory, too.
        for one in kept:
            one.until = until
        if kept:
            spans = sum(len(one.spans) for one in kept)
            _log.info("published again what a lost connection had acknowledged", spans=spans)
        self._connection = connection

    # -- forgetting ----------------------------------------------------------------------------

    def _keep(self, taken: Sequence[_Waiting]) -> None:
        spans, rows = [one.span for one in taken], sum(one.rows for one in taken)
        self._kept.append(_Kept(spans, rows, self._kept_until()))
        self._something_kept.set()

    def _kept_until(self) -> float:
        return asyncio.get_running_loop().time() + self._limits.outbox_keep_s

    async def forget(self) -> None:
        """Delete the rows of what is on the stream's disk, for ever."""
        clock = asyncio.get_running_loop().time
        pause_s = min(_FORGET_S, self._limits.outbox_keep_s)
        while True:
            if not self._kept:
                self._something_kept.clear()
                await self._something_kept.wait()
                continue
            # Whatever is due by then goes together.
            await asyncio.sleep(max(self._kept[0].until - clock(), pause_s))
            try:
                await self._forget_due()
            except (PublishFailed, JournalUnavailable) as failure:
                self.failures["forget"] += 1
                _log.warning("outbox rows not deleted", cause=str(failure))
                self.stream_ready = self.stream_ready and not isinstance(failure, PublishFailed)
                self._wake.set()
                await asyncio.sleep(_FORGET_S)

    async def _forget_due(self) -> None:
        now, generation = asyncio.get_running_loop().time(), self._generation
        if self._due(now):
            # Over the connection that took them: the server has been up ever since.
            await self._stream.answers(connection=self._connection)
        while generation == self._generation and (due := self._due(now)):
            await self._outbox.delete([span for one in due for span in one.spans])
            if generation == self._generation:
                self._forget_kept(due)

    def _due(self, now: float) -> list[_Kept]:
        """The oldest that are kept until ``now`` at most, as many as one statement deletes."""
        due: list[_Kept] = []
        rows = 0
        for one in self._kept:
            rows += one.rows
            if one.until > now or (due and rows > _FORGET_MAX):
                break
            due.append(one)
        return due

    def _forget_kept(self, due: list[_Kept]) -> None:
        for one in due:
            assert self._kept.popleft() is one, "rows leave in the order they came"
            for wallet_id, first, last in one.spans:
                # Its rows may begin at any of these.
                self._known.difference_update((wallet_id, v) for v in range(first, last + 1))

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
                if await self._fill(refill, connection, incarnation):
                    # Nobody has outbox rows for what was filled in. If the server loses power
                    # before its disk has it, the stream must not be known to be full.
                    await asyncio.sleep(self._limits.outbox_keep_s)
                    await self._stream.answers(connection=connection)
                done = incarnation
            finally:
                await refill.end(done)

    async def _fill(self, refill: Refill, connection: int, incarnation: str) -> int:
        """Publish the journal; returns how many events it has."""
        after: WalletId | None = None
        events = 0
        while spans := await refill.written(after=after, limit=_REFILL_PAGE):
            await self._publish_from_journal(spans, connection, incarnation)
            events += sum(span.last - span.first + 1 for span in spans)
            after = spans[-1].wallet_id
        if events:
            _log.error("the stream was lost: filled again from the journal", events=events)
        return events

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

    async def _publish_from_journal(
        self, spans: Iterable[Span], connection: int, incarnation: str | None
    ) -> None:
        """Publish as much as fits one publish while what fits the next one is read."""
        taken: list[_Waiting] = []
        for fitting in (*_batches(spans, self._limits.publish_batch_max), []):
            following = [_Waiting(span) for span in fitting]
            await asyncio.gather(
                self._publish(taken, connection, incarnation), self._read_ahead(following)
            )
            taken = following

    async def _read_ahead(self, waiting: Sequence[_Waiting]) -> None:
        # What fails is read again when it is to be published.
        with suppress(JournalUnavailable):
            await self._read(
                [one for one in waiting if one.recorded is None and one.messages is None]
            )

    async def _read(self, unread: Sequence[_Waiting]) -> None:
        if unread:
            read = await self._outbox.read([waiting.span for waiting in unread])
            for waiting, recorded in zip(unread, read, strict=True):
                waiting.messages = list(self._encoded(recorded, repeat(None, len(recorded))))

    def _peek(self, *, after: int = 0) -> list[_Waiting]:
        """As many spans as fit one publish, at least one, if there are more than ``after``.

        They stay queued until relayed.
        """
        taken: list[_Waiting] = []
        events = 0
        for waiting in islice(self._queue, after, None):
            size = waiting.span.last - waiting.span.first + 1
            if taken and events + size > self._limits.publish_batch_max:
                break
            taken.append(waiting)
            events += size
        return taken

    async def _publish(
        self, taken: Sequence[_Waiting], connection: int, incarnation: str | None
    ) -> None:
        messages = await self._messages(taken)
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

    async def _messages(self, taken: Sequence[_Waiting]) -> list[Message]:
        await self._read([one for one in taken if one.recorded is None and one.messages is None])
        messages: list[Message] = []
        for waiting in taken:
            if waiting.recorded is not None and waiting.bodies is not None:
                messages += self._encoded(waiting.recorded, waiting.bodies)
            elif waiting.messages is not None:
                messages += waiting.messages
        return messages

    def _encoded(
        self, recorded: Sequence[Recorded], bodies: Iterable[bytes | None]
    ) -> Iterator[Message]:
        partitions = self._limits.partitions
        for event, body in zip(recorded, bodies, strict=True):
            yield Message(
                subject_of(event.wallet.id, event.event.type, partitions),
                event.id,
                encode_event(event, body),
                event.trace,
            )

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
        self._has_room.set()

    # -- what predecessors left -----------------------------------------------------------------

    async def sweep(self) -> None:
        """Look for unpublished events of this shard's wallets, for ever."""
        clock = asyncio.get_running_loop().time
        looked_at = clock()
        while True:
            self._sweep_now.clear()
            took_s = 0.0
            # While nothing can be published, what others left can wait, too.
            if self.stream_ready:
                took_s = await self._sweep_once()
            if clock() - looked_at > _LOOK_S:
                looked_at = clock()
                await self._look_for_loss()
            await self._rest(max(self._limits.outbox_sweep_s, took_s / _SWEEP_SHARE))

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._sweep_now.wait()

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

    async def _sweep_once(self) -> float:
        """Look through the table, page by page. How long Postgres took, all in all."""
        # The first time all there is: its owner is not this process.
        older_than_s = 0.0 if self._sweep_all else self._limits.outbox_keep_s
        clock = asyncio.get_running_loop().time
        generation, took_s = self._generation, 0.0
        after: Span | None = None
        try:
            while True:
                asked = clock()
                spans = await self._outbox.unpublished(
                    after=after, limit=_SWEEP_PAGE, older_than_s=older_than_s
                )
                took_s += clock() - asked
                if generation != self._generation:
                    return 0.0
                self.add_unread(span for span in spans if self._owns(span.wallet_id))
                if len(spans) < _SWEEP_PAGE:
                    self._sweep_all = False
                    return took_s
                after = spans[-1]
                await self._until_room()
        except JournalUnavailable as failure:
            self.failures["sweep"] += 1
            _log.warning("outbox not swept", cause=str(failure))
            return took_s

    async def _until_room(self) -> None:
        while len(self._queue) > _SWEEP_AHEAD:
            self._has_room.clear()
            await self._has_room.wait()
