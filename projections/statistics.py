"""What a projection has done and how it stands."""

import msgspec


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
