"""What the parts of an outbox relay share."""

import asyncio
from collections import Counter


class RelayState:
    """What a relay knows of its stream, and what its parts report to each other."""

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
        """The stream that is published to."""
        self.generation = 0
        """Counts resets: an operation that began before one must not record its result."""
        self.failures: Counter[str] = Counter()
        """Of tasks beside publishing, by name: each is retried, and nothing is lost."""
        self.wake = asyncio.Event()
        """Set when there is something to publish, or a stream to prepare."""
