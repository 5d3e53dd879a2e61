"""Event ranges: joining adjacent ones, and splitting them into publish batches."""

from collections.abc import Iterable, Iterator

from actors.journal.ports import EventRange


def split(event_range: EventRange, size: int) -> Iterator[EventRange]:
    """``event_range`` in pieces of at most ``size`` events."""
    for first in range(event_range.first, event_range.last + 1, size):
        yield EventRange(event_range.wallet_id, first, min(first + size - 1, event_range.last))


def join_adjacent(rows: Iterable[EventRange], size: int) -> Iterator[list[EventRange]]:
    """``rows`` in order, adjacent ones of one wallet grouped.

    A group has at most ``size`` events, unless a single row has more.
    """
    joined: list[EventRange] = []
    for row in rows:
        if joined and not (
            (row.wallet_id, row.first) == (joined[-1].wallet_id, joined[-1].last + 1)
            and row.last - joined[0].first < size
        ):
            yield joined
            joined = []
        joined.append(row)
    if joined:
        yield joined


def pack(event_ranges: Iterable[EventRange], size: int) -> Iterator[list[EventRange]]:
    """``event_ranges`` in order, in lists of at most ``size`` events; a larger one is split."""
    packed: list[EventRange] = []
    room = size
    for event_range in event_ranges:
        for part in split(event_range, size):
            events = part.last - part.first + 1
            if packed and events > room:
                yield packed
                packed, room = [], size
            packed.append(part)
            room -= events
    if packed:
        yield packed
