"""The comparison of the stream's tail with the journal finds every lost event."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.history import comparison
from actors.history.comparison import compare
from actors.history.ports import StreamEvent
from tests.support.domain import NOW, WALLET_ID


def event(sequence: int, *, committed_s: float, stored_s: float) -> StreamEvent:
    return StreamEvent(
        sequence=sequence,
        stored_at=NOW + timedelta(seconds=stored_s),
        committed_at=NOW + timedelta(seconds=committed_s),
        wallet_id=WALLET_ID,
        version=sequence,
        hash=b"",
        previous_hash=b"",
        payload=b"",
    )


class Tail:
    """A stream in memory. ``reads`` counts pages."""

    def __init__(self, events: Sequence[StreamEvent]) -> None:
        self.events = events
        self.reads = 0

    async def last_sequence(self) -> int:
        return self.events[-1].sequence if self.events else 0

    async def before(self, sequence: int, *, limit: int) -> Sequence[StreamEvent]:
        self.reads += 1
        return [one for one in self.events if sequence - limit <= one.sequence < sequence]


async def lost_after(tail: Tail, moment: datetime) -> list[int]:
    """What the comparison finds if the journal has lost all commits after ``moment``."""

    async def find_lost(events: Sequence[StreamEvent]) -> Sequence[StreamEvent]:
        return [one for one in events if one.committed_at > moment]

    return [one.sequence for one in (await compare(tail, find_lost)).lost]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "PAGE", 10)


def steady(count: int, *, every_s: float = 0.5, delay_s: float = 0.01) -> list[StreamEvent]:
    return [
        event(n + 1, committed_s=n * every_s, stored_s=n * every_s + delay_s) for n in range(count)
    ]


async def test_an_empty_stream_has_lost_nothing() -> None:
    assert await lost_after(Tail([]), NOW) == []


async def test_a_journal_that_has_everything_is_compared_only_shortly() -> None:
    tail = Tail(steady(1_000))
    assert await lost_after(tail, NOW + timedelta(days=1)) == []
    assert tail.reads == 2


async def test_the_lost_suffix_is_found_whole() -> None:
    tail = Tail(steady(1_000))
    assert await lost_after(tail, NOW + timedelta(seconds=400)) == list(range(802, 1_001))


async def test_everything_is_found_if_the_journal_has_nothing() -> None:
    assert await lost_after(Tail(steady(25)), NOW - timedelta(days=1)) == list(range(1, 26))


async def test_a_late_relay_hides_no_lost_event() -> None:
    # The last event published on time is lost. After it a relay that is an hour late publishes
    # events from before the loss for ten minutes, and all of these are in the journal.
    early = steady(100)
    lost = event(101, committed_s=60, stored_s=60.01)
    late = [event(102 + n, committed_s=n / 10, stored_s=3_600 + n) for n in range(600)]
    assert await lost_after(Tail([*early, lost, *late]), NOW + timedelta(seconds=59.9)) == [101]


@given(
    commits=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 40)), min_size=1, max_size=80),
    kept_s=st.floats(-1, 101),
)
async def test_no_lost_event_is_missed_however_late_relays_are(
    commits: list[tuple[float, float]], kept_s: float
) -> None:
    published = sorted((committed + delay, committed) for committed, delay in commits)
    events = [
        event(number, committed_s=committed, stored_s=stored)
        for number, (stored, committed) in enumerate(published, 1)
    ]
    moment = NOW + timedelta(seconds=kept_s)
    expected = [one.sequence for one in events if one.committed_at > moment]
    assert await lost_after(Tail(events), moment) == expected
