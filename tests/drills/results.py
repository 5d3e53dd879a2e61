"""The results of the drills, and their part of specification/failure-results.md."""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tests.support.generated_page import FAILURE_RESULTS, table, write_generated_part

_HEAD: Final = (
    "drill",
    "writes",
    "errors seen by clients",
    "without a write",
    "back after",
    "every wallet after",
    "lost",
    "violations",
    "target",
)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What is promised beyond the rules that the checker knows."""

    back_s: float | None = None
    """See `DrillResult.back_s`."""
    unharmed: bool = False
    """No write fails or has an unknown outcome because of it."""
    in_order: bool = True
    """A consumer gets no event of a wallet before the one that precedes it."""
    says_if_applied: bool = True
    """Every error is a problem document that says whether the write was applied."""

    def __str__(self) -> str:
        parts = [f"back ≤ {self.back_s:g} s"] if self.back_s is not None else []
        parts += ["no error"] if self.unharmed else []
        return ", ".join(parts)


class DrillResult(msgspec.Struct, kw_only=True):
    """The result of one drill. Times in seconds."""

    name: str
    what: str
    target: Target
    writes: int
    """Decided: acknowledged or refused. Each item of a batch is one."""
    errors: Counter[str]
    """Calls without a decision, by what the client saw; its own time-outs apart."""
    longest_s: float
    silent_s: float
    """The longest time in which no write was acknowledged."""
    back_s: float | None
    """Until writes were acknowledged again and no error came any more; None: never."""
    all_wallets_s: float | None
    """Until every wallet was written to by a new request, its client's pauses included."""
    lost: int
    """Acknowledged writes that the journal does not have."""
    violations: list[str]
    missed: list[str]
    """Targets that were not reached."""
    measured: list[str] = []
    """What was measured besides."""

    def cells(self) -> tuple[str, ...]:
        errors = ", ".join(f"{count:,} × {code}" for code, count in self.errors.most_common())
        target = str(self.target)
        reached = f"missed: {', '.join(self.missed)}" if self.missed else "reached"
        return (
            self.name,
            f"{self.writes:,}",
            errors or "none",
            f"{self.silent_s:.1f} s",
            _seconds(self.back_s),
            _seconds(self.all_wallets_s),
            f"{self.lost:,}",
            f"{len(self.violations):,}",
            f"{target}: {reached}" if target or self.missed else "",
        )

    def __str__(self) -> str:
        return "; ".join(
            f"{title}: {text}" for title, text in zip(_HEAD, self.cells(), strict=True)
        )


def _seconds(time_s: float | None) -> str:
    return "never" if time_s is None else f"{time_s:.1f} s"


def write_results(results: Sequence[DrillResult], took_s: float) -> None:
    """Replace the drills' part of the page."""
    write_generated_part(FAILURE_RESULTS, "make drills", list(_lines(results, took_s)))


def _lines(results: Sequence[DrillResult], took_s: float) -> Iterable[str]:
    yield (
        f"{len(results)} drills in {took_s / 60:.0f} minutes, "
        f"{sum(one.writes for one in results):,} writes, on {os.cpu_count()} cores "
        f"({platform.system()} {platform.machine()}) that the clients and the servers share. "
        f"Violations: {sum(len(one.violations) for one in results)}."
    )
    yield ""
    yield from table(_HEAD, [one.cells() for one in results])
    yield ""
    yield from (f"- `{one.name}`: {'; '.join([one.what, *one.measured])}" for one in results)
