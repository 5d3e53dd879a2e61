"""Requests counted: by route and status, and the time that they took."""

from collections import Counter, defaultdict
from typing import Final

from telemetry.exporter import Sample

requests: Final[Counter[tuple[str, int]]] = Counter()
"""Requests answered by this process, by route name and status."""

seconds: Final[defaultdict[str, float]] = defaultdict(float)
"""Seconds from a request's headers to its answer handed over, summed by route name."""


def samples(replica: str, queued: list[int]) -> list[Sample]:
    """The metrics of this process. ``queued``: commands that wait for a call, by shard."""
    found = [
        Sample(
            "counter",
            "wallet_http_requests_total",
            "Requests answered, by route and status.",
            count,
            {"route": route, "status": str(status), "replica": replica},
        )
        for (route, status), count in requests.items()
    ]
    found += [
        Sample(
            "counter",
            "wallet_http_request_seconds_total",
            "Time spent answering, summed by route.",
            total,
            {"route": route, "replica": replica},
        )
        for route, total in seconds.items()
    ]
    found += [
        Sample(
            "gauge",
            "wallet_ingress_queued",
            "Commands that wait for a call to their shard.",
            waiting,
            {"shard": str(shard), "replica": replica},
        )
        for shard, waiting in enumerate(queued)
    ]
    return found
