"""Console output of a check: a progress bar, one line per violation, a summary.

Violations and the summary go to standard output, for scripts; progress to standard error.
"""

import time
from datetime import timedelta
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as Remaining

from verification.digest import Digest
from verification.findings import Findings
from verification.range_check import Totals
from verification.stream_check import StreamTotals
from verification.violations import Violation

_LINE_EVERY_S: Final = 10.0
"""Interval of the progress lines if standard error is not a terminal."""


class ConsoleReport:
    """Use it as a context manager around a check."""

    def __init__(self, out: Console, err: Console) -> None:
        self._out = out
        self._err = err
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
        self._progress = Progress(*columns, console=err, transient=True)
        self._task: TaskID | None = None
        self._began = self._printed_at = time.monotonic()

    def __enter__(self) -> "ConsoleReport":
        if self._err.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start_phase(self, what: str, of: int) -> None:
        """Start a phase with about ``of`` things to check."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=of)

    def advance(self, done: int, of: int | None = None) -> None:
        """Set the number of things that are done."""
        assert self._task is not None, "a phase was started"
        self._progress.update(self._task, completed=done, total=of)
        now = time.monotonic()
        if not self._err.is_terminal and now - self._printed_at > _LINE_EVERY_S:
            self._printed_at = now
            task = self._progress.tasks[-1]
            self._err.print(f"{task.description}: {done:,} of about {int(task.total or 0):,}")

    def violation(self, violation: Violation) -> None:
        self._line(str(violation))

    def summary(self, totals: Totals, stream: StreamTotals | None, calls: int | None) -> None:
        took_s = time.monotonic() - self._began
        self._line(
            f"Checked {totals.wallets:,} wallets, {totals.events:,} events, "
            f"{totals.transfers:,} transfers and {totals.keys:,} keys in {took_s:.1f} s."
        )
        self._line(_lag(totals))
        if stream is not None:
            truncated = (
                "; older messages are gone and were not checked" if stream.is_truncated else ""
            )
            self._line(
                f"Stream: {stream.messages:,} messages, {stream.duplicates:,} of them "
                f"duplicates{truncated}."
            )
            if stream.resolved:
                self._line(
                    f"{stream.resolved:,} more are of a lost history and were resolved by a "
                    "recovery."
                )
            if stream.without_hash:
                self._line(
                    f"{stream.without_hash:,} have no hash: relays of release 0.1.0 published them "
                    "during an upgrade."
                )
        if calls is not None:
            self._line(f"History: {calls:,} calls.")

    def compared_with(self, digest: Digest) -> None:
        self._line(
            f"Compared with the digest {digest.root} of {digest.wallets:,} wallets at "
            f"{digest.time.isoformat()}."
        )

    def print_verdict(self, findings: Findings) -> None:
        if not findings.total:
            self._line("No violations found.")
            return
        for kind, count in sorted(findings.counts.items()):
            self._line(f"{count:,} × {kind}")
        self._line(f"{findings.total:,} violations: see specification/failure-model.md.")

    def _line(self, text: str) -> None:
        self._out.print(text, markup=False, highlight=False, soft_wrap=True)


def _lag(totals: Totals) -> str:
    unpublished = f"{totals.unpublished:,} events are not confirmed on the stream yet"
    if not totals.wallets_behind or totals.now is None or totals.behind_since is None:
        return f"Projections are up to date; {unpublished}."
    age = max(totals.now - totals.behind_since, timedelta())
    return (
        f"Projections lag {totals.events_behind:,} events behind in {totals.wallets_behind:,} "
        f"wallets, for up to {age.total_seconds():.1f} s; {unpublished}."
    )
