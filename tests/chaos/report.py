"""The results of a run: a table for the terminal, and the page of the specification."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from tests.chaos.faults import FAULTS
from tests.chaos.rounds import Result
from tests.support.generated_page import FAILURE_RESULTS, table, write_generated_part

_HEAD: Final = (
    "fault",
    "times",
    "requests",
    "errors seen by clients",
    "longest wait",
    "back after",
    "violations",
    "promise",
)


class Row(msgspec.Struct, kw_only=True):
    """All rounds with the same faults."""

    title: str
    results: list[Result]

    @property
    def violations(self) -> int:
        return sum(len(result.violations) for result in self.results)

    def cells(self) -> tuple[str, ...]:
        results = self.results
        errors: Counter[str] = sum((one.errors for one in results), Counter())
        backs = [one.back_s for one in results]
        missed = sorted({promise for one in results for promise in one.missed})
        return (
            self.title,
            str(len(results)),
            f"{sum(one.requests for one in results):,}",
            ", ".join(f"{count:,} × {code}" for code, count in errors.most_common()) or "none",
            f"{max(one.longest_s for one in results):.1f} s",
            "never" if None in backs else f"{max(one for one in backs if one is not None):.1f} s",
            str(self.violations),
            f"missed: {', '.join(missed)}" if missed else self._promise(),
        )

    def _promise(self) -> str:
        fault = next((one for one in FAULTS if one.name == self.title), None)
        if fault is None or (fault.back_s is None and not fault.unharmed):
            return ""
        return "kept"


def rows_of(results: Sequence[Result]) -> list[Row]:
    rows: dict[str, Row] = {}
    for result in results:
        row = rows.setdefault(result.title, Row(title=result.title, results=[]))
        row.results.append(result)
    return list(rows.values())


def show(console: Console, results: Sequence[Result]) -> None:
    shown = Table(*_HEAD)
    for row in rows_of(results):
        shown.add_row(*row.cells(), style="red" if row.violations else "")
    console.print(shown)


def write_page(about: str, results: Sequence[Result]) -> None:
    """Replace the generated part of the page."""
    lines = [about, "", *table(_HEAD, [row.cells() for row in rows_of(results)])]
    lines += ["", "Injected faults:", ""]
    lines += [f"- `{fault.name}`: {fault.what}" for fault in FAULTS]
    write_generated_part(FAILURE_RESULTS, "make chaos", lines)
