"""Histograms in plain Python: an observation costs a bisection and two additions."""

from bisect import bisect_left
from itertools import accumulate
from typing import Final

import msgspec

SECONDS_BUCKETS: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
)
"""Bounds for durations from half a millisecond to a deadline."""

COMMANDS_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0)
"""Bounds for numbers of commands."""


class HistogramSnapshot(msgspec.Struct, frozen=True):
    """A snapshot. ``counts[i]``: observations above ``bounds[i - 1]``, at most ``bounds[i]``.
    The last count, one more than bounds, is of the observations above all bounds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    """Sum of all observations."""

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """0 without observations."""
        count = self.count
        return self.total / count if count else 0.0

    def cumulative(self) -> list[tuple[str, int]]:
        """Prometheus buckets: each bound as text, and the number of observations up to it."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        return list(zip(names, accumulate(self.counts), strict=True))


class Histogram:
    """A histogram that counts observations."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS_BUCKETS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``value``, ``times`` times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    def snapshot(self) -> HistogramSnapshot:
        return HistogramSnapshot(self._bounds, tuple(self._counts), self._total)
