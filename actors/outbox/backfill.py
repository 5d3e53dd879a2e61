"""Fills a stream that lacks events from the journal, before any newer event is published to it.

Theory of operation. A stream loses events in three ways (`StreamLoss`):

- It was deleted, and created again. Its creation time identifies it, also for a relay that starts
  later. It gets the whole journal. If the database does not know a stream that has messages, the
  database may be another one: the stream gets the whole journal, too, and keeps what it has.
- It was rolled back: its store was put back from a copy. Its last sequence is below one that was
  acknowledged and synced, of which the database keeps marks. What is missing is the end of some
  wallets' histories. It gets each wallet's events after the last one that it still has.
- It was purged. A message is gone that is too young to have expired. Consumers may not have read
  it, and publishing old events after newer ones would break the order. So the rest is purged, too,
  and it gets the whole journal.

One relay fills it, and the others wait. A publish is addressed to one incarnation, and a fill in
place begins by making the stream another one (`EventStream.begin_fill`). A relay that has not
noticed the loss yet publishes to the previous incarnation, and nothing stores these messages.

The name of the incarnation says what is being done, and the database names the last incarnation
that is complete. So a fill that was interrupted is detected and done again by any relay. A fill
repeated is safe: what is published twice is dropped as a duplicate, by the server or by version.
"""

import asyncio
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import structlog

from actors.journal.ports import (
    Acknowledged,
    EventRange,
    EventStream,
    FilledStream,
    PublishFailed,
    StreamBackfill,
    StreamState,
    fill_of,
)
from actors.outbox.publisher import RangePublisher
from actors.outbox.stream_loss import StreamLoss, loss_of
from wallet.event_codec import decode_envelope
from wallet.ids import WalletId

_log = structlog.get_logger(__name__)

_BACKFILL_PAGE: Final = 1_000
"""Wallets whose ranges are read by one query."""

_BACKFILL_POLL_INTERVAL_S: Final = 0.5
"""How often a relay checks whether another one has finished the backfill."""

_ROLLED_BACK_TO: Final = re.compile(rf"{StreamLoss.ROLLED_BACK}-(\d+)-")


class _Fill(NamedTuple):
    """A fill of the stream that this relay has begun."""

    state: StreamState
    """Of the stream at its beginning."""
    connection: int
    takes_all: bool = True
    """Whether the stream gets the whole journal; or each wallet's events after its last one."""
    starts_empty: bool = False
    """Whether the stream has no messages at its beginning, and may know no id of earlier ones."""
    kept: int = 0
    """Marks up to this sequence stay true."""
    since: float | None = None

    def check_stored(self, events: int, last_sequence: int) -> None:
        """An empty stream stores all ``events`` that were published to it so far.

        The order of a wallet's events would be broken if it dropped some as duplicates. (INV-9)
        """
        stored = last_sequence - self.state.last_sequence
        if self.starts_empty and stored < events:
            raise PublishFailed(f"the stream dropped {events - stored} events as duplicates")


