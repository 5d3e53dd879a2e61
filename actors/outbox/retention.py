"""Outbox rows of acknowledged events: retained until the stream's disk has them, then deleted.

An acknowledgement says that the server has the events, not that its disk has. When the connection
ends before it must have, the server may have lost power, and what it had acknowledged is published
again before anything newer.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import structlog

from actors.journal.ports import EventRange, EventStream, JournalUnavailable, Outbox, PublishFailed
from actors.outbox.publisher import RangePublisher
from actors.outbox.queue import OutboxQueue, QueuedRange
from actors.outbox.state import RelayState

_log = structlog.get_logger(__name__)

_PRUNE_ROWS_MAX: Final = 1_000
"""Outbox rows deleted by one statement."""

_PRUNE_INTERVAL_S: Final = 0.5
"""Least time between two deletions of outbox rows that are retained for a while."""


class _RetainedRanges:
    """Acknowledged ranges whose ``rows`` stay until loop time ``until``."""

    __slots__ = ("rows", "spans", "until")

    def __init__(self, spans: list[EventRange], rows: int, until: float) -> None:
        self.spans = spans
        self.rows = rows
        self.until = until


class OutboxRetention:
    """Retains, republishes and prunes. ``prune`` is its task."""

    def __init__(
        self,
        state: RelayState,
        queue: OutboxQueue,
        publisher: RangePublisher,
        *,
        outbox: Outbox,
        stream: EventStream,
        retention_s: float,
    ) -> None:
        self._state = state
        self._queue = queue
        self._publisher = publisher
        self._outbox = outbox
        self._stream = stream
        self._retention_s = retention_s
        self._retained: deque[_RetainedRanges] = deque()
        self._has_retained = asyncio.Event()

    def retain(self, acknowledged: Sequence[QueuedRange]) -> None:
        spans, rows = [one.span for one in acknowledged], sum(one.rows for one in acknowledged)
        self._retained.append(_RetainedRanges(spans, rows, self._retain_until()))
        self._has_retained.set()

    def _retain_until(self) -> float:
        return asyncio.get_running_loop().time() + self._retention_s

    def clear(self) -> None:
        self._retained.clear()

    async def republish(self, connection: int) -> None:
        """What another connection had acknowledged, and the server may have lost since."""
        state = self._state
        if connection == state.connection_epoch:
            return
        retained = list(self._retained)
        await self._publisher.publish_from_journal(
            (span for one in retained for span in one.spans), connection, state.incarnation
        )
        # The server that answered just now may have it in memory only, too.
        until = self._retain_until()
        for one in retained:
            one.until = until
        if retained:
            spans = sum(len(one.spans) for one in retained)
            _log.info("republished retained events after reconnect", spans=spans)
        state.connection_epoch = connection

    async def prune(self) -> None:
        """Delete the rows of what is on the stream's disk, until cancelled."""
        clock = asyncio.get_running_loop().time
        pause_s = min(_PRUNE_INTERVAL_S, self._retention_s)
        while True:
            if not self._retained:
                self._has_retained.clear()
                await self._has_retained.wait()
                continue
            # Whatever is due by then goes together.
            await asyncio.sleep(max(self._retained[0].until - clock(), pause_s))
            try:
                await self._prune_due()
            except (PublishFailed, JournalUnavailable) as failure:
                state = self._state
                state.failures["forget"] += 1
                _log.warning("outbox prune failed", cause=str(failure))
                state.stream_ready = state.stream_ready and not isinstance(failure, PublishFailed)
                state.wake.set()
                await asyncio.sleep(_PRUNE_INTERVAL_S)

    async def _prune_due(self) -> None:
        state = self._state
        now, generation = asyncio.get_running_loop().time(), state.generation
        if self._due(now):
            # Over the connection that took them: the server has been up ever since.
            await self._stream.ping(connection=state.connection_epoch)
        while generation == state.generation and (due := self._due(now)):
            await self._outbox.delete([span for one in due for span in one.spans])
            if generation == state.generation:
                self._release(due)

    def _due(self, now: float) -> list[_RetainedRanges]:
        """The oldest that are retained until ``now`` at most, as many as one statement deletes."""
        due: list[_RetainedRanges] = []
        rows = 0
        for one in self._retained:
            rows += one.rows
            if one.until > now or (due and rows > _PRUNE_ROWS_MAX):
                break
            due.append(one)
        return due

    def _release(self, due: list[_RetainedRanges]) -> None:
        for one in due:
            assert self._retained.popleft() is one, "rows leave in the order they came"
            self._queue.untrack(one.spans)
