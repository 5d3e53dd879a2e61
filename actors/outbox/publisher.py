"""Publishes event ranges: from memory, or read from the journal and encoded."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from actors.journal.ports import EventRange, EventStream, JournalUnavailable, Message, Outbox
from actors.outbox.queue import QueuedRange
from actors.outbox.ranges import pack
from actors.outbox.tracing import start_publish_spans
from runtime import tracing
from wallet.event_codec import encode_event, subject_of_wallet
from wallet.events import RecordedEvent


class RangePublisher:
    """Publishes event ranges over a given connection to a given incarnation of the stream."""

    def __init__(
        self, *, outbox: Outbox, stream: EventStream, publish_batch_max: int, partitions: int
    ) -> None:
        self._outbox = outbox
        self._stream = stream
        self._publish_batch_max = publish_batch_max
        self._partitions = partitions

    async def publish(
        self, taken: Sequence[QueuedRange], connection: int, incarnation: str | None
    ) -> int:
        """Returns a sequence that none of the messages is above."""
        messages = await self._messages(taken)
        size = self._publish_batch_max
        highest = 0
        for start in range(0, len(messages), size):
            part = messages[start : start + size]
            highest = max(highest, await self._publish_part(part, connection, incarnation))
        return highest

    async def publish_from_journal(
        self, event_ranges: Iterable[EventRange], connection: int, incarnation: str | None
    ) -> int:
        """Publish one batch while the next one is read; returns what `publish` does."""
        taken: list[QueuedRange] = []
        highest = 0
        for fitting in (*pack(event_ranges, self._publish_batch_max), []):
            following = [QueuedRange(event_range) for event_range in fitting]
            sequence, _ = await asyncio.gather(
                self.publish(taken, connection, incarnation), self.read_ahead(following)
            )
            highest = max(highest, sequence)
            taken = following
        return highest

    async def read_ahead(self, following: Sequence[QueuedRange]) -> None:
        """Read the events of the next publish."""
        # After a failure the events are read again when they are published.
        with suppress(JournalUnavailable):
            await self._read(following)

    async def _publish_part(
        self, messages: Sequence[Message], connection: int, incarnation: str | None
    ) -> int:
        if not tracing.enabled:
            return await self._stream.publish(
                messages, connection=connection, incarnation=incarnation
            )
        messages, spans = start_publish_spans(messages)
        try:
            return await self._stream.publish(
                messages, connection=connection, incarnation=incarnation
            )
        finally:
            for span in spans:
                span.end()

    async def _messages(self, taken: Sequence[QueuedRange]) -> list[Message]:
        await self._read(taken)
        messages: list[Message] = []
        for queued in taken:
            if queued.recorded is not None:
                messages += self._encoded(queued.recorded)
            elif queued.messages is not None:
                messages += queued.messages
        return messages

    async def _read(self, ranges: Sequence[QueuedRange]) -> None:
        unread = [one for one in ranges if one.recorded is None and one.messages is None]
        if unread:
            read = await self._outbox.read([queued.event_range for queued in unread])
            for queued, recorded in zip(unread, read, strict=True):
                queued.messages = list(self._encoded(recorded))

    def _encoded(self, recorded: Sequence[RecordedEvent]) -> Iterator[Message]:
        """The messages of one wallet's events."""
        subject = subject_of_wallet(recorded[0].wallet_after.id, self._partitions)
        for event in recorded:
            event_id = event.id
            yield Message(
                f"{subject}.{event.event.type}",
                event_id,
                encode_event(event, event_id),
                event.traceparent,
            )
