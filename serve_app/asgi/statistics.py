"""Statistics of an ingress replica."""

import msgspec


class ReplicaStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Counters count from the replica's start."""

    replica: str
    pid: int
    requests: int
    failed: int
    """Responses with 5xx."""
    overloaded: int
    """Responses with 429."""
    seconds: float
    """Total duration of all requests."""
    queued: int
    """Commands queued for a call to their shard."""
    pool: dict[str, int]
    """Postgres connections for reads, by state."""
