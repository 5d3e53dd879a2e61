"""Finds unpublished events that a previous owner of a wallet left in the outbox table."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from actors.journal.ports import EventRange, JournalUnavailable, Outbox
from actors.outbox.queue import OutboxQueue
from actors.outbox.state import RelayState
from wallet.slots import SlotRange

_log = structlog.get_logger(__name__)

_SWEEP_PAGE: Final = 1_000
"""Most rows that a sweep reads in one query."""

_SWEEP_AHEAD: Final = 20_000
"""A sweep pauses while more ranges than this are queued: a large backlog stays in the table, not
in memory."""

_SWEEP_SHARE: Final = 0.02
"""Share of the time that a sweep's queries may take. If vacuum can't remove dead rows, queries are
slow; then the sweep runs less often."""

_PAUSE_S_MAX: Final = 30.0
"""A sweep that waited for an outage or a lock must not put the next one off for minutes."""

_STREAM_CHECK_INTERVAL_S: Final = 10.0
"""How often a relay checks that the stream is still the same incarnation."""


class OutboxSweep:
    """Queues old outbox rows of the slots that this shard owns. ``run`` is its task."""

    def __init__(
        self,
        state: RelayState,
        queue: OutboxQueue,
        *,
        outbox: Outbox,
        slots: Sequence[SlotRange],
        check_stream: Callable[[], Awaitable[None]],
        interval_s: float,
        retention_s: float,
    ) -> None:
        self._state = state
        self._queue = queue
        self._outbox = outbox
        self._slots = slots
        self._check_stream = check_stream
        self._interval_s = interval_s
        self._retention_s = retention_s
        self._any_age = True
        """Whether the next sweep reads rows of any age."""
        self._requested = asyncio.Event()

    def request(self, *, any_age: bool = False) -> None:
        """Sweep now, if the stream is ready."""
        self._any_age |= any_age
        self._requested.set()

    async def run(self) -> None:
        """Sweep periodically, until cancelled."""
        clock = asyncio.get_running_loop().time
        checked_at = clock()
        while True:
            self._requested.clear()
            pause_s = 0.0
            # While nothing can be published, the sweep can wait, too.
            if self._state.stream_ready:
                pause_s = await self._sweep_once()
            if clock() - checked_at > _STREAM_CHECK_INTERVAL_S:
                checked_at = clock()
                await self._check_stream()
            await self._pause(max(self._interval_s, pause_s))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._requested.wait()

    async def _sweep_once(self) -> float:
        """Read this shard's rows page by page; returns how long the next sweep has to wait."""
        # The first sweep reads rows of any age: none of them was written by this process.
        older_than_s = 0.0 if self._any_age else self._retention_s
        clock = asyncio.get_running_loop().time
        state, began = self._state, clock()
        generation, took_s = state.generation, 0.0
        after: EventRange | None = None
        try:
            while True:
                started = clock()
                event_ranges = await self._outbox.unpublished(
                    slots=self._slots, after=after, limit=_SWEEP_PAGE, older_than_s=older_than_s
                )
                took_s += clock() - started
                if generation != state.generation:
                    return 0.0
                self._queue.add_from_table(event_ranges)
                if len(event_ranges) < _SWEEP_PAGE:
                    self._any_age = False
                    return min(took_s / _SWEEP_SHARE, _PAUSE_S_MAX)
                after = event_ranges[-1]
                await self._queue.wait_for_room(_SWEEP_AHEAD)
        except JournalUnavailable as failure:
            state.failures["sweep"] += 1
            _log.warning("outbox sweep failed", cause=str(failure))
            # It found nothing yet: it is repeated soon, and takes half of the time at most.
            return min(clock() - began, _PAUSE_S_MAX)
