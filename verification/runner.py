"""The checker as a program: connections, checks, exit code."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Final

import asyncpg
import msgspec
import nats.errors
from rich.console import Console

from verification.console_report import ConsoleReport
from verification.database import check_database, connect, events_expected
from verification.digest import Digest, EarlierHeads, take_digest, write_digest
from verification.findings import Findings
from verification.history import check_history, read_history
from verification.json_report import JsonReport
from verification.stream_check import StreamTotals, check_stream
from verification.stream_source import StreamUnreadable, open_stream

EXIT_OK: Final = 0
EXIT_VIOLATIONS: Final = 1
EXIT_ERROR: Final = 2

_FAILURES: Final = (
    OSError,
    TimeoutError,
    ValueError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    nats.errors.Error,
    StreamUnreadable,
)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to check. Empty or None: that part is skipped."""

    database_url: str
    nats_url: str = ""
    stream: str = "WALLET_EVENTS"
    history: Path | None = None
    lag_max_s: float = 300.0
    """A smaller projection lag is no violation."""
    against: Path | None = None
    """An earlier digest; its heads are beside it."""
    as_json: bool = False
    """Print one JSON object instead of lines."""


def run(options: Options, out: Console, err: Console) -> int:
    """Run the check; returns the exit code."""
    with (JsonReport if options.as_json else ConsoleReport)(out, err) as report:
        try:
            findings = asyncio.run(_check(options, report))
        except _FAILURES as failure:
            reason = str(failure).strip() or type(failure).__name__
            err.print(f"Check failed: {reason}", style="red", markup=False, highlight=False)
            return EXIT_ERROR
        report.print_verdict(findings)
    return EXIT_VIOLATIONS if findings.total else EXIT_OK


async def _check(options: Options, report: ConsoleReport) -> Findings:
    findings = Findings(report.violation)
    # First what can fail immediately.
    history = read_history(options.history) if options.history else None
    earlier = EarlierHeads(options.against) if options.against else None
    connection = await connect(options.database_url)
    try:
        stream = await _check_stream(options, connection, findings, report)
        report.start_phase("Postgres", await events_expected(connection))
        totals = await check_database(
            connection,
            findings,
            lag_max=timedelta(seconds=options.lag_max_s),
            earlier=earlier,
            on_progress=lambda totals: report.advance(totals.events),
        )
        if history is not None:
            findings.add(await check_history(connection, history))
    finally:
        await connection.close()
    report.summary(totals, stream, len(history) if history is not None else None)
    if earlier is not None:
        report.compared_with(earlier.digest)
    return findings


async def _check_stream(
    options: Options, connection: asyncpg.Connection, findings: Findings, report: ConsoleReport
) -> StreamTotals | None:
    if not options.nats_url:
        return None
    report.start_phase("Stream", 0)
    async with open_stream(options.nats_url, options.stream) as source:
        return await check_stream(
            connection,
            source,
            findings,
            on_progress=lambda totals: report.advance(totals.messages, totals.of),
        )


def print_digest(database_url: str, output: Path | None, out: Console, err: Console) -> int:
    """Take a digest and print it; with ``output`` also write it there. Returns the exit code."""
    try:
        digest = asyncio.run(_digest(database_url, output))
    except _FAILURES as failure:
        reason = str(failure).strip() or type(failure).__name__
        err.print(f"Digest failed: {reason}", style="red", markup=False, highlight=False)
        return EXIT_ERROR
    out.print(
        f"{digest.root}  {digest.wallets:,} wallets at {digest.time.isoformat()}",
        highlight=False,
        soft_wrap=True,
    )
    return EXIT_OK


async def _digest(database_url: str, output: Path | None) -> Digest:
    connection = await connect(database_url)
    try:
        if output is None:
            return await take_digest(connection)
        return await write_digest(connection, output)
    finally:
        await connection.close()
