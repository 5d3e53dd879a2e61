"""What a projection has done and how it stands."""

import msgspec

from runtime.metrics.histogram import HistogramSnapshot


class AuditStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What an auditor has found. See `projections.auditor`."""

    mismatched_wallets: int
    """Wallets found contradicting in the last whole round, or in this one if there are more."""
    standing_still: int
    """Wallets whose projection lacks an event for too long, counted in the same way."""
    wallets: int
    rounds: int
    failures: int
    dead_letters: int
    outbox_age_s: float


class ProjectionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Counters grow from the actor's start."""

    group: int
    pid: int
    events: int
    batches: int
    gaps: int
    failures: int
    dead_letters: int
    pending: int
    lag_s: float
    ready: bool
    fold_seconds: HistogramSnapshot
    audit: AuditStatistics | None = None
    """Of the group that audits."""
