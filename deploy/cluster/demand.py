"""What a deployment needs, in numbers. `docs/operating/sizing.md` explains the formulas."""

from collections.abc import Collection
from typing import Final

import msgspec

from deploy.cluster.state import Kind
from serve_app.applications import API, PROJECTIONS

SHARD_CPUS_MIN: Final = 0.01
"""CPUs that every actor reserves at least: see `serve_app.deployment`."""

SHARD_CONNECTIONS: Final = 4
"""Of a shard: its journal, the outbox, the outbox's background tasks, the write probe."""
PROJECTION_CONNECTIONS: Final = 2
"""Of a projection: its events, and the auditor."""
KEY_CONNECTIONS: Final = 2
"""Of a replica, if API keys are required: look-ups, and last-used times."""

SHARD_MEMORY_BYTES: Final = 130_000_000
REPLICA_MEMORY_BYTES: Final = 180_000_000
PROJECTION_MEMORY_BYTES: Final = 130_000_000
"""Of one process that has started, without its caches. Measured: see sizing.md."""


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of one deployment."""

    shards: int = 0
    shard_cpus: float = 0.0
    replicas: int = 0
    """The most that autoscaling may start."""
    replica_cpus: float = 0.0
    replicas_per_node_max: int | None = None
    """As configured; None: it follows from the numbers."""
    read_pool_max: int = 0
    keys: bool = False
    projections: int = 0

    def starting(self, applications: Collection[str]) -> "Demand":
        """What starts if only these are started anew: others keep their shards and projections."""
        return msgspec.structs.replace(
            self,
            shards=self.shards if API in applications else 0,
            projections=self.projections if PROJECTIONS in applications else 0,
        )

    @property
    def replica_connections(self) -> int:
        """Connections of all replicas to Postgres, at most."""
        return self.replicas * (self.read_pool_max + (KEY_CONNECTIONS if self.keys else 0))

    @property
    def shard_connections(self) -> int:
        return self.shards * SHARD_CONNECTIONS

    @property
    def projection_connections(self) -> int:
        return self.projections * PROJECTION_CONNECTIONS

    @property
    def connections(self) -> int:
        """Connections of everything to Postgres, at most."""
        return self.replica_connections + self.shard_connections + self.projection_connections

    def cpus_of(self, kind: Kind) -> float:
        """CPUs that one process of this kind reserves."""
        return {
            "shard": self.shard_cpus,
            "ingress": self.replica_cpus,
            "projection": SHARD_CPUS_MIN,
        }[kind]
