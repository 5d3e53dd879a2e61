"""Counters of a shard since its process started."""

from collections import Counter
from typing import Final

from actors.shard.batch_decision import BatchDecider
from wallet.commands import CommandRequest

_RATE_WEIGHT: Final = 0.1


class ShardCounts:
    """Counters of batches and their contents."""

    __slots__ = ("batch_commands_max_seen", "counts", "refusals", "s_per_command")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.batch_commands_max_seen = 0
        self.s_per_command = 0.0
        """Moving average: how fast the mailbox drains."""

    def record(self, batch: BatchDecider, requests: list[CommandRequest], *, took_s: float) -> None:
        commands = sum(len(request.items) for request in requests)
        self.s_per_command += _RATE_WEIGHT * (took_s / commands - self.s_per_command)
        self.counts["batches"] += 1
        self.counts["commands"] += commands
        self.counts["events"] += len(batch.write.events)
        self.counts["replays"] += batch.replays
        self.refusals.update(str(code) for code in batch.refusals)
        self.batch_commands_max_seen = max(self.batch_commands_max_seen, commands)
