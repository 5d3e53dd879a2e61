"""What a shard measures of its batches. Noted once a batch, after everybody has been answered."""

from collections import Counter
from typing import NamedTuple

from actors.shard.heavy_hitters import HotWalletTracker
from actors.shard.mailbox import QueuedRequest
from runtime.metrics.histogram import COMMANDS_BUCKETS, Histogram, HistogramSnapshot


class BatchTimes(NamedTuple):
    """When a batch got where: loop time for the end of the queue, ``perf_counter`` from there on
    (a loop may count milliseconds, and stand still while it decides)."""

    dequeued_loop_time: float
    dequeued: float
    loaded: float
    decided: float
    committed: float
    answered: float


class ShardTimings:
    """Distributions over requests: each waits through all stages of the batch that it is in."""

    def __init__(self) -> None:
        self._queue = Histogram()
        self._load = Histogram()
        self._decide = Histogram()
        self._commit = Histogram()
        self._reply = Histogram()
        self._batch_commands = Histogram(COMMANDS_BUCKETS)
        self.hot = HotWalletTracker()

    def record(self, entries: list[QueuedRequest], times: BatchTimes) -> None:
        """A batch that has been answered."""
        count, commands = len(entries), 0
        for entry in entries:
            submission = entry.submission
            size = len(submission.items)
            commands += size
            self.hot.add(submission.wallet_id, size)
        # What came in one call has queued at one moment: a look-up a call, not a request.
        for queued_at, together in Counter(entry.queued_at for entry in entries).items():
            self._queue.observe(times.dequeued_loop_time - queued_at, together)
        self._load.observe(times.loaded - times.dequeued, count)
        self._decide.observe(times.decided - times.loaded, count)
        self._commit.observe(times.committed - times.decided, count)
        self._reply.observe(times.answered - times.committed, count)
        self._batch_commands.observe(commands)

    def snapshots(self) -> dict[str, HistogramSnapshot]:
        """By the name that each has in the catalogue, less its prefix."""
        return {
            "queue_seconds": self._queue.snapshot(),
            "load_seconds": self._load.snapshot(),
            "decide_seconds": self._decide.snapshot(),
            "commit_seconds": self._commit.snapshot(),
            "reply_seconds": self._reply.snapshot(),
            "batch_commands": self._batch_commands.snapshot(),
        }
