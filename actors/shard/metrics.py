"""A shard's statistics as metrics of the catalogue."""

from collections.abc import Iterator
from typing import Final

from actors.shard.heavy_hitters import OTHER, TOP_K
from actors.shard.statistics import ShardStatistics
from runtime.metrics.exporter import Sample

_COUNTERS: Final = (
    "batches",
    "commands",
    "events",
    "replays",
    "conflicts",
    "outcomes_unknown",
    "overloaded",
    "activations",
    "published",
    "publish_failures",
    "expired",
)

_GAUGES: Final = {
    "mailbox_items": "mailbox_items",
    "wallets_active": "wallets_active",
    "outbox_events": "outbox_events",
    "outbox_age_s": "outbox_age_seconds",
    "journal_ready": "journal_ready",
    "stream_ready": "stream_ready",
    "stream_refilling": "stream_refilling",
}
"""Field → metric name without the prefix."""


def samples(statistics: ShardStatistics) -> Iterator[Sample]:
    """The metrics of one snapshot."""
    labels = {"shard": str(statistics.shard)}
    for field in _COUNTERS:
        yield Sample(f"wallet_shard_{field}_total", getattr(statistics, field), labels)
    for field, name in _GAUGES.items():
        yield Sample(f"wallet_shard_{name}", float(getattr(statistics, field)), labels)
    for name, distribution in statistics.distributions.items():
        yield Sample(f"wallet_shard_{name}", distribution, labels)
    for chore, count in statistics.chore_failures.items():
        yield Sample("wallet_shard_chore_failures_total", count, {**labels, "chore": chore})
    for loss, count in statistics.stream_fills.items():
        yield Sample("wallet_shard_stream_fills_total", count, {**labels, "loss": loss})
    for code, count in statistics.refusals.items():
        yield Sample("wallet_shard_refusals_total", count, {**labels, "code": code})
    yield from _hot_wallets(statistics, labels)


def _hot_wallets(statistics: ShardStatistics, labels: dict[str, str]) -> Iterator[Sample]:
    shares = [wallet.share for wallet in statistics.hot_wallets]
    shares += [0.0] * (TOP_K - len(shares))
    for rank, share in enumerate(shares, start=1):
        yield Sample("wallet_shard_hot_wallet_share", share, {**labels, "rank": str(rank)})
    for wallet_id, count in {OTHER: 0, **statistics.hot_commands}.items():
        hot_labels = {**labels, "wallet_id": wallet_id}
        yield Sample("wallet_shard_hot_wallet_commands_total", count, hot_labels)
