"""Load of the running service between two snapshots: what `wallet status` shows, also as JSON."""

from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from actors.shard.statistics import ShardStatistics
from deploy.local.status_source import StatusSnapshot
from projections.statistics import AuditStatistics, ProjectionStatistics
from runtime.metrics.histogram import HistogramSnapshot
from serve_app.asgi.statistics import ReplicaStatistics

STAGES: Final = ("queue", "load", "decide", "commit", "reply")
"""Of a command in its shard."""

_HOT_WALLETS_MAX: Final = 5

StatisticsT = TypeVar("StatisticsT", bound=msgspec.Struct)


class ReplicaLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Load of an ingress replica."""

    replica: str
    requests_per_s: float
    mean_s: float | None
    """Mean duration of the requests in between; None: there were none."""
    failed_total: int
    """Responses with 5xx since the replica started."""
    overloaded_total: int
    """Responses with 429 since the replica started."""
    queued: int
    pool_busy: int
    pool_max: int


class ShardLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Load of a shard."""

    shard: int
    database_up: bool
    commands_per_s: float
    commands_per_batch: float | None
    mailbox: int
    wallets: int
    outbox_events: int
    outbox_age_s: float
    stages_s: dict[str, float | None]
    """Mean time that a command spends in each stage; None: there was no command."""
    conflicts_total: int


class ProjectionLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Load of a projection."""

    projection: int
    connected: bool
    events_per_s: float
    lag_events: int
    lag_s: float
    gaps_total: int
    dead_letters: int


class HotWalletLoad(msgspec.Struct, frozen=True, kw_only=True):
    """A wallet with many commands. ``share``: of its shard's commands, 0 to 1."""

    wallet_id: str
    commands_per_s: float
    share: float
    shard: int


class ServiceLoad(msgspec.Struct, frozen=True, kw_only=True):
    """Load of the service. Processes that don't respond are missing."""

    replicas: list[ReplicaLoad]
    shards: list[ShardLoad]
    projections: list[ProjectionLoad]
    hot_wallets: list[HotWalletLoad]
    """At most five, the hottest first."""
    audit: AuditStatistics | None
    """None: the auditor does not respond."""


def load_between(before: StatusSnapshot, now: StatusSnapshot) -> ServiceLoad:
    """The load at ``now``, with rates and means since ``before``."""
    elapsed_s = max(now.at_s - before.at_s, 1e-3)
    replicas = _pairs(before.replicas, now.replicas, "replica")
    shards = _pairs(before.shards, now.shards, "shard")
    projections = _pairs(before.projections, now.projections, "group")
    return ServiceLoad(
        replicas=[_replica(*pair, elapsed_s) for pair in replicas],
        shards=[_shard(*pair, elapsed_s) for pair in shards],
        projections=[_projection(*pair, elapsed_s) for pair in projections],
        hot_wallets=_hot_wallets(now.shards),
        audit=next((one.audit for one in now.projections if one.audit is not None), None),
    )


def _pairs(
    before: list[StatisticsT], now: list[StatisticsT], name: str
) -> list[tuple[StatisticsT, StatisticsT]]:
    """Each with its earlier statistics; with itself if it is new or was replaced."""
    known: Mapping[object, StatisticsT] = {_identity(one, name): one for one in before}
    return [
        (known.get(_identity(one, name), one), one)
        for one in sorted(now, key=lambda found: str(getattr(found, name)))
    ]


def _identity(one: msgspec.Struct, name: str) -> object:
    return getattr(one, name), one.pid  # type: ignore[attr-defined]  # all three types have a pid


def _replica(before: ReplicaStatistics, now: ReplicaStatistics, elapsed_s: float) -> ReplicaLoad:
    requests = now.requests - before.requests
    return ReplicaLoad(
        replica=now.replica,
        requests_per_s=requests / elapsed_s,
        mean_s=(now.seconds - before.seconds) / requests if requests else None,
        failed_total=now.failed,
        overloaded_total=now.overloaded,
        queued=now.queued,
        pool_busy=now.pool.get("busy", 0),
        pool_max=now.pool.get("max", 0),
    )


def _shard(before: ShardStatistics, now: ShardStatistics, elapsed_s: float) -> ShardLoad:
    return ShardLoad(
        shard=now.shard,
        database_up=now.journal_ready,
        commands_per_s=(now.commands - before.commands) / elapsed_s,
        commands_per_batch=_mean_between(before, now, "batch_commands"),
        mailbox=now.mailbox_items,
        wallets=now.wallets_active,
        outbox_events=now.outbox_events,
        outbox_age_s=now.outbox_age_s,
        stages_s={stage: _mean_between(before, now, f"{stage}_seconds") for stage in STAGES},
        conflicts_total=now.conflicts,
    )


def _projection(
    before: ProjectionStatistics, now: ProjectionStatistics, elapsed_s: float
) -> ProjectionLoad:
    return ProjectionLoad(
        projection=now.group,
        connected=now.ready,
        events_per_s=(now.events - before.events) / elapsed_s,
        lag_events=now.pending,
        lag_s=now.lag_s,
        gaps_total=now.gaps,
        dead_letters=now.dead_letters,
    )


def _hot_wallets(shards: list[ShardStatistics]) -> list[HotWalletLoad]:
    hot = [
        HotWalletLoad(
            wallet_id=wallet.wallet_id,
            commands_per_s=wallet.commands_per_s,
            share=wallet.share,
            shard=one.shard,
        )
        for one in shards
        for wallet in one.hot_wallets
    ]
    return sorted(hot, key=lambda found: -found.commands_per_s)[:_HOT_WALLETS_MAX]


def _mean_between(before: ShardStatistics, now: ShardStatistics, name: str) -> float | None:
    """The mean of the observations in between; None if there were none."""
    then: HistogramSnapshot = before.distributions[name]
    found: HistogramSnapshot = now.distributions[name]
    count = found.count - then.count
    return (found.total - then.total) / count if count else None
