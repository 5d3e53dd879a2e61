"""Request metrics: counts by route and status, durations, and problem codes."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

import asyncpg

from runtime.metrics.exporter import Sample
from runtime.metrics.histogram import Histogram
from serve_app.asgi.statistics import ReplicaStatistics
from serve_app.http.problems import problem_counts

SHARD_LABELS_MAX: Final = 16
"""Shards with a label of their own in a replica's metrics. The rest is `OTHER`."""

OTHER: Final = "other"

requests: Final[Counter[tuple[str, int]]] = Counter()
"""Completed requests of this process, by route name and status."""

seconds: Final[defaultdict[str, Histogram]] = defaultdict(Histogram)
"""From a request's headers to the end of its response, by route name."""


def preregister(route: str) -> None:
    """Start ``route``'s counter of status 500 at zero, so that its series exists."""
    requests[route, 500] += 0


def samples(replica: str, queued: list[int], pool: asyncpg.Pool | None) -> Iterator[Sample]:
    """The metrics of this process. ``queued``: commands queued for a call, by shard."""
    replica_label = {"replica": replica}
    for (route, status), count in requests.items():
        labels = {"route": route, "status": str(status), **replica_label}
        yield Sample("wallet_http_requests_total", count, labels)
    for route, histogram in seconds.items():
        labels = {"route": route, **replica_label}
        yield Sample("wallet_http_request_seconds", histogram.snapshot(), labels)
    for code, count in problem_counts.items():
        yield Sample("wallet_http_problems_total", count, {"code": code, **replica_label})
    for shard, commands in _by_label(queued).items():
        yield Sample("wallet_ingress_queued", commands, {"shard": shard, **replica_label})
    if pool is not None:
        for state, connections in pool_use(pool).items():
            labels = {"state": state, **replica_label}
            yield Sample("wallet_read_pool_connections", connections, labels)


def _by_label(queued: list[int]) -> dict[str, int]:
    """Commands by the label of their shard; each replica has all shards, so labels multiply."""
    labelled = {str(shard): commands for shard, commands in enumerate(queued[:SHARD_LABELS_MAX])}
    if len(queued) > SHARD_LABELS_MAX:
        labelled[OTHER] = sum(queued[SHARD_LABELS_MAX:])
    return labelled


def statistics(replica: str, queued: list[int], pool: asyncpg.Pool | None) -> ReplicaStatistics:
    """A snapshot of this process, for `wallet status`."""
    return ReplicaStatistics(
        replica=replica,
        pid=os.getpid(),
        requests=sum(requests.values()),
        failed=sum(count for (_, status), count in requests.items() if status >= 500),
        overloaded=sum(count for (_, status), count in requests.items() if status == 429),
        seconds=sum(histogram.snapshot().total for histogram in seconds.values()),
        queued=sum(queued),
        pool=pool_use(pool) if pool is not None else {},
    )


def pool_use(pool: asyncpg.Pool) -> dict[str, int]:
    """Connections: busy, idle, and the maximum."""
    idle = pool.get_idle_size()
    return {"busy": pool.get_size() - idle, "idle": idle, "max": pool.get_max_size()}
