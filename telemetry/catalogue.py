"""Every metric of the service: what it is called, what it counts, what it is told apart by.

Prometheus sees each with ``ray_`` in front, because they arrive with Ray's own. A histogram is
three counters there: ``…_bucket_total`` (with ``le``), ``…_sum_total`` and ``…_count_total``.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """How a metric behaves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(NamedTuple):
    """A metric. ``labels``: the names of its labels, besides those that Ray adds."""

    kind: Kind
    description: str
    labels: tuple[str, ...] = ()


def _counter(description: str, *labels: str) -> Metric:
    return Metric(Kind.COUNTER, description, labels)


def _gauge(description: str, *labels: str) -> Metric:
    return Metric(Kind.GAUGE, description, labels)


def _histogram(description: str, *labels: str) -> Metric:
    return Metric(Kind.HISTOGRAM, description, labels)


_INGRESS: Final = {
    "wallet_http_requests_total": _counter(
        "Requests answered, by route and status.", "route", "status", "replica"
    ),
    "wallet_http_request_seconds": _histogram(
        "From a request's headers to its answer handed over.", "route", "replica"
    ),
    "wallet_http_problems_total": _counter(
        "Requests refused or failed, by the problem's code.", "code", "replica"
    ),
    "wallet_ingress_queued": _gauge(
        "Commands that wait in a replica for a call to their shard.", "shard", "replica"
    ),
    "wallet_read_pool_connections": _gauge(
        "Postgres connections for reads: busy, idle, and max (as many as there may be).",
        "state",
        "replica",
    ),
}

_SHARD: Final = {
    "wallet_shard_commands_total": _counter("Commands decided.", "shard"),
    "wallet_shard_batches_total": _counter("Batches decided, one transaction each.", "shard"),
    "wallet_shard_events_total": _counter("Events written to the journal.", "shard"),
    "wallet_shard_refusals_total": _counter("Commands refused by the rules.", "shard", "code"),
    "wallet_shard_replays_total": _counter("Answers given again under their key.", "shard"),
    "wallet_shard_conflicts_total": _counter(
        "Batches decided again because somebody else wrote first.", "shard"
    ),
    "wallet_shard_outcomes_unknown_total": _counter("Commits whose answer was lost.", "shard"),
    "wallet_shard_overloaded_total": _counter(
        "Submissions refused because a queue was full.", "shard"
    ),
    "wallet_shard_activations_total": _counter("Wallets loaded into memory.", "shard"),
    "wallet_shard_wallets_active": _gauge("Wallets in memory.", "shard"),
    "wallet_shard_mailbox_items": _gauge("Commands waiting in the mailbox.", "shard"),
    "wallet_shard_batch_commands": _histogram("Commands in a batch.", "shard"),
    "wallet_shard_queue_seconds": _histogram(
        "A request's wait in the mailbox, until a batch took it.", "shard"
    ),
    "wallet_shard_load_seconds": _histogram(
        "A request's wait for what its batch had to read; next to nothing when all is warm.",
        "shard",
    ),
    "wallet_shard_decide_seconds": _histogram(
        "A request's wait while its batch was decided.", "shard"
    ),
    "wallet_shard_commit_seconds": _histogram(
        "A request's wait for its batch's transaction.", "shard"
    ),
    "wallet_shard_reply_seconds": _histogram(
        "From the commit until the whole batch was answered.", "shard"
    ),
    "wallet_shard_hot_wallet_share": _gauge(
        "Share of the last seconds' commands that the hottest wallets took, by rank (1 to 5).",
        "shard",
        "rank",
    ),
    "wallet_shard_hot_wallet_commands_total": _counter(
        "Commands of wallets in the seconds in which they took a tenth of their shard's or more. "
        "At most 20 wallets are named in a process' life, the rest is `other`.",
        "shard",
        "wallet_id",
    ),
    "wallet_shard_journal_ready": _gauge(
        "1: writes go through: the last commit or probe was confirmed.", "shard"
    ),
    "wallet_shard_stream_ready": _gauge("1: JetStream answered last time.", "shard"),
    "wallet_shard_outbox_events": _gauge(
        "Events committed and not yet acknowledged by the stream.", "shard"
    ),
    "wallet_shard_outbox_age_seconds": _gauge("How long the oldest of them waits.", "shard"),
    "wallet_shard_published_total": _counter("Events acknowledged by the stream.", "shard"),
    "wallet_shard_publish_failures_total": _counter(
        "Publishes that were not acknowledged and tried again.", "shard"
    ),
    "wallet_shard_chore_failures_total": _counter(
        "Failures of what a shard does beside writing: `relay` publishes, `forget` deletes outbox "
        "rows, `sweep` looks for rows that others left, `watch` refuses what waits for a database "
        "that does not answer. Each is tried again.",
        "shard",
        "chore",
    ),
    "wallet_shard_publish_seconds": _histogram(
        "From an event's commit to the stream's acknowledgement.", "shard"
    ),
}

_PROJECTION: Final = {
    "wallet_projection_events_total": _counter("Events folded.", "group"),
    "wallet_projection_batches_total": _counter("Transactions that folded them.", "group"),
    "wallet_projection_gaps_total": _counter(
        "Wallets caught up from the journal because events were missing.", "group"
    ),
    "wallet_projection_failures_total": _counter("Interruptions by Postgres or NATS.", "group"),
    "wallet_projection_dead_letters_total": _counter(
        "Events put aside because they could not be folded.", "group"
    ),
    "wallet_projection_ready": _gauge("1: following the stream.", "group"),
    "wallet_projection_lag_events": _gauge(
        "Events on the stream that are not folded yet.", "group"
    ),
    "wallet_projection_lag_seconds": _gauge(
        "For how long there has been something on the stream that is not folded; 0 if there is "
        "nothing. While the stream can't be asked, the time since it last could.",
        "group",
    ),
    "wallet_projection_fold_seconds": _histogram(
        "From pulling a batch of events to its transaction's end.", "group"
    ),
}

_AUDIT: Final = {
    "wallet_audit_drift": _gauge(
        "Wallets whose balances, journal or projection contradict each other, in the last whole "
        "round. Anything but 0 is a bug, or a hand in the database."
    ),
    "wallet_audit_standing_still": _gauge(
        "Wallets whose projection lacks an event that is older than a minute, in the last whole "
        "round."
    ),
    "wallet_audit_wallets_total": _counter("Wallets compared."),
    "wallet_audit_rounds_total": _counter("Times that every wallet was compared."),
    "wallet_audit_failures_total": _counter("Looks that Postgres did not answer."),
    "wallet_audit_dead_letters": _gauge("Events that are put aside now."),
    "wallet_audit_outbox_age_seconds": _gauge(
        "Age of the oldest outbox row in the database, whether or not its shard lives."
    ),
}

CATALOGUE: Final[dict[str, Metric]] = {**_INGRESS, **_SHARD, **_PROJECTION, **_AUDIT}


def exported_names(name: str) -> list[str]:
    """The names under which Prometheus sees a metric."""
    if CATALOGUE[name].kind is Kind.HISTOGRAM:
        return [f"ray_{name}_{part}_total" for part in ("bucket", "sum", "count")]
    return [f"ray_{name}"]
