"""Statistics of a projection and its auditor."""

import msgspec

from runtime.metrics.histogram import HistogramSnapshot


class AuditStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Results of the auditor. See `projections.auditor`."""

    mismatched_wallets: int
    """Mismatched wallets of the last complete round, or of this one if it found more."""
    standing_still: int
    """Wallets with a stalled projection, counted in the same way."""
    retaken: int
    """Projections of a lost history that were taken anew from the journal."""
    wallets: int
    rounds: int
    failures: int
    dead_letters: int
    outbox_age_s: float
    forked_wallets: int = 0
    """Wallets in quarantine: the database has lost some of their events."""


class ProjectionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Counters count from the actor's start."""

    group: int
    pid: int
    events: int
    batches: int
    gaps: int
    lost_histories: int
    failures: int
    dead_letters: int
    pending: int
    lag_s: float
    ready: bool
    fold_seconds: HistogramSnapshot
    audit: AuditStatistics | None = None
    """Only of the group that runs the auditor."""
