"""Compares the stream's tail with the journal.

The stream has every acknowledged write, moments behind the journal. If the database has lost its
last commits, their events are at the end of the stream, among those that the relays published late.

How far back is enough? Suppose that a lost event was published at the time P. Everything that was
committed since has been lost, too. So an event that the journal has, and that was published after
P, was committed before P: it was published late, by at least the time since P. Once an event that
the journal has is newer than the oldest one read by more than any delay that was seen, nothing
before that oldest one is lost. The margin is for clocks that differ.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final, Protocol

import msgspec

from actors.history.ports import StreamEvent, StreamTail

PAGE: Final = 2_000
"""Messages that are compared at once."""

CLOCK_MARGIN: Final = timedelta(seconds=5)
"""Allowed difference between the clocks of shards and NATS servers."""


class FindLost(Protocol):
    """Those of the events that the journal doesn't have."""

    async def __call__(self, events: Sequence[StreamEvent]) -> Sequence[StreamEvent]: ...


class Comparison(msgspec.Struct):
    """The result of a comparison."""

    compared: int = 0
    """Events."""
    lost: list[StreamEvent] = msgspec.field(default_factory=list)
    """Events that the journal doesn't have, in the stream's order."""


async def compare(tail: StreamTail, find_lost: FindLost) -> Comparison:
    """Compare backwards until everything earlier must be in the journal.

    Raises:
        StreamUnreadable: the stream did not answer.
    """
    result = Comparison()
    window = _AgreementWindow()
    sequence = await tail.last_sequence() + 1
    while sequence > 1 and not window.is_enough:
        events = await tail.before(sequence, limit=PAGE)
        lost = await find_lost(events) if events else ()
        result.compared += len(events)
        result.lost[:0] = lost
        window.add(events, {event.sequence for event in lost})
        sequence = max(sequence - PAGE, 1)
    return result


class _AgreementWindow:
    """Whether an event that the journal has is newer than the oldest one by more than any delay."""

    def __init__(self) -> None:
        self._newest: StreamEvent | None = None
        """The newest of the events that the journal has, since the last one that it lost."""
        self._oldest: StreamEvent | None = None
        self._delay = timedelta()

    @property
    def is_enough(self) -> bool:
        if self._newest is None or self._oldest is None:
            return False
        agreed = self._newest.stored_at - self._oldest.stored_at
        return agreed > self._delay + CLOCK_MARGIN

    def add(self, events: Sequence[StreamEvent], lost: set[int]) -> None:
        for event in reversed(events):
            self._delay = max(self._delay, event.stored_at - event.committed_at)
            self._oldest = event
            if event.sequence in lost:
                self._newest = None
            elif self._newest is None:
                self._newest = event
