"""What an ingress replica has answered and how it stands."""

import msgspec


class ReplicaStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot. Counters grow from the replica's start."""

    replica: str
    pid: int
    requests: int
    failed: int
    """Answered with 5xx."""
    overloaded: int
    """Answered with 429."""
    seconds: float
    """Spent answering, summed over requests."""
    queued: int
    """Commands that wait for a call to their shard."""
    pool: dict[str, int]
    """Postgres connections for reads, by state."""
