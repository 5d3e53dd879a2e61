"""The checker as a program: what it connects to, what it runs, what it says at its end."""

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
from verification.findings import Findings
from verification.history import check_history, read_history
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
    """What to check. Empty or None: that part is left out."""

    database_url: str
    nats_url: str = ""
    stream: str = "WALLET_EVENTS"
    history: Path | None = None
    lag_max_s: float = 300.0
    """Projections that are behind for less than this are on their way, not wrong."""


def run(options: Options, out: Console, err: Console) -> int:
    """Check; returns the exit code."""
    with ConsoleReport(out, err) as screen:
        try:
            findings = asyncio.run(_check(options, screen))
        except _FAILURES as failure:
            told = str(failure).strip() or type(failure).__name__
            err.print(f"Could not check: {told}", style="red", markup=False, highlight=False)
            return EXIT_ERROR
        screen.print_verdict(findings)
    return EXIT_VIOLATIONS if findings.total else EXIT_OK


async def _check(options: Options, screen: ConsoleReport) -> Findings:
    findings = Findings(screen.violation)
    # First what can fail at once.
    history = read_history(options.history) if options.history else None
    connection = await connect(options.database_url)
    try:
        stream = await _check_stream(options, connection, findings, screen)
        screen.start_phase("Postgres", await events_expected(connection))
        totals = await check_database(
            connection,
            findings,
            lag_max=timedelta(seconds=options.lag_max_s),
            on_progress=lambda totals: screen.advance(totals.events),
        )
        if history is not None:
            findings.add(await check_history(connection, history))
    finally:
        await connection.close()
    screen.summary(totals, stream, len(history) if history is not None else None)
    return findings


async def _check_stream(
    options: Options, connection: asyncpg.Connection, findings: Findings, screen: ConsoleReport
) -> StreamTotals | None:
    if not options.nats_url:
        return None
    screen.start_phase("Stream", 0)
    async with open_stream(options.nats_url, options.stream) as source:
        return await check_stream(
            connection,
            source,
            findings,
            on_progress=lambda totals: screen.advance(totals.messages, totals.of),
        )
