"""A soak's verdict: growth of memory and latency, and what a transfer adds on disk."""

import pytest

from bench.machine import this_machine
from bench.soak import Minute, Soak, tables_of

MEGABYTE = 10**6


def soak_of(*, memory_step: int = 0, p99_step: float = 0.0, minutes: int = 12) -> Soak:
    """Memory, p99 and sizes that grow evenly. Two minutes don't count."""
    return Soak(
        machine=this_machine(),
        commit="0123",
        peak_requests_per_s=1_000.0,
        share=0.7,
        minutes=[
            Minute(
                requests_per_s=700.0,
                transfers=1_000 * (number + 1),
                p50_ms=5.0,
                p99_ms=20.0 + p99_step * number,
                memory={"shards": 100 * MEGABYTE + memory_step * number, "postgres": 10**9},
                tables={"transfers": 300_000 * number, "alone": 7},
                stream_bytes=500_000 * number,
                dead_rows=10,
                autovacuums=number,
            )
            for number in range(minutes)
        ],
    )


def test_a_steady_service_misses_nothing() -> None:
    assert soak_of().missed() == []


def test_memory_growth_is_the_slope_without_postgres() -> None:
    found = soak_of(memory_step=100_000)
    assert found.memory_growth_per_hour == pytest.approx(60 * 100_000 / (100.2 * MEGABYTE))
    assert found.missed() == ["memory grows by 6.0% an hour"]


def test_latency_growth_compares_the_last_third_with_the_first() -> None:
    found = soak_of(p99_step=5.0)
    # Of ten minutes that count, three at each end: 30, 35, 40 and 65, 70, 75.
    assert found.latency_growth == pytest.approx(70 / 35)
    assert found.missed() == ["p99 grew by 2.00 ×"]


def test_bytes_per_transfer_leave_out_what_does_not_grow() -> None:
    assert soak_of().bytes_per_transfer == {"transfers": 300.0, "stream": 500.0}


def test_the_table_says_what_was_measured() -> None:
    table = tables_of(soak_of())
    assert "| load | 70% of 1,000 requests/s |" in table
    assert "| bytes per transfer: stream | 500 |" in table
