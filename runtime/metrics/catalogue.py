"""All metrics of the service: name, description and labels.

Ray exports them, so their names in Prometheus have the prefix ``ray_``. A histogram is three
counters there: ``…_bucket_total`` (with ``le``), ``…_sum_total`` and ``…_count_total``.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class MetricKind(StrEnum):
    """Prometheus metric types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """A metric. ``labels``: label names, besides those that Ray adds."""

    kind: MetricKind
    description: str
    labels: tuple[str, ...] = ()


def _counter(description: str, *labels: str) -> Metric:
    return Metric(MetricKind.COUNTER, description, labels)


def _gauge(description: str, *labels: str) -> Metric:
    return Metric(MetricKind.GAUGE, description, labels)


def _histogram(description: str, *labels: str) -> Metric:
    return Metric(MetricKind.HISTOGRAM, description, labels)


_INGRESS: Final = {
    "wallet_http_requests_total": _counter(
        "Requests completed, by route and status.", "route", "status", "replica"
    ),
    "wallet_http_request_seconds": _histogram(
        "From a request's headers to the end of its response.", "route", "replica"
    ),
    "wallet_http_problems_total": _counter(
        "Requests rejected or failed, by problem code.", "code", "replica"
    ),
    "wallet_ingress_queued": _gauge(
        "Commands queued in a replica for a call to their shard, all shards together.", "replica"
    ),
    "wallet_read_pool_connections": _gauge(
        "Postgres connections for reads: busy, idle, and max (the size of the pool).",
        "state",
        "replica",
    ),
}

_SHARD: Final = {
    "wallet_shard_commands_total": _counter("Commands decided.", "shard"),
    "wallet_shard_batches_total": _counter("Batches decided, one transaction each.", "shard"),
    "wallet_shard_events_total": _counter("Events written to the journal.", "shard"),
    "wallet_shard_refusals_total": _counter("Commands refused by the rules.", "shard", "code"),
    "wallet_shard_replays_total": _counter(
        "Responses replayed under their idempotency key.", "shard"
    ),
    "wallet_shard_conflicts_total": _counter(
        "Version conflicts: batches decided again because another process wrote first.", "shard"
    ),
    "wallet_shard_outcomes_unknown_total": _counter("Commits with an unknown outcome.", "shard"),
    "wallet_shard_overloaded_total": _counter(
        "Requests rejected because a queue was full.", "shard"
    ),
    "wallet_shard_activations_total": _counter("Wallets loaded into memory.", "shard"),
    "wallet_shard_wallets_active": _gauge("Wallets in memory.", "shard"),
    "wallet_shard_mailbox_items": _gauge("Commands waiting in the mailbox.", "shard"),
    "wallet_shard_batch_commands": _histogram("Commands in a batch.", "shard"),
    "wallet_shard_queue_seconds": _histogram(
        "A request's wait in the mailbox until its batch began.", "shard"
    ),
    "wallet_shard_load_seconds": _histogram(
        "A request's wait for the reads of its batch; almost zero if everything is cached.",
        "shard",
    ),
    "wallet_shard_decide_seconds": _histogram(
        "A request's wait while its batch was decided.", "shard"
    ),
    "wallet_shard_commit_seconds": _histogram(
        "A request's wait for its batch's transaction.", "shard"
    ),
    "wallet_shard_reply_seconds": _histogram(
        "From the commit until the responses of the whole batch.", "shard"
    ),
    "wallet_shard_hot_wallet_share": _gauge(
        "Share of the last seconds' commands that the hottest wallets took, by rank (1 to 5).",
        "shard",
        "rank",
    ),
    "wallet_shard_hot_wallet_commands_total": _counter(
        "Commands of a wallet in the seconds in which it took at least a tenth of its shard's. "
        "At most 20 wallets per process get a label, the rest is `other`.",
        "shard",
        "wallet_id",
    ),
    "wallet_shard_journal_ready": _gauge(
        "1: writes succeed: the last commit or probe was confirmed.", "shard"
    ),
    "wallet_shard_stream_ready": _gauge("1: the last request to JetStream succeeded.", "shard"),
    "wallet_shard_stream_refilling": _gauge(
        "1: the stream lacks events of the journal; new ones wait until it is filled again.",
        "shard",
    ),
    "wallet_shard_stream_fills_total": _counter(
        "Fills of the stream from the journal, by what it had lost: `new` (it was created), "
        "`unknown` (the database does not know it), `rolledback` (its newest messages), `purged` "
        "(its oldest ones), `interrupted` (a fill that another process had begun).",
        "shard",
        "loss",
    ),
    "wallet_shard_expired_total": _counter(
        "Transfers that a shard settled by itself because their time had come. One that a command "
        "met first is not among them.",
        "shard",
    ),
    "wallet_shard_outbox_events": _gauge(
        "Events committed and not yet acknowledged by the stream.", "shard"
    ),
    "wallet_shard_outbox_age_seconds": _gauge("Age of the oldest of them.", "shard"),
    "wallet_shard_published_total": _counter("Events acknowledged by the stream.", "shard"),
    "wallet_shard_publish_failures_total": _counter(
        "Publishes that were not acknowledged and are retried.", "shard"
    ),
    "wallet_shard_chore_failures_total": _counter(
        "Failures of a shard's background tasks: `relay` publishes, `forget` prunes outbox rows, "
        "`sweep` finds rows that other shards left, `watch` rejects what waits for a stalled "
        "database, `expiry` settles transfers that have expired. Each is restarted.",
        "shard",
        "chore",
    ),
    "wallet_shard_publish_seconds": _histogram(
        "From an event's commit to the stream's acknowledgement.", "shard"
    ),
}