class Backfiller:
    """Publishes what the stream lacks."""

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
        self.refilling = False
        """Whether the stream lacks events, and this relay waits for them or publishes them."""
        self.fills = dict.fromkeys(StreamLoss, 0)
        """Fills that this relay finished and that published something."""

    async def ensure_backfilled(self) -> StreamState:
        """Connect, and return when the stream has all events, whichever relay did it."""
        while True:
            state, loss = await self.inspect()
            if loss is None:
                return state
            if not await self._backfill_port.try_begin():
                await asyncio.sleep(_BACKFILL_POLL_INTERVAL_S)
                continue
            filled = None
            try:
                # Another relay may have filled it since.
                filled = await self._fill_if_needed()
            finally:
                await self._backfill_port.finish(filled)

    async def inspect(self) -> tuple[StreamState, StreamLoss | None]:
        """The stream's state, and whether it lost events."""
        _, state, loss = await self._inspect()
        self.refilling = loss is not None
        return state, loss

    async def _inspect(self) -> tuple[Acknowledged, StreamState, StreamLoss | None]:
        port = self._backfill_port
        known = await port.acknowledged()
        state = await self._stream.ensure_ready()
        loss = loss_of(known, state)
        if loss is StreamLoss.PURGED and state.max_age_s:
            # Somebody may have shortened the time that it keeps messages.
            await port.limit_age(state.max_age_s)
            known = await port.acknowledged()
            loss = loss_of(known, state)
        return known, state, loss

    async def thin_marks(self) -> None:
        """Delete superfluous marks."""
        await self._backfill_port.thin_marks()

    # -- filling ---------------------------------------------------------------------------------

    async def _fill_if_needed(self) -> FilledStream | None:
        started = asyncio.get_running_loop().time()
        known, state, loss = await self._inspect()
        if loss is None:
            return None
        fill = await self._begin(loss, known, state, self._stream.connection_epoch)
        events = await self._publish(fill)
        end = fill.state
        if events:
            # Backfilled events have no outbox rows. The stream counts as complete only once the
            # server must have written them to disk: until then it may lose power.
            await asyncio.sleep(self._retention_s)
            await self._stream.ping(connection=fill.connection)
            end = await self._stream.ensure_ready()
            self._check_incarnation(fill, end)
            fill.check_stored(events, end.last_sequence)
            self.fills[loss] += 1
            _log.error("stream backfilled from journal", events=events, loss=loss.value)
        return FilledStream(
            end.incarnation or "",
            first=min(fill.state.last_sequence + 1, end.last_sequence) if events else 0,
            last=end.last_sequence if events else 0,
            kept=fill.kept,
            since=fill.since,
            took_s=asyncio.get_running_loop().time() - started,
        )

    async def _begin(
        self, loss: StreamLoss, known: Acknowledged, state: StreamState, connection: int
    ) -> _Fill:
        if loss is StreamLoss.NEW:
            # What it has is of a fill that was interrupted.
            return await self._begin_whole(loss, connection, purge=state.last_sequence > 0)
        if loss is StreamLoss.UNKNOWN:
            return await self._begin_whole(loss, connection, purge=False)
        _log.error(
            "stream is behind the journal",
            loss=loss.value,
            acknowledged=known.highest,
            first_sequence=state.first_sequence,
            last_sequence=state.last_sequence,
        )
        interrupted = fill_of(state.incarnation) if loss is StreamLoss.INTERRUPTED else None
        if loss is StreamLoss.PURGED or (interrupted or "").startswith(StreamLoss.PURGED):
            return await self._begin_whole(StreamLoss.PURGED, connection, purge=True)
        return await self._begin_after_rollback(interrupted, state, connection)

    async def _begin_whole(self, label: StreamLoss, connection: int, *, purge: bool) -> _Fill:
        begun = await self._stream.begin_fill(label, connection=connection, purge=purge)
        is_empty = purge or label is StreamLoss.NEW
        return _Fill(begun, connection, starts_empty=is_empty)

    async def _begin_after_rollback(
        self, interrupted: str | None, state: StreamState, connection: int
    ) -> _Fill:
        """``interrupted``: the fill that was not finished. It names the last sequence before it;
        without a name, what is missing may have been stored at any time."""
        kept = state.last_sequence
        if interrupted is not None:
            found = _ROLLED_BACK_TO.match(interrupted)
            kept = min(kept, int(found[1]) if found else 0)
        label = f"{StreamLoss.ROLLED_BACK}-{kept}"
        begun = await self._stream.begin_fill(label, connection=connection, purge=False)
        since = await self._backfill_port.missing_since(kept)
        return _Fill(begun, connection, takes_all=False, kept=kept, since=since)

    async def _publish(self, fill: _Fill) -> int:
        """Publish what is missing; returns its number of events."""
        after: WalletId | None = None
        events = 0
        while event_ranges := await self._backfill_port.wallet_ranges(
            after=after, limit=_BACKFILL_PAGE, since=fill.since
        ):
            missing = event_ranges if fill.takes_all else await self._missing(event_ranges)
            highest = await self._publisher.publish_from_journal(
                missing, fill.connection, fill.state.incarnation
            )
            events += sum(event_range.last - event_range.first + 1 for event_range in missing)
            if missing:
                fill.check_stored(events, highest)
            after = event_ranges[-1].wallet_id
        return events

    async def _missing(self, event_ranges: Sequence[EventRange]) -> list[EventRange]:
        """The end of each range, after the wallet's last event on the stream.

        All events before it are or were on the stream, because it gets them in order. (INV-9)
        """
        payloads = await self._stream.last_payloads([one.wallet_id for one in event_ranges])
        ends = (
            event_range._replace(first=_version_of(payload) + 1)
            for event_range, payload in zip(event_ranges, payloads, strict=True)
        )
        return [one for one in ends if one.first <= one.last]

    @staticmethod
    def _check_incarnation(fill: _Fill, end: StreamState) -> None:
        if end.incarnation != fill.state.incarnation:
            raise PublishFailed("the stream became another one while it was filled")


def _version_of(payload: bytes | None) -> int:
    """The wallet's version in an event; 0 if it is no event."""
    if payload is None:
        return 0
    try:
        return decode_envelope(payload).walletversion
    except msgspec.MsgspecError:
        return 0
