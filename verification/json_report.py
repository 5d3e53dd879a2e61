"""JSON output of a check: one object on standard output, for scripts."""

from datetime import datetime

import msgspec
from rich.console import Console

from verification.console_report import ConsoleReport
from verification.digest import Digest
from verification.findings import Findings
from verification.range_check import Totals
from verification.stream_check import StreamTotals
from verification.violations import Violation, ViolationKind


class CheckedLedger(msgspec.Struct, frozen=True, kw_only=True):
    """What was checked in Postgres."""

    wallets: int
    events: int
    transfers: int
    keys: int
    unpublished_events: int
    wallets_behind: int
    """Wallets whose projection lags."""
    events_behind: int
    behind_since: datetime | None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What `wallet verify --json` prints."""

    consistent: bool
    violations: int
    counts: dict[ViolationKind, int]
    """Violations by kind."""
    findings: list[Violation]
    """The first violation of each kind in a wallet."""
    checked: CheckedLedger | None
    stream: StreamTotals | None
    """None: the stream was not checked."""
    against: Digest | None
    """The earlier digest that the ledger was compared with."""


class JsonReport(ConsoleReport):
    """Collects what a `ConsoleReport` prints, and prints it at the end; progress as there."""

    def __init__(self, out: Console, err: Console) -> None:
        super().__init__(out, err)
        self._findings: list[Violation] = []
        self._checked: CheckedLedger | None = None
        self._stream: StreamTotals | None = None
        self._against: Digest | None = None

    def violation(self, violation: Violation) -> None:
        self._findings.append(violation)

    def summary(self, totals: Totals, stream: StreamTotals | None, calls: int | None) -> None:
        del calls  # Of a simulation's history, which the command doesn't check.
        self._stream = stream
        self._checked = CheckedLedger(
            wallets=totals.wallets,
            events=totals.events,
            transfers=totals.transfers,
            keys=totals.keys,
            unpublished_events=totals.unpublished,
            wallets_behind=totals.wallets_behind,
            events_behind=totals.events_behind,
            behind_since=totals.behind_since,
        )

    def compared_with(self, digest: Digest) -> None:
        self._against = digest

    def print_verdict(self, findings: Findings) -> None:
        verdict = Verdict(
            consistent=not findings.total,
            violations=findings.total,
            counts=dict(sorted(findings.counts.items())),
            findings=self._findings,
            checked=self._checked,
            stream=self._stream,
            against=self._against,
        )
        self._line(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode())
