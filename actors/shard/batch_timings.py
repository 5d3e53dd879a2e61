"""Batch timings of a shard, recorded once per batch, after all replies."""

from collections import Counter
from typing import NamedTuple

from actors.shard.heavy_hitters import HotWalletTracker
from actors.shard.mailbox import QueuedRequest
from runtime.metrics.histogram import COMMANDS_BUCKETS, Histogram, HistogramSnapshot


class BatchTimes(NamedTuple):
    """When a batch reached each stage. ``dequeued_loop_time`` is loop time, the others are
    ``perf_counter``: the loop's clock may be coarse, and does not advance while deciding."""

    dequeued_loop_time: float
    dequeued: float
    loaded: float
    decided: float
    committed: float
    answered: float


class ShardTimings:
    """Histograms over requests: each waits through all stages of its batch."""

    def __init__(self) -> None:
        self._queue = Histogram()
        self._load = Histogram()
        self._decide = Histogram()
        self._commit = Histogram()
        self._reply = Histogram()
        self._batch_commands = Histogram(COMMANDS_BUCKETS)
        self.hot = HotWalletTracker()

    def record(self, queued_requests: list[QueuedRequest], times: BatchTimes) -> None:
        """Record a batch that has been answered."""
        count, commands = len(queued_requests), 0
        for queued in queued_requests:
            request = queued.request
            size = len(request.items)
            commands += size
            self.hot.add(request.wallet_id, size)
        # Requests of one call have the same queued_at: one histogram look-up per call.
        for queued_at, together in Counter(queued.queued_at for queued in queued_requests).items():
            self._queue.observe(times.dequeued_loop_time - queued_at, together)
        self._load.observe(times.loaded - times.dequeued, count)
        self._decide.observe(times.decided - times.loaded, count)
        self._commit.observe(times.committed - times.decided, count)
        self._reply.observe(times.answered - times.committed, count)
        self._batch_commands.observe(commands)

    def snapshots(self) -> dict[str, HistogramSnapshot]:
        """By metric name in the catalogue, without the prefix."""
        return {
            "queue_seconds": self._queue.snapshot(),
            "load_seconds": self._load.snapshot(),
            "decide_seconds": self._decide.snapshot(),
            "commit_seconds": self._commit.snapshot(),
            "reply_seconds": self._reply.snapshot(),
            "batch_commands": self._batch_commands.snapshot(),
        }
