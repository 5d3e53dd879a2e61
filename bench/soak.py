"""Whether the service stays as it is under a steady load: `python -m bench.soak`.

A stack of its own, and an open loop of mixed requests at a share of the peak that was measured just
before, minute after minute, each of them audited. After each minute: its latencies, the memory of
every component, the sizes of tables and stream, and the dead rows that autovacuum has left.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import linear_regression, median
from typing import Final

import asyncpg
import msgspec
from rich.console import Console

from bench.data_growth import Tables
from bench.database_state import CONNECT_TIMEOUT_S
from bench.machine import Machine, commit, this_machine
from bench.measure import Bench
from bench.measurement import Measured
from bench.plan import FULL, OPEN_LOOP_CONNECTIONS
from bench.processes import memory_of
from bench.results import FOLDER
from bench.run import opened, summary
from bench.scenarios import BY_NAME
from bench.service import own_stack
from bench.soak_plots import draw
from runtime.postgres.connect import connect

SCENARIO: Final = "mixed"
MEMORY_GROWTH_MAX: Final = 0.03
"""Of the memory at the beginning, per hour."""
LATENCY_GROWTH_MAX: Final = 1.5
"""The last third's median p99 ÷ the first third's. On a shared machine p99 varies that much."""
FILE: Final = "soak.json"

_PEAK_S: Final = 10.0
_MINUTE_S: Final = 60.0
_WARM_UP_MINUTES: Final = 2
"""Minutes that don't count: caches, pools and the database's buffers fill once."""
_NOT_COUNTED: Final = "postgres"
"""Its shared buffers fill with whatever is read and written, up to their size."""

_DEAD_ROWS: Final = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables"
_VACUUMS: Final = "SELECT coalesce(sum(autovacuum_count), 0)::bigint FROM pg_stat_user_tables"


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at the end of one minute."""

    requests_per_s: float
    transfers: int
    """Since the beginning."""
    p50_ms: float
    p99_ms: float
    memory: Mapping[str, int]
    """Bytes by component."""
    tables: Mapping[str, int]
    """Bytes by table and index."""
    stream_bytes: int
    dead_rows: int
    autovacuums: int

    @property
    def counted_memory(self) -> int:
        return sum(size for part, size in self.memory.items() if part != _NOT_COUNTED)


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """The result."""

    machine: Machine
    commit: str
    peak_requests_per_s: float
    share: float
    minutes: Sequence[Minute]

    @property
    def steady(self) -> Sequence[Minute]:
        return self.minutes[_WARM_UP_MINUTES:]

    @property
    def memory_growth_per_hour(self) -> float:
        """As a share of the memory at the beginning: the slope of a line through all minutes."""
        sizes = [one.counted_memory for one in self.steady]
        slope, _ = linear_regression(range(len(sizes)), sizes)
        return float(slope) * 60 / sizes[0]

    @property
    def latency_growth(self) -> float:
        """The median p99 of the last third of the minutes ÷ that of the first third."""
        third = max(len(self.steady) // 3, 1)
        p99s = [one.p99_ms for one in self.steady]
        return median(p99s[-third:]) / median(p99s[:third])

    @property
    def bytes_per_transfer(self) -> Mapping[str, float]:
        """What a transfer adds on disk, by table, and on the stream."""
        first, last = self.steady[0], self.steady[-1]
        transfers = last.transfers - first.transfers
        grown = {
            name: (size - first.tables.get(name, 0)) / transfers
            for name, size in last.tables.items()
        }
        grown["stream"] = (last.stream_bytes - first.stream_bytes) / transfers
        return {name: round(size, 1) for name, size in grown.items() if size >= 1}

    def missed(self) -> list[str]:
        """The targets that were missed."""
        missed = []
        if self.memory_growth_per_hour > MEMORY_GROWTH_MAX:
            missed.append(f"memory grows by {self.memory_growth_per_hour:.1%} an hour")
        if self.latency_growth > LATENCY_GROWTH_MAX:
            missed.append(f"p99 grew by {self.latency_growth:.2f} ×")
        return missed


async def soak(
    bench: Bench, connection: asyncpg.Connection, *, minutes: int, share: float, console: Console
) -> Soak:
    """Measure the peak, and then ``minutes`` minutes at ``share`` of it.

    Raises:
        AuditFailed, LoadFailed: see `Bench.measure`.
    """
    scenario = BY_NAME[SCENARIO]
    peak = await bench.measure(scenario, connections=scenario.headline, duration_s=_PEAK_S)
    console.print(f"peak: {summary(peak)}")
    seen: list[Minute] = []
    for number in range(minutes):
        measured = await bench.measure(
            scenario,
            connections=OPEN_LOOP_CONNECTIONS,
            duration_s=_MINUTE_S,
            rate=share * peak.requests_per_s,
        )
        seen.append(await _minute(bench, connection, measured, seen))
        console.print(f"minute {number + 1}: {summary(measured)}, {_of(seen[-1])}")
    return Soak(
        machine=this_machine(),
        commit=commit(),
        peak_requests_per_s=peak.requests_per_s,
        share=share,
        minutes=seen,
    )


async def _minute(
    bench: Bench, connection: asyncpg.Connection, measured: Measured, before: Sequence[Minute]
) -> Minute:
    return Minute(
        requests_per_s=measured.requests_per_s,
        transfers=(before[-1].transfers if before else 0) + measured.transfers,
        p50_ms=measured.p50_ms,
        p99_ms=measured.p99_ms,
        memory=memory_of(bench.service.processes()),
        tables=await Tables(connection).sizes(),
        stream_bytes=await bench.stream.size(),
        dead_rows=await connection.fetchval(_DEAD_ROWS),
        autovacuums=await connection.fetchval(_VACUUMS),
    )


def _of(minute: Minute) -> str:
    return f"{minute.counted_memory / 1e6:,.0f} MB, {minute.dead_rows:,} dead rows"


def tables_of(found: Soak) -> str:
    """The result in Markdown."""
    first, last = found.steady[0], found.steady[-1]
    rows = [
        ("load", f"{found.share:.0%} of {found.peak_requests_per_s:,.0f} requests/s"),
        ("minutes", f"{len(found.steady)}, after {_WARM_UP_MINUTES} that don't count"),
        ("transfers", f"{last.transfers:,}"),
        ("p99, median of the first and of the last third", f"{found.latency_growth:.2f} ×"),
        ("memory without Postgres", f"{_of(first)} → {_of(last)}"),
        ("memory growth per hour", f"{found.memory_growth_per_hour:+.1%}"),
        ("autovacuum runs", f"{last.autovacuums - first.autovacuums:,}"),
        *((f"bytes per transfer: {name}", f"{size:,.0f}") for name, size in _largest(found)),
    ]
    return "\n".join(["| | |", "|---|--:|", *(f"| {name} | {text} |" for name, text in rows)])


def _largest(found: Soak) -> list[tuple[str, float]]:
    return sorted(found.bytes_per_transfer.items(), key=lambda one: one[1], reverse=True)


async def _run(options: argparse.Namespace, console: Console) -> Soak:
    with own_stack() as service:
        connection = await connect(service.database_url, timeout_s=CONNECT_TIMEOUT_S)
        try:
            async with opened(service, FULL, wrk_allowed=False) as bench:
                return await soak(
                    bench,
                    connection,
                    minutes=options.minutes,
                    share=options.share,
                    console=console,
                )
        finally:
            await connection.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=int, default=60, help="at least 6 (default: 60)")
    parser.add_argument("--share", type=float, default=0.7, help="of the peak (default: 0.7)")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the results")
    options = parser.parse_args()
    if options.minutes < _WARM_UP_MINUTES + 4:
        parser.error(f"--minutes must be at least {_WARM_UP_MINUTES + 4}")
    console = Console()
    found = asyncio.run(_run(options, console))
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / FILE).write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    draw(found, options.output / "soak.png")
    console.print(tables_of(found))
    for missed in found.missed():
        console.print(f"missed: {missed}")
    return 1 if found.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
