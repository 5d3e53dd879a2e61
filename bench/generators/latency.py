"""Exact percentiles: every latency is kept, sorted once at the end."""

import math
from array import array
from collections.abc import Sequence

from bench.generators.result import Latency


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Nearest-rank percentile of sorted values."""
    if not ordered:
        return 0.0
    rank = max(math.ceil(percent / 100 * len(ordered)), 1)
    return ordered[rank - 1]


class Latencies:
    """Collects seconds, reports milliseconds."""

    def __init__(self) -> None:
        self._seconds = array("d")

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    def summary(self) -> Latency:
        ordered = sorted(self._seconds)
        return Latency(
            p50_ms=percentile(ordered, 50) * 1000,
            p95_ms=percentile(ordered, 95) * 1000,
            p99_ms=percentile(ordered, 99) * 1000,
            max_ms=ordered[-1] * 1000 if ordered else 0.0,
        )
