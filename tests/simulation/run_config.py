"""The configuration of a run, derived from its seed: sizes, bounds, latencies, faults."""

from random import Random
from typing import Final

import msgspec

from actors.dispatch.dispatcher import DispatcherLimits
from actors.outbox.relay import RelayLimits
from actors.shard.process import limits_from
from actors.shard.shard import ShardLimits
from runtime.settings import Settings

_DEFAULTS = Settings.model_construct()

_CONTROL_SHARE: Final = 0.25
"""Share of the seeds whose clients also control wallets."""

_EXPIRY_SHARE: Final = 0.25
"""Share of the seeds whose clients hold money for a time."""

_PARTS_SHARE: Final = 0.25
"""Share of the seeds whose clients complete parts of holds."""

_REFUNDS_SHARE: Final = 0.25
"""Share of the seeds whose clients refund transfers."""

_LOST_COMMITS_SHARE: Final = 0.125
"""Share of the seeds whose database loses commits."""


class RunConfig(msgspec.Struct, kw_only=True):
    """One run. Bounds are small, so that conditions rare in production are common here."""

    seed: int
    clients: int
    operations: int
    """Intents per client."""
    wallets: int
    think_s: float
    """Mean time between a client's intents."""
    latency_s: float
    """Usual latency of a message between two processes."""
    commit_s: float
    """Usual one-way latency to Postgres or NATS."""
    client_timeout_s: float
    request_timeout_s: float
    statement_timeout_s: float
    duplicate_window_s: float
    shards: int
    groups: int
    partitions: int = 4
    idempotent_share: float
    """Share of a client's intents that have an idempotency key."""
    debit_share: float
    """Share of debits among a client's transfers: a low share causes many refusals."""
    deliveries_suffer: bool
    """Only faults that separate a command's deliveries from each other."""
    faults: int
    """Number of faults that the nemesis injects."""
    fault_gap_s: float
    fault_s: float
    """Usual duration of faults, restarts and pauses."""
    stream_losses: int
    """Additional deletions of the stream, repeated during its backfill."""
    store_losses: int
    """Rollbacks of NATS's store and purges of the stream."""
    failovers: int = 0
    """To a database that lacks the last commits."""
    control_share: float = 0.0
    """Of a client's requests: changes of what a wallet may do."""
    expiring_share: float = 0.0
    """Of a client's pending transfers."""
    part_share: float = 0.0
    """Of a client's completions."""
    refund_share: float = 0.0
    """Of a client's operations."""
    shuffle_within: bool
    shard_limits: ShardLimits
    relay_limits: RelayLimits
    projection_batch_max: int
    ack_wait_s: float

    def dispatcher_limits(self, shards: int) -> DispatcherLimits:
        return DispatcherLimits(
            shard_count=shards,
            ingress_queue_max=50,
            ingress_wallet_queue_max=40,
            shard_calls_in_flight_max=2,
            call_commands_max=10,
            call_wallet_commands_max=2,
            shard_unreachable_timeout_s=4.0,
        )


def config_for_seed(seed: int) -> RunConfig:
    """The configuration for ``seed``."""
    random = Random(f"deliveries {seed}")
    plan = _any_plan(seed)
    if random.random() < 0.35:
        plan = _with_parted_deliveries(plan, random)
    plan = _with_lost_commits(plan, Random(f"lost commits {seed}"))
    plan = _with_control(plan, Random(f"control {seed}"))
    plan = _with_expiry(plan, Random(f"expiry {seed}"))
    plan = _with_parts(plan, Random(f"parts {seed}"))
    return _with_refunds(plan, Random(f"refunds {seed}"))


def _with_refunds(plan: RunConfig, random: Random) -> RunConfig:
    """``plan``, in a part of the seeds with refunds of the same few transfers."""
    if random.random() >= _REFUNDS_SHARE:
        return plan
    return msgspec.structs.replace(plan, refund_share=random.choice((0.2, 0.5)))


def _with_parts(plan: RunConfig, random: Random) -> RunConfig:
    """``plan``, in a part of the seeds with holds of which only a part is completed."""
    if random.random() >= _PARTS_SHARE:
        return plan
    return msgspec.structs.replace(plan, part_share=random.choice((0.3, 0.8)))


def _with_expiry(plan: RunConfig, random: Random) -> RunConfig:
    """``plan``, in a part of the seeds with holds that expire while clients and faults go on."""
    if random.random() >= _EXPIRY_SHARE:
        return plan
    return msgspec.structs.replace(
        plan,
        expiring_share=random.choice((0.3, 0.6, 1.0)),
        think_s=random.choice((0.1, 0.4, 0.8)),
        fault_gap_s=max(plan.fault_gap_s, random.choice((0.05, 0.3, 0.8))),
    )


