"""What a person sees of a check: a moving line, a line for each breach, a summary.

Breaches and the summary go to standard output, for scripts; progress to standard error.
"""

import time
from datetime import timedelta
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.progress import TimeRemainingColumn as Remaining

from verification.findings import Findings
from verification.range_check import Totals
from verification.stream_check import StreamTotals
from verification.violations import RULES, Violation

_LINE_EVERY_S: Final = 10.0
"""How often there is a line of progress where no line can move."""


class ConsoleReport:
    """Use it as a context manager around a check."""

    def __init__(self, out: Console, err: Console) -> None:
        self._out = out
        self._err = err
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
        self._progress = Progress(*columns, console=err, transient=True)
        self._task: TaskID | None = None
        self._began = self._said_at = time.monotonic()

    def __enter__(self) -> "ConsoleReport":
        if self._err.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def start_phase(self, what: str, of: int) -> None:
        """Another part begins, with about ``of`` things to look at."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=of)

    def advance(self, done: int, of: int | None = None) -> None:
        """So many things are done."""
        assert self._task is not None, "a part has begun"
        self._progress.update(self._task, completed=done, total=of)
        now = time.monotonic()
        if not self._err.is_terminal and now - self._said_at > _LINE_EVERY_S:
            self._said_at = now
            task = self._progress.tasks[-1]
            self._err.print(f"{task.description}: {done:,} of about {int(task.total or 0):,}")

    def violation(self, violation: Violation) -> None:
        self._line(str(violation))

    def summary(self, totals: Totals, stream: StreamTotals | None, attempts: int | None) -> None:
        took_s = time.monotonic() - self._began
        self._line(
            f"Looked at {totals.wallets:,} wallets, {totals.events:,} events, "
            f"{totals.transfers:,} transfers and {totals.keys:,} keys in {took_s:.1f} s."
        )
        self._line(_lag(totals))
        if stream is not None:
            gone = "; its head is gone, and was not judged" if stream.head_is_gone else ""
            self._line(
                f"Stream: {stream.messages:,} messages, {stream.repetitions:,} of them "
                f"repetitions{gone}."
            )
        if attempts is not None:
            self._line(f"History: {attempts:,} calls.")

    def print_verdict(self, findings: Findings) -> None:
        if not findings.total:
            self._line("No violations found.")
            return
        for breach, count in sorted(findings.counts.items()):
            self._line(f"{count:,} × {breach}")
        self._line(f"{findings.total:,} breaches: see specification/failure-model.md.")

    def explain(self) -> None:
        """The rules, by their numbers."""
        for number, rule in RULES.items():
            self._line(f"rule {number}: {rule}")

    def _line(self, text: str) -> None:
        self._out.print(text, markup=False, highlight=False, soft_wrap=True)


def _lag(totals: Totals) -> str:
    waiting = f"{totals.unpublished:,} events are not surely on the stream yet"
    if not totals.wallets_behind or totals.now is None or totals.behind_since is None:
        return f"Projections are up to date; {waiting}."
    age = max(totals.now - totals.behind_since, timedelta())
    return (
        f"Projections lag {totals.events_behind:,} events behind in {totals.wallets_behind:,} "
        f"wallets, for up to {age.total_seconds():.1f} s; {waiting}."
    )
