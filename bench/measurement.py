"""The result of one measurement: an entry of `latest.json`."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from bench.audit import Expected
from bench.generators.latency import percentile
from bench.generators.result import LoadResult

_POINTS_MAX = 200


class BatchSizes(msgspec.Struct, frozen=True, kw_only=True):
    """Transfers per transaction, over time."""

    batches: int
    mean: float
    p50: float
    max: int
    series: Sequence[tuple[float, float]] = ()
    """Seconds since the first one, and the mean size around then."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One load whose audit passed."""

    concurrency: int
    intended_rate: float | None = None
    """Requests/s that were sent, in an open loop."""
    p99_ms_of_looks: Sequence[float] = ()
    """p99 of every run in order, if this is the median of several."""
    requests_per_s: float
    """Requests answered with 2xx."""
    transfers_per_s: float
    """Created transfers; with two phases, settled ones."""
    drained_per_s: float | None
    """The same transfers over the time until the read side had them all."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    errors: Mapping[str, int]
    requests: int
    transfers: int
    duration_s: float
    generator: str
    generator_cpu_cores: float
    """Cores that the load generator took from the service."""
    generator_lag_ms: float | None = None
    cpu_s_per_1000: Mapping[str, float] = {}
    """CPU seconds of the service per 1,000 transfers (or reads), by part."""
    batch_sizes: BatchSizes | None = None


def median_run_of(runs: Sequence[Measured]) -> Measured:
    """The run with the median p99; it lists the p99 of all. Their number is odd.

    On a shared machine the slowest percent varies from second to second: one run is not
    representative, and the best of several would be biased.
    """
    assert len(runs) % 2 == 1, "the number of runs is odd"
    if len(runs) == 1:
        return runs[0]
    middle = sorted(runs, key=lambda one: one.p99_ms)[len(runs) // 2]
    return msgspec.structs.replace(middle, p99_ms_of_looks=[one.p99_ms for one in runs])


def measured_of(
    result: LoadResult,
    expected: Expected,
    *,
    drained_at: float | None = None,
    cpu_s: Mapping[str, float] | None = None,
    batch_sizes: BatchSizes | None = None,
) -> Measured:
    """The figures of a load whose audit passed."""
    settled = expected.events - expected.transfers
    transfers = settled or expected.transfers
    work = transfers or result.accepted
    drained = drained_at is not None and transfers
    return Measured(
        concurrency=result.connections,
        intended_rate=result.rate,
        requests_per_s=_rate(result.accepted, result.duration_s),
        transfers_per_s=_rate(transfers, result.duration_s),
        drained_per_s=_rate(transfers, (drained_at or 0.0) - result.began_at) if drained else None,
        p50_ms=round(result.latency.p50_ms, 3),
        p95_ms=round(result.latency.p95_ms, 3),
        p99_ms=round(result.latency.p99_ms, 3),
        max_ms=round(result.latency.max_ms, 3),
        errors=result.errors,
        requests=result.answers,
        transfers=transfers,
        duration_s=round(result.duration_s, 3),
        generator=result.generator,
        generator_cpu_cores=round(result.generator_cpu_s / result.duration_s, 3),
        generator_lag_ms=result.generator_lag_ms and round(result.generator_lag_ms, 2),
        cpu_s_per_1000={
            part: round(1000 * seconds / work, 4) for part, seconds in (cpu_s or {}).items()
        }
        if work
        else {},
        batch_sizes=batch_sizes,
    )


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 1)


def batch_sizes_of(batches: Sequence[tuple[datetime, int]]) -> BatchSizes | None:
    """Sizes of transactions, and how they went over time; None if there were none."""
    if not batches:
        return None
    sizes = sorted(size for _, size in batches)
    return BatchSizes(
        batches=len(sizes),
        mean=round(sum(sizes) / len(sizes), 1),
        p50=percentile(sizes, 50),
        max=sizes[-1],
        series=_series(batches),
    )


def _series(batches: Sequence[tuple[datetime, int]]) -> list[tuple[float, float]]:
    began = batches[0][0]
    step = -(-len(batches) // _POINTS_MAX)
    series = []
    for start in range(0, len(batches), step):
        chosen = batches[start : start + step]
        mean = sum(size for _, size in chosen) / len(chosen)
        series.append((round((chosen[0][0] - began).total_seconds(), 3), round(mean, 1)))
    return series
