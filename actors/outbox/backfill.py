"""Backfills a lost stream from the journal, before any newer event is published to it.

A deleted stream is created again. Its creation time identifies the incarnation, also for a relay
that starts later. One relay backfills it from the journal, and the others wait. Each publish is
addressed to one incarnation: a relay that has not noticed the loss yet publishes to the previous
one, and nothing stores these messages.
"""

import asyncio
from typing import Final

import structlog

from actors.journal.ports import EventStream, StreamBackfill
from actors.outbox.publisher import RangePublisher
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_BACKFILL_PAGE: Final = 1_000
"""Wallets whose ranges are read by one query."""

_BACKFILL_POLL_INTERVAL_S: Final = 0.5
"""How often a relay checks whether another one has finished the backfill."""


class Backfiller:
    """Publishes the journal to a new stream."""

    def __init__(
        self,
        backfill: StreamBackfill,
        publisher: RangePublisher,
        *,
        stream: EventStream,
        retention_s: float,
    ) -> None:
        self._backfill_port = backfill
        self._publisher = publisher
        self._stream = stream
        self._retention_s = retention_s

    async def ensure_backfilled(self, incarnation: str, connection: int) -> None:
        """Return when this incarnation has all events of the journal, whichever relay did it."""
        backfill = self._backfill_port
        while await backfill.backfilled_incarnation() != incarnation:
            if not await backfill.try_begin():
                await asyncio.sleep(_BACKFILL_POLL_INTERVAL_S)
                continue
            done = None
            try:
                if await self._backfill(connection, incarnation):
                    # Backfilled events have no outbox rows. Mark the stream as backfilled only once
                    # the server must have written them to disk: until then it may lose power.
                    await asyncio.sleep(self._retention_s)
                    await self._stream.ping(connection=connection)
                done = incarnation
            finally:
                await backfill.finish(done)

    async def _backfill(self, connection: int, incarnation: str) -> int:
        """Publish the journal; returns its number of events."""
        after: WalletId | None = None
        events = 0
        while event_ranges := await self._backfill_port.wallet_ranges(
            after=after, limit=_BACKFILL_PAGE
        ):
            await self._publisher.publish_from_journal(event_ranges, connection, incarnation)
            events += sum(event_range.last - event_range.first + 1 for event_range in event_ranges)
            after = event_ranges[-1].wallet_id
        if events:
            _log.error("stream backfilled from journal", events=events)
        return events
