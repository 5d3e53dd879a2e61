"""Requests counted: by route and status, the time that they took, and what was told to them."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

import asyncpg

from runtime.metrics.exporter import Sample
from runtime.metrics.histogram import Histogram
from serve_app.asgi.statistics import ReplicaStatistics
from serve_app.http.problems import problem_counts

requests: Final[Counter[tuple[str, int]]] = Counter()
"""Requests answered by this process, by route name and status."""

seconds: Final[defaultdict[str, Histogram]] = defaultdict(Histogram)
"""From a request's headers to its answer handed over, by route name."""


def preregister(route: str) -> None:
    """Count ``route``'s bugs from zero on."""
    requests[route, 500] += 0


def samples(replica: str, queued: list[int], pool: asyncpg.Pool | None) -> Iterator[Sample]:
    """The metrics of this process. ``queued``: commands that wait for a call, by shard."""
    mark = {"replica": replica}
    for (route, status), count in requests.items():
        labels = {"route": route, "status": str(status), **mark}
        yield Sample("wallet_http_requests_total", count, labels)
    for route, histogram in seconds.items():
        labels = {"route": route, **mark}
        yield Sample("wallet_http_request_seconds", histogram.snapshot(), labels)
    for code, count in problem_counts.items():
        yield Sample("wallet_http_problems_total", count, {"code": code, **mark})
    for shard, waiting in enumerate(queued):
        yield Sample("wallet_ingress_queued", waiting, {"shard": str(shard), **mark})
    if pool is not None:
        for state, connections in pool_use(pool).items():
            labels = {"state": state, **mark}
            yield Sample("wallet_read_pool_connections", connections, labels)


def statistics(replica: str, queued: list[int], pool: asyncpg.Pool | None) -> ReplicaStatistics:
    """How this process stands, for `wallet status`."""
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
    """How many connections are busy, are idle, and may be there at most."""
    idle = pool.get_idle_size()
    return {"busy": pool.get_size() - idle, "idle": idle, "max": pool.get_max_size()}
