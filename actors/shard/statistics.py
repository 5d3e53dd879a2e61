"""Statistics of a shard: read by status and metrics, written by one task."""

import msgspec

from actors.shard.heavy_hitters import HotWallet
from runtime.metrics.histogram import HistogramSnapshot


class ShardStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Counters grow from the actor's start."""

    shard: int
    pid: int
    mailbox_items: int
    wallets_active: int
    activations: int
    batches: int
    commands: int
    events: int
    replays: int
    refusals: dict[str, int]
    conflicts: int
    outcomes_unknown: int
    overloaded: int
    expired: int
    """Transfers that the shard settled by itself because they had expired."""
    commands_per_s: float
    """In the last complete window of `actors.shard.heavy_hitters`."""
    hot_wallets: list[HotWallet]
    hot_commands: dict[str, int]
    distributions: dict[str, HistogramSnapshot]
    """By metric name without the prefix."""
    outbox_events: int
    outbox_age_s: float
    published: int
    publish_failures: int
    chore_failures: dict[str, int]
    """By background task, including those that never failed."""
    journal_ready: bool
    stream_ready: bool
    stream_refilling: bool
    """The stream lacks events of the journal; new ones wait until it is filled again."""
    stream_fills: dict[str, int]
    """Fills of the stream that this shard finished, by what it had lost."""
    batch_commands_max_seen: int
