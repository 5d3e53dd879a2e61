"""Event ranges: merged and split without loss, in order."""

import pytest

from actors.journal.ports import EventRange
from actors.outbox.ranges import join_adjacent, pack, split
from tests.support.domain import OTHER_WALLET_ID, WALLET_ID


def event_range(first: int, last: int) -> EventRange:
    return EventRange(WALLET_ID, first, last)


@pytest.mark.parametrize(
    ("size", "pieces"),
    [
        (1, [event_range(4, 4), event_range(5, 5), event_range(6, 6)]),
        (2, [event_range(4, 5), event_range(6, 6)]),
        (3, [event_range(4, 6)]),
        (9, [event_range(4, 6)]),
    ],
)
def test_a_range_is_split_into_pieces_of_bounded_size(size: int, pieces: list[EventRange]) -> None:
    assert list(split(event_range(4, 6), size)) == pieces


def test_adjacent_rows_of_one_wallet_are_joined() -> None:
    rows = [
        event_range(1, 1),
        event_range(2, 4),
        EventRange(OTHER_WALLET_ID, 5, 5),
        event_range(5, 5),
        event_range(7, 7),
    ]
    assert list(join_adjacent(rows, 10)) == [rows[0:2], [rows[2]], [rows[3]], [rows[4]]]


def test_joined_rows_have_no_more_events_than_allowed() -> None:
    rows = [
        event_range(1, 2),
        event_range(3, 4),
        event_range(5, 5),
        event_range(6, 20),
        event_range(21, 21),
    ]
    assert list(join_adjacent(rows, 4)) == [rows[0:2], [rows[2]], [rows[3]], [rows[4]]]
    assert list(join_adjacent([], 4)) == []


def test_packed_ranges_keep_their_order_and_split_only_what_is_too_large() -> None:
    ranges = [event_range(1, 2), EventRange(OTHER_WALLET_ID, 1, 2), event_range(3, 8)]
    assert list(pack(ranges, 3)) == [
        [event_range(1, 2)],
        [EventRange(OTHER_WALLET_ID, 1, 2)],
        [event_range(3, 5)],
        [event_range(6, 8)],
    ]
    assert list(pack(ranges, 4)) == [
        [event_range(1, 2), EventRange(OTHER_WALLET_ID, 1, 2)],
        [event_range(3, 6)],
        [event_range(7, 8)],
    ]
    assert list(pack([], 3)) == []
