"""What a shard has done and how it stands: read by status and metrics, written by one task."""

import msgspec


class ShardStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Counters grow from the actor's start; seconds are totals."""

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
    queue_s: float
    decide_s: float
    commit_s: float
    outbox_events: int
    outbox_age_s: float
    published: int
    publish_failures: int
    journal_ready: bool
    stream_ready: bool
    largest_batch: int
