"""A shard's statistics as metrics. The table of them is in the README."""

from typing import Final

from actors.statistics import ShardStatistics
from telemetry.exporter import Sample

_COUNTERS: Final = {
    "batches": "Transactions decided.",
    "commands": "Commands decided.",
    "events": "Events written to the journal.",
    "replays": "Answers given again under their idempotency key.",
    "conflicts": "Batches decided again because somebody else wrote first.",
    "outcomes_unknown": "Commits whose answer was lost.",
    "overloaded": "Submissions refused because a queue was full.",
    "activations": "Wallets loaded into memory.",
    "published": "Events acknowledged by the stream.",
    "publish_failures": "Publishes that were not acknowledged and tried again.",
}

_GAUGES: Final = {
    "mailbox_items": "Commands waiting in the shard's mailbox.",
    "wallets_active": "Wallets in memory.",
    "outbox_events": "Events committed and not yet acknowledged by the stream.",
    "outbox_age_s": "Age of the oldest of them, in seconds.",
    "largest_batch": "Most commands in one transaction so far.",
}

_SECONDS: Final = {
    "queue_s": "Time that each batch's first command waited in the mailbox, summed.",
    "decide_s": "Time spent deciding, summed over batches.",
    "commit_s": "Time spent waiting for commits, summed over batches.",
}


def samples(statistics: ShardStatistics) -> list[Sample]:
    """The metrics of one snapshot."""
    tags = {"shard": str(statistics.shard)}
    found = [
        Sample("counter", f"wallet_shard_{name}_total", text, getattr(statistics, name), tags)
        for name, text in _COUNTERS.items()
    ]
    found += [
        Sample("gauge", f"wallet_shard_{name}", text, getattr(statistics, name), tags)
        for name, text in _GAUGES.items()
    ]
    found += [
        Sample(
            "counter",
            f"wallet_shard_{name.removesuffix('_s')}_seconds_total",
            text,
            getattr(statistics, name),
            tags,
        )
        for name, text in _SECONDS.items()
    ]
    found += [
        Sample("gauge", "wallet_shard_journal_ready", _JOURNAL, statistics.journal_ready, tags),
        Sample("gauge", "wallet_shard_stream_ready", _STREAM, statistics.stream_ready, tags),
    ]
    found += [
        Sample("counter", "wallet_shard_refusals_total", _REFUSALS, count, {**tags, "code": code})
        for code, count in statistics.refusals.items()
    ]
    return found


_JOURNAL: Final = "1: Postgres answered last time."
_STREAM: Final = "1: JetStream answered last time."
_REFUSALS: Final = "Commands refused by the rules, by code."
