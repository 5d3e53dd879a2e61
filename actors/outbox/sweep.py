"""Finding unpublished events that a former owner of a wallet left behind in the outbox table."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import structlog

from actors.journal.ports import EventRange, JournalUnavailable, Outbox
from actors.outbox.queue import OutboxQueue
from actors.outbox.state import RelayState
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_SWEEP_PAGE: Final = 1_000
"""Rows that a sweep reads in one query."""

_SWEEP_AHEAD: Final = 20_000
"""Ranges queued with which a sweep waits before it reads more: a backlog of any size is in the
table, not in memory."""

_SWEEP_SHARE: Final = 0.02
"""Of the time, how much a sweep's queries may take. Beside rows that are deleted and can't be
vacuumed, each is slow: then there are fewer."""

_STREAM_CHECK_INTERVAL_S: Final = 10.0
"""How often a relay checks whether the stream is still the one that it was."""


class OutboxSweep:
    """Queues old rows of wallets that this shard owns. ``run`` is its task."""

    def __init__(
        self,
        state: RelayState,
        queue: OutboxQueue,
        *,
        outbox: Outbox,
        owns: Callable[[WalletId], bool],
        check_stream: Callable[[], Awaitable[None]],
        interval_s: float,
        retention_s: float,
    ) -> None:
        self._state = state
        self._queue = queue
        self._outbox = outbox
        self._owns = owns
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
        """Sweep every now and then, until cancelled."""
        clock = asyncio.get_running_loop().time
        checked_at = clock()
        while True:
            self._requested.clear()
            took_s = 0.0
            # While nothing can be published, what others left can wait, too.
            if self._state.stream_ready:
                took_s = await self._sweep_once()
            if clock() - checked_at > _STREAM_CHECK_INTERVAL_S:
                checked_at = clock()
                await self._check_stream()
            await self._pause(max(self._interval_s, took_s / _SWEEP_SHARE))

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._requested.wait()

    async def _sweep_once(self) -> float:
        """Read the table, page by page. How long Postgres took, all in all."""
        # The first time all there is: its owner is not this process.
        older_than_s = 0.0 if self._any_age else self._retention_s
        clock = asyncio.get_running_loop().time
        state = self._state
        generation, took_s = state.generation, 0.0
        after: EventRange | None = None
        try:
            while True:
                asked = clock()
                spans = await self._outbox.unpublished(
                    after=after, limit=_SWEEP_PAGE, older_than_s=older_than_s
                )
                took_s += clock() - asked
                if generation != state.generation:
                    return 0.0
                self._queue.add_from_table(span for span in spans if self._owns(span.wallet_id))
                if len(spans) < _SWEEP_PAGE:
                    self._any_age = False
                    return took_s
                after = spans[-1]
                await self._queue.wait_for_room(_SWEEP_AHEAD)
        except JournalUnavailable as failure:
            state.failures["sweep"] += 1
            _log.warning("outbox sweep failed", cause=str(failure))
            return took_s