def _with_control(plan: RunConfig, random: Random) -> RunConfig:
    """``plan``, in a part of the seeds with wallets that are frozen, changed and closed."""
    if random.random() >= _CONTROL_SHARE:
        return plan
    return msgspec.structs.replace(plan, control_share=random.choice((0.1, 0.3, 0.5)))


def _with_lost_commits(plan: RunConfig, random: Random) -> RunConfig:
    """``plan``, in a part of the seeds with failovers that lose commits."""
    if random.random() >= _LOST_COMMITS_SHARE:
        return plan
    # Long enough that clients go on after the last failover.
    return msgspec.structs.replace(
        plan,
        failovers=random.choice((1, 2, 3, 6)),
        operations=2 * plan.operations,
        wallets=random.choice((1, 1, 2, plan.wallets)),
    )


def _with_parted_deliveries(plan: RunConfig, random: Random) -> RunConfig:
    """``plan`` changed so that a command's deliveries often overlap: all clients credit one wallet
    without a key, client time-outs are long, and faults lose responses."""
    return msgspec.structs.replace(
        plan,
        clients=8,
        operations=14,
        wallets=1,
        idempotent_share=0.1,
        debit_share=random.choice((0.25, 0.4)),
        shards=random.randint(2, 3),
        client_timeout_s=12.0,
        request_timeout_s=random.choice((3.0, 10.0)),
        statement_timeout_s=random.choice((0.3, 1.0)),
        think_s=0.03,
        faults=8,
        fault_gap_s=0.06,
        fault_s=random.choice((0.05, 0.2)),
        deliveries_suffer=True,
    )


def _any_plan(seed: int) -> RunConfig:
    random = Random(f"plan {seed}")
    choose = random.choice
    operations = random.randint(4, 14)
    faults = choose((0, 3, 6, 10))
    # Spread the faults over the time under load.
    length_s = choose((0.1, 1.0, 10.0))
    latency_s = choose((0.0005, 0.005, 0.02))
    return RunConfig(
        seed=seed,
        clients=random.randint(2, 5),
        operations=operations,
        wallets=random.randint(1, 3),
        think_s=length_s / operations,
        latency_s=latency_s,
        commit_s=choose((0.001, 0.01, 0.05)),
        client_timeout_s=choose((0.2, 1.0, 12.0)),
        request_timeout_s=choose((0.5, 3.0, 10.0)),
        statement_timeout_s=choose((0.3, 1.0, 5.0)),
        duplicate_window_s=choose((0.5, 5.0, 120.0)),
        shards=random.randint(1, 3),
        groups=random.randint(1, 2),
        idempotent_share=choose((0.1, 0.7, 0.7)),
        debit_share=choose((0.25, 0.45)),
        deliveries_suffer=False,
        faults=faults,
        fault_gap_s=length_s / max(faults, 1) / 2,
        fault_s=length_s / max(faults, 1) * choose((0.3, 1.0, 3.0)),
        shuffle_within=random.random() < 0.25,
        shard_limits=limits_from(
            ShardLimits,
            _DEFAULTS,
            mailbox_commands_max=choose((4, 1_000)),
            mailbox_wallet_commands_max=choose((3, 1_000)),
            batch_commands_max=choose((1, 5, 100)),
            batch_wallet_commands_max=choose((1, 3, 100)),
            conflict_retries_max=choose((1, 8)),
            wallets_cached_max=choose((1, 2, 100)),
            transfers_cached_max=choose((0, 2, 100)),
            outbox_events_max=choose((5, 10_000)),
            database_stall_timeout_s=choose((0.2, 0.75, 5.0)),
        ),
        relay_limits=limits_from(
            RelayLimits,
            _DEFAULTS,
            publish_batch_max=choose((1, 3, 100)),
            outbox_memory_events_max=choose((0, 3, 1_000)),
            outbox_sweep_interval_s=choose((0.1, 1.0)),
            outbox_retention_s=choose((0.0, 0.3, 3.0)),
            partitions=4,
        ),
        projection_batch_max=choose((1, 5, 100)),
        ack_wait_s=choose((0.5, 30.0)),
        # Drawn last, so that the histories of seeds without stream losses do not change.
        stream_losses=choose((0,) * 15 + (3,)),
        store_losses=choose((0,) * 7 + (3,)),
    )
