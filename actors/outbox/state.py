"""State that the parts of an outbox relay share."""

import asyncio
from collections import Counter


class RelayState:
    """The relay's view of its stream, and signals between its parts."""

    __slots__ = (
        "connection_epoch",
        "failures",
        "generation",
        "incarnation",
        "stream_ready",
        "wake",
    )

    def __init__(self) -> None:
        self.stream_ready = False
        self.connection_epoch = 0
        """The connection over which all retained ranges were acknowledged."""
        self.incarnation: str | None = None
        """Incarnation of the stream that events are published to."""
        self.generation = 0
        """Counts resets: an operation that started before a reset must drop its result."""
        self.failures: Counter[str] = Counter()
        """Of background tasks, by name: each is retried, and nothing is lost."""
        self.wake = asyncio.Event()
        """Set when there is something to publish, or the stream must be prepared."""
