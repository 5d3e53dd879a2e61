"""Ranges of a wallet's events: joining adjacent ones, and splitting them into publishes."""

from collections.abc import Iterable, Iterator

from actors.journal.ports import EventRange


def split(span: EventRange, size: int) -> Iterator[EventRange]:
    """``span`` in pieces of at most ``size`` events."""
    for first in range(span.first, span.last + 1, size):
        yield EventRange(span.wallet_id, first, min(first + size - 1, span.last))


def join_adjacent(rows: Iterable[EventRange], size: int) -> Iterator[list[EventRange]]:
    """``rows`` in order, those of one wallet that follow each other together.

    At most ``size`` events are together, except in a row that has more by itself.
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


def pack(spans: Iterable[EventRange], size: int) -> Iterator[list[EventRange]]:
    """``spans`` in order, in lists of at most ``size`` events; a larger one is split."""
    packed: list[EventRange] = []
    room = size
    for span in spans:
        for part in split(span, size):
            events = part.last - part.first + 1
            if packed and events > room:
                yield packed
                packed, room = [], size
            packed.append(part)
            room -= events
    if packed:
        yield packed
