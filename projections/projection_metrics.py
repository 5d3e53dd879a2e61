"""A projection's statistics as metrics (`runtime.metrics.catalogue`)."""

from collections.abc import Iterator
from typing import Final

from projections.statistics import AuditStatistics, ProjectionStatistics
from runtime.metrics.exporter import Sample

_COUNTERS: Final = (
    "events",
    "batches",
    "gaps",
    "lost_histories",
    "failures",
    "dead_letters",
)


def samples(statistics: ProjectionStatistics) -> Iterator[Sample]:
    """The metrics of one snapshot."""
    labels = {"group": str(statistics.group)}
    for field in _COUNTERS:
        yield Sample(f"wallet_projection_{field}_total", getattr(statistics, field), labels)
    yield Sample("wallet_projection_lag_events", statistics.pending, labels)
    yield Sample("wallet_projection_lag_seconds", statistics.lag_s, labels)
    yield Sample("wallet_projection_ready", float(statistics.ready), labels)
    yield Sample("wallet_projection_fold_seconds", statistics.fold_seconds, labels)
    if statistics.audit is not None:
        yield from _audit(statistics.audit)


def _audit(audit: AuditStatistics) -> Iterator[Sample]:
    yield Sample("wallet_audit_drift", audit.mismatched_wallets, {})
    yield Sample("wallet_audit_standing_still", audit.standing_still, {})
    yield Sample("wallet_audit_retaken_total", audit.retaken, {})
    yield Sample("wallet_audit_wallets_total", audit.wallets, {})
    yield Sample("wallet_audit_rounds_total", audit.rounds, {})
    yield Sample("wallet_audit_failures_total", audit.failures, {})
    yield Sample("wallet_audit_dead_letters", audit.dead_letters, {})
    yield Sample("wallet_audit_forked_wallets", audit.forked_wallets, {})
    yield Sample("wallet_audit_outbox_age_seconds", audit.outbox_age_s, {})
