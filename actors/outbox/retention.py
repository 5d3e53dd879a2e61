"""Retains the outbox rows of acknowledged events until they are on the stream's disk.

An acknowledgement means that the server has the events, not that they are on its disk. If the
connection ends before they must be, the server may have lost power, and the acknowledged events are
published again before any newer one.

Rows are deleted together with writing down the stream's highest sequence of their events, as a mark
by which a relay notices later that the stream lost them.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from actors.journal.ports import (
    EventRange,
    EventStream,
    JournalUnavailable,
    Outbox,
    PublishFailed,
    StreamMark,
)
from actors.outbox.publisher import RangePublisher
from actors.outbox.queue import OutboxQueue, QueuedRange
from actors.outbox.state import RelayState

_log = structlog.get_logger(__name__)

_PRUNE_ROWS_MAX: Final = 1_000
"""Most outbox rows deleted by one statement."""

_PRUNE_INTERVAL_S: Final = 0.5
"""Minimum time between two deletions of outbox rows."""


class Acknowledgement(NamedTuple):
    """The stream has what was published since loop time ``begun``, at or below ``sequence``."""

    begun: float
    incarnation: str | None = None
    sequence: int = 0


class _RetainedRanges:
    """Acknowledged event ranges whose ``rows`` are retained until loop time ``until``."""

    __slots__ = ("acknowledgement", "event_ranges", "rows", "until")

    def __init__(
        self,
        event_ranges: list[EventRange],
        rows: int,
        until: float,
        acknowledgement: Acknowledgement,
    ) -> None:
        self.event_ranges = event_ranges
        self.rows = rows
        self.until = until
        self.acknowledgement = acknowledgement


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

    def retain(self, acknowledged: Sequence[QueuedRange], acknowledgement: Acknowledgement) -> None:
        event_ranges, rows = (
            [one.event_range for one in acknowledged],
            sum(one.rows for one in acknowledged),
        )
        self._retained.append(
            _RetainedRanges(event_ranges, rows, self._retain_until(), acknowledgement)
        )
        self._has_retained.set()

    def _retain_until(self) -> float:
        return asyncio.get_running_loop().time() + self._retention_s

    def clear(self) -> None:
        self._retained.clear()

    async def republish(self, connection: int) -> None:
        """Publish again what was acknowledged over another connection and may be lost."""
        state = self._state
        if connection == state.connection_epoch:
            return
        retained, incarnation = list(self._retained), state.incarnation
        begun = asyncio.get_running_loop().time()
        sequence = await self._publisher.publish_from_journal(
            (event_range for one in retained for event_range in one.event_ranges),
            connection,
            incarnation,
        )
        # The current server, too, may have these events in memory only.
        until = self._retain_until()
        for one in retained:
            one.until = until
            one.acknowledgement = Acknowledgement(begun, incarnation, sequence)
        if retained:
            ranges = sum(len(one.event_ranges) for one in retained)
            _log.info("republished retained events after reconnect", spans=ranges)
        state.connection_epoch = connection

    async def prune(self) -> None:
        """Delete the outbox rows of events that are on the stream's disk, until cancelled."""
        clock = asyncio.get_running_loop().time
        pause_s = min(_PRUNE_INTERVAL_S, self._retention_s)
        while True:
            if not self._retained:
                self._has_retained.clear()
                await self._has_retained.wait()
                continue
            # All rows that are due by then are deleted together.
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
            # Over the connection that acknowledged them: the server has been up since then.
            await self._stream.ping(connection=state.connection_epoch)
        while generation == state.generation and (due := self._due(now)):
            await self._outbox.delete(
                [event_range for one in due for event_range in one.event_ranges], mark=_mark(due)
            )
            if generation == state.generation:
                self._release(due)

    def _due(self, now: float) -> list[_RetainedRanges]:
        """The oldest ranges whose retention has ended, as many as one statement deletes."""
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
            self._queue.untrack(one.event_ranges)


def _mark(due: Sequence[_RetainedRanges]) -> StreamMark | None:
    """The last of these events on the stream. What another incarnation acknowledged is at or below
    the marks of the fill that began this one."""
    incarnation = due[-1].acknowledgement.incarnation
    acknowledged = [
        one.acknowledgement for one in due if one.acknowledgement.incarnation == incarnation
    ]
    sequences = [one.sequence for one in acknowledged]
    if incarnation is None or not max(sequences):
        return None
    age_s = asyncio.get_running_loop().time() - min(one.begun for one in acknowledged)
    return StreamMark(incarnation, max(sequences), age_s, min(sequences))