_PROJECTION: Final = {
    "wallet_projection_events_total": _counter("Events applied.", "group"),
    "wallet_projection_batches_total": _counter("Transactions that applied them.", "group"),
    "wallet_projection_gaps_total": _counter(
        "Gaps: wallets caught up from the journal because events were missing.", "group"
    ),
    "wallet_projection_lost_histories_total": _counter(
        "Wallets with events that the journal does not have, once per batch: the database lost "
        "commits. They are brought to the journal's state.",
        "group",
    ),
    "wallet_projection_failures_total": _counter("Interruptions by Postgres or NATS.", "group"),
    "wallet_projection_dead_letters_total": _counter(
        "Events dead-lettered because they could not be applied.", "group"
    ),
    "wallet_projection_ready": _gauge("1: following the stream.", "group"),
    "wallet_projection_lag_events": _gauge(
        "Events on the stream that are not applied yet.", "group"
    ),
    "wallet_projection_lag_seconds": _gauge(
        "How long there have been events on the stream that are not applied; 0 if there are "
        "none. While the stream is unreachable, the time since it was last reachable.",
        "group",
    ),
    "wallet_projection_fold_seconds": _histogram(
        "From pulling a batch of events to its transaction's end.", "group"
    ),
}

_AUDIT: Final = {
    "wallet_audit_drift": _gauge(
        "Mismatched wallets: balances, journal and projection differ, in the last complete round. "
        "Anything but 0 is a bug, or a manual change in the database."
    ),
    "wallet_audit_standing_still": _gauge(
        "Wallets whose projection lacks an event that is older than a minute, in the last complete "
        "round."
    ),
    "wallet_audit_retaken_total": _counter(
        "Projections of a history that the journal does not have, taken anew from the journal."
    ),
    "wallet_audit_wallets_total": _counter("Wallets compared."),
    "wallet_audit_rounds_total": _counter("Complete rounds over all wallets."),
    "wallet_audit_failures_total": _counter("Audit queries that failed."),
    "wallet_audit_dead_letters": _gauge("Dead letters now."),
    "wallet_audit_forked_wallets": _gauge(
        "Wallets in quarantine: the database has lost some of their events."
    ),
    "wallet_audit_outbox_age_seconds": _gauge(
        "Age of the oldest outbox row in the database, whether or not its shard is alive."
    ),
}

CATALOGUE: Final[dict[str, Metric]] = {**_INGRESS, **_SHARD, **_PROJECTION, **_AUDIT}


def exported_names(name: str) -> list[str]:
    """Names of a metric in Prometheus."""
    if CATALOGUE[name].kind is MetricKind.HISTOGRAM:
        return [f"ray_{name}_{part}_total" for part in ("bucket", "sum", "count")]
    return [f"ray_{name}"]
