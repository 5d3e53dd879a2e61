"""Filling a stream that was lost from the journal, before anything newer goes to it.

A stream that somebody deleted is made again. Its creation time tells one incarnation from another,
also to a relay that starts later. One relay fills it with everything that is written, and the
others wait. Whatever is published is published to one incarnation: what a relay that has not
noticed yet sends to the former one arrives nowhere, live or as part of a backfill.
"""

import asyncio
from typing import Final

import structlog

from actors.journal.ports import EventStream, StreamBackfill
from actors.outbox.publisher import RangePublisher
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_BACKFILL_PAGE: Final = 1_000
"""Wallets whose ranges are read at once."""

_BACKFILL_POLL_INTERVAL_S: Final = 0.5
"""How often a relay checks whether another one has filled the stream."""


class Backfiller:
    """Publishes the journal to a stream that does not have it."""

    def __init__(
        self,
        refill: StreamBackfill,
        publisher: RangePublisher,
        *,
        stream: EventStream,
        retention_s: float,
    ) -> None:
        self._refill = refill
        self._publisher = publisher
        self._stream = stream
        self._retention_s = retention_s

    async def ensure_backfilled(self, incarnation: str, connection: int) -> None:
        """Return when this incarnation has the journal, whoever published it."""
        refill = self._refill
        while await refill.backfilled_incarnation() != incarnation:
            if not await refill.try_begin():
                await asyncio.sleep(_BACKFILL_POLL_INTERVAL_S)
                continue
            done = None
            try:
                if await self._backfill(connection, incarnation):
                    # Nobody has outbox rows for what was filled in. If the server loses power
                    # before its disk has it, the stream must not be known to be full.
                    await asyncio.sleep(self._retention_s)
                    await self._stream.ping(connection=connection)
                done = incarnation
            finally:
                await refill.finish(done)

    async def _backfill(self, connection: int, incarnation: str) -> int:
        """Publish the journal; returns how many events it has."""
        after: WalletId | None = None
        events = 0
        while spans := await self._refill.wallet_ranges(after=after, limit=_BACKFILL_PAGE):
            await self._publisher.publish_from_journal(spans, connection, incarnation)
            events += sum(span.last - span.first + 1 for span in spans)
            after = spans[-1].wallet_id
        if events:
            _log.error("stream backfilled from journal", events=events)
        return events
