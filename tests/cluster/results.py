"""The results of the cluster tests, and their part of specification/failure-results.md."""

import os
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from tests.support.generated_page import FAILURE_RESULTS, table, write_generated_part
from tests.support.steady_load import SteadyLoad

_COMMAND: Final = "make cluster-test"
_HEAD: Final = ("fault", "writes", "failed attempts", "longest wait", "measured", "target")


class FaultResult(msgspec.Struct, kw_only=True):
    """What clients and the balancer saw of one fault. Times in seconds."""

    name: str
    what: str
    target: str
    writes: int
    failures: Counter[str]
    """Attempts that failed; all were repeated under their key and succeeded."""
    longest_s: float
    """From the start of a client's first attempt to its success."""
    measured: str = ""
    """Whatever else the target is about."""

    def cells(self) -> tuple[str, ...]:
        failures = ", ".join(f"{count:,} × {one}" for one, count in self.failures.most_common())
        return (
            self.name,
            f"{self.writes:,}",
            failures or "none",
            f"{self.longest_s:.1f} s",
            self.measured,
            self.target,
        )

    def __str__(self) -> str:
        return "; ".join(f"{head}: {cell}" for head, cell in zip(_HEAD, self.cells(), strict=True))


def result_of(load: SteadyLoad, name: str, what: str, target: str, measured: str) -> FaultResult:
    return FaultResult(
        name=name,
        what=what,
        target=target,
        writes=load.acknowledged,
        failures=load.failures,
        longest_s=load.longest_wait_s,
        measured=measured,
    )


def write_results(results: Sequence[FaultResult], audit: str, took_s: float) -> None:
    """Replace the cluster tests' part of the page."""
    write_generated_part(FAILURE_RESULTS, _COMMAND, list(lines_of(results, audit, took_s)))


def lines_of(results: Sequence[FaultResult], audit: str, took_s: float) -> Iterable[str]:
    yield (
        f"{len(results)} changes of a cluster in {took_s / 60:.0f} minutes, "
        f"{sum(one.writes for one in results):,} writes, on {os.cpu_count()} cores "
        f"({platform.system()} {platform.machine()}) that the clients, the servers and all nodes "
        f"share. {audit}"
    )
    yield ""
    yield from table(_HEAD, [one.cells() for one in results])
    yield ""
    yield from (f"- `{one.name}`: {one.what}" for one in results)
