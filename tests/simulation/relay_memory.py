"""A relay that forgets events which the journal has lost.

The product's relay doesn't do this yet. It identifies outbox rows by wallet and first version, and
takes rows of the new history for those that it remembers: it skips them as tracked, and deletes
them once the lost events are on the stream's disk. So new events come out of order or never. A
range to be read that the journal has lost stops the relay until its shard's next session. Remove
this once the relay knows rows by their hash.
"""

from collections.abc import Iterable

from actors.journal.memory_database import MemoryDatabase
from actors.journal.ports import EventRange
from actors.outbox.relay import OutboxRelay
from tests.simulation.lost_commits import LostCommits, identity_of
from wallet.events import RecordedEvent


class ForgetfulRelay(OutboxRelay):
    """Call `watch` first, and `forget` at each failover."""

    def watch(self, database: MemoryDatabase) -> None:
        self._database = database

    def add(self, event_range: EventRange, recorded: list[RecordedEvent]) -> None:
        """Queue events, unless they were lost before the shard got the response."""
        written = self._database.read_events(event_range)[-1:]
        if [identity_of(one) for one in written] == [identity_of(recorded[-1])]:
            super().add(event_range, recorded)

    def add_from_journal(self, event_ranges: Iterable[EventRange]) -> None:
        """Queue ranges, unless their rows were lost since they were read."""
        outbox = self._database.outbox
        super().add_from_journal(one for one in event_ranges if one in outbox.get(one[0], ()))

    def forget(self, lost: LostCommits) -> None:
        """Drop queued and retained ranges of lost events; a publish that has begun goes on."""
        queue = self._queue
        self._state.generation += 1
        for queued in [one for one in queue._ranges if _has(one.event_range, lost)]:
            queue._ranges.remove(queued)
            queue.backlog -= queued.event_range.last - queued.event_range.first + 1
            if queued.recorded is not None:
                queue._events_in_memory -= len(queued.recorded)
            queue.untrack([queued.event_range])
        for retained in self._retention._retained:
            ranges = [one for one in retained.event_ranges if _has(one, lost)]
            retained.event_ranges = [one for one in retained.event_ranges if one not in ranges]
            queue.untrack(ranges)


def _has(event_range: EventRange, lost: LostCommits) -> bool:
    versions = range(event_range.first, event_range.last + 1)
    return any((event_range.wallet_id, version) in lost.by_version for version in versions)
